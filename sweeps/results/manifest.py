"""What a checkpoint's manifest accounts for: its own files, and the rows it builds upon."""

from __future__ import annotations

from typing import Any

from sweeps.results.schema import TABLES
from sweeps.results.store import RunFolder, file_checksum, read_json


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
        if not file.is_file():
            return f"{file} is missing"
        if file.stat().st_size != size:
            return f"{file} has {file.stat().st_size} bytes of {size}"
        if file_checksum(file) != checksum:
            return f"{file} does not match its checksum"
    return None


def parts_until(folder: RunFolder, step: int) -> dict[str, dict[str, Any]]:
    """Return size and SHA-256 of each part whose rows end at ``step`` or before, by its path."""
    return {
        str(path.relative_to(folder.path)): {
            "bytes": path.stat().st_size,
            "sha256": file_checksum(path),
        }
        for table in TABLES
        for path in folder.parts(table)
        if folder.last_step_of(path) <= step
    }
