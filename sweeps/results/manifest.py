"""What a checkpoint's manifest accounts for: its own files, and the rows it builds upon."""

from __future__ import annotations

from typing import Any

from sweeps.results.schema import TABLES
from sweeps.results.store import RunFolder, account_of, name_in, read_json


def damage(folder: RunFolder, step: int) -> str | None:
    """Return what is wrong with a checkpoint or the rows it goes with, or None."""
    path = folder.checkpoint_path(step)
    try:
        manifest = read_json(path / "manifest.json")
        listed = [(path / name, entry) for name, entry in manifest["files"].items()]
        listed += [(folder.path / name, entry) for name, entry in manifest["parts"].items()]
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


def parts_until(folder: RunFolder, step: int) -> dict[str, dict[str, Any]]:
    """Return size and SHA-256 of each part whose rows end at ``step`` or before, by its path."""
    parts = (path for table in TABLES for path in folder.parts(table))
    known = account_of(path for path in parts if folder.last_step_of(path) <= step)
    return {name_in(folder, path): entry for path, entry in known.items()}
