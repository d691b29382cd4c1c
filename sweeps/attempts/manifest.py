"""What a checkpoint's manifest accounts for: its own files, and the rows it builds upon."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sweeps.files.whole_files import Place, account_of, read_json, sizes_of
from sweeps.store.run_folder import RunFolder


def damage(folder: RunFolder, path: Place, unread: str | None = None) -> str | None:
    """Return what is wrong with a checkpoint of a run or the rows it goes with, or None.

    Of the checkpoint's files whose names end in ``unread`` the size is looked at alone, for one who
    will read them anyway and compare them then.
    """
    try:
        manifest = read_json(path / "manifest.json")
        listed = [(path / name, entry) for name, entry in manifest["files"].items()]
        listed += [(folder.path / name, entry) for name, entry in _parts(manifest)]
        accounts = [(file, entry["bytes"], entry["sha256"]) for file, entry in listed]
    except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError):
        return f"{path}/manifest.json cannot be read"
    sizes = sizes_of(file for file, _, _ in accounts)
    for file, size, _ in accounts:
        if file not in sizes:
            return f"{file} is missing"
        if sizes[file] != size:
            return f"{file} has {sizes[file]} bytes of {size}"
    for file, _, checksum in accounts:
        if unread is not None and file.parent == path and file.name.endswith(unread):
            continue
        if account_of([file]).get(file, {}).get("sha256") != checksum:
            return f"{file} does not match its checksum"
    return None


def _parts(manifest: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for name, entry in manifest["parts"].items():
        if not isinstance(entry["rows"], int):
            raise ValueError("rows are counted")
        yield name, entry
