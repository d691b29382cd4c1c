"""A copy on this node of what readers need of an object store: one listing, then what is new.

Every reader of a store works on files: Polars scans them, the audit checks them, the report draws
them. For an object store they read this copy. ``refresh`` lists the whole store once, fetches the
small records that are new or changed side by side, and drops what has gone; Parquet parts, which
are most of a store, come when a table asks for them. What was fetched is known by the version the
listing gives, so a second look at a store costs its listing.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from filelock import FileLock

from sweeps.files.objects import Entry, ObjectPath

INDEX = ".index.json"
# Objects that are fetched at once and held in memory before they are written.
BATCH = 256


class Mirror:
    """The readable part of one object store, in a folder of its own below ``place``."""

    def __init__(self, root: ObjectPath, place: Path) -> None:
        self.url = str(root)
        self.root = root
        self.folder = place / hashlib.sha256(self.url.encode()).hexdigest()[:16]
        self._listing: dict[str, Entry] = {}

    def refresh(self, *, with_parts: bool = False) -> None:
        """Bring every record up to date; ``with_parts`` also every part.

        A part of a run that has not ended counts as a record: only the folder says it is there.
        """
        listing = self.root.entries()
        ended = {key.removesuffix("DONE.json") for key in listing if key.endswith("/DONE.json")}
        self._listing = {key: entry for key, entry in listing.items() if _is_read(key)}
        wanted = [
            key
            for key in self._listing
            if with_parts or not key.endswith(".parquet") or _run_of(key) not in ended
        ]
        self._fetch(wanted)

    def bring(self, paths: Iterable[str]) -> None:
        """Fetch files given by their path in the folder, those the store has."""
        start = f"{self.folder}/"
        keys = (str(path).removeprefix(start) for path in paths)
        self._fetch([key for key in keys if key in self._listing])

    def _fetch(self, keys: list[str]) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{self.folder}.lock"):
            os.utime(self.folder)  # it is in use: see `depthsweep gc`
            index = self._index()
            before = dict(index)
            for key in [key for key in index if key not in self._listing]:
                (self.folder / key).unlink(missing_ok=True)
                del index[key]
            stale = [key for key in keys if index.get(key) != self._listing[key].version]
            for some in _batches(stale):
                for key, data in self.root.files.get_many(self._key(k) for k in some).items():
                    name = key.removeprefix(self._key(""))
                    self._place(name, data)
                    index[name] = self._listing[name].version
            if index != before:
                (self.folder / INDEX).write_text(json.dumps(index), encoding="utf-8")

    def _place(self, name: str, data: bytes) -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        temporary.write_bytes(data)
        temporary.replace(path)

    def _index(self) -> dict[str, str]:
        """Return the versions of the files in the folder; nothing where that cannot be said."""
        try:
            index = json.loads((self.folder / INDEX).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        assert isinstance(index, dict)
        return {key: value for key, value in index.items() if (self.folder / key).is_file()}

    def _key(self, name: str) -> str:
        return f"{self.root.key}/{name}".lstrip("/")


def _is_read(key: str) -> bool:
    """Return whether a reader may want an object: records and parts, no tensors, no logs."""
    return key.endswith((".json", ".yaml", ".parquet")) and ".." not in key.split("/")


def _run_of(key: str) -> str:
    return "/".join(key.split("/")[:2]) + "/"


def _batches(keys: list[str]) -> Iterator[list[str]]:
    for start in range(0, len(keys), BATCH):
        yield keys[start : start + BATCH]
