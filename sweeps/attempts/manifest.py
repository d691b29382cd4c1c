"""What a checkpoint's manifest accounts for: its own files, and the rows it builds upon."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sweeps.files.whole_files import Place, account_of, read_json
from sweeps.store.run_folder import RunFolder


def damage(folder: RunFolder, path: Place) -> str | None:
    """Return what is wrong with a checkpoint of a run or the rows it goes with, or None."""
    try:
        manifest = read_json(path / "manifest.json")
        listed = [(path / name, entry) for name, entry in manifest["files"].items()]
        listed += [(folder.path / name, entry) for name, entry in _parts(manifest)]
        accounts = [(file, entry["bytes"], entry["sha256"]) for file, entry in listed]
    except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError):
        return f"{path}/manifest.json cannot be read"
    for file, size, checksum in accounts:
        found = account_of([file]).get(file)
        if found is None:
            return f"{file} is missing"
        if found["bytes"] != size:
            return f"{file} has {found['bytes']} bytes of {size}"
        if found["sha256"] != checksum:
            return f"{file} does not match its checksum"
    return None


def _parts(manifest: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for name, entry in manifest["parts"].items():
        if not isinstance(entry["rows"], int):
            raise ValueError("rows are counted")
        yield name, entry
