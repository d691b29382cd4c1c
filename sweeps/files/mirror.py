"""A copy on this node of what readers need of an object store: a listing, then what is new.

Every reader of a store works on files: Polars scans them, the audit checks them, the report draws
them. For an object store they read this copy. ``refresh`` lists what stands beside the runs (sweeps
and the index of what is closed), ``look`` the runs that are asked for, or all of them at once where
they are many; small records that are new or changed are fetched side by side, and what has gone is
dropped. Parquet parts, which are most of a store, come when a table asks for them (``bring``).

What was fetched is known by the version the listing gives, so a second look at a store costs its
listing. A part whose name has its attempt in it is one content for ever, and needs none.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Collection, Container, Iterable, Iterator
from pathlib import Path

from filelock import FileLock

from sweeps.files.listing import listed_for, listings
from sweeps.files.objects import Entry, ObjectPath

COPIED = ".index.json"
# What is brought up to date at every refresh: small, and without it no run is known.
BESIDE = ("sweeps/", "index/")
ROOMS = ("runs", "measurements")
# Objects that are fetched at once and held in memory before they are written.
BATCH = 256
# How often a folder is listed again of which a file has gone before it was fetched.
TRIES = 5

_OF_ONE_ATTEMPT = re.compile(r"\.a\d+-[0-9a-f]{8}\.parquet$")


class Mirror:
    """The readable part of one object store, in a folder of its own below ``place``."""

    def __init__(self, root: ObjectPath, place: Path) -> None:
        self.url = str(root)
        self.root = root
        self.folder = place / hashlib.sha256(self.url.encode()).hexdigest()[:16]
        self._listing: dict[str, Entry] = {}
        self._listed: set[str] = set()
        self._looked_at: set[str] = set()

    def refresh(self) -> None:
        """Bring the sweeps and the index up to date; of runs nothing."""
        self._listing, self._listed, self._looked_at = {}, set(), set()
        self._list(BESIDE)
        for _ in range(TRIES):
            if not self._fetch(self._records(BESIDE), BESIDE):
                return
            self._list(BESIDE)  # files of the index were put together meanwhile

    def look(
        self,
        works: Collection[str] | None,
        but: Container[str] = (),
        *,
        parts: bool = False,
    ) -> None:
        """Bring the records of runs and measurements up to date, given as ``runs/<id>``.

        Of all that there are where ``works`` is None, less those of ``but``; records of ``but``
        that were copied before may be old. With ``parts`` every part of them comes too.
        """
        if works is not None and not parts:
            works = [work for work in works if work not in self._looked_at]
        if works is not None and not works:
            return
        prefixes = _below(ROOMS if works is None else listed_for(works, ROOMS))
        self._list([prefix for prefix in prefixes if not self._is_listed(prefix)])
        wanted = None if works is None else set(works)
        asked = [
            key
            for key in self._records(prefixes, parts=parts)
            if (work := _work_of(key)) not in but and (wanted is None or work in wanted)
        ]
        self._fetch(asked, prefixes)
        self._looked_at |= {_work_of(key) for key in asked} | (wanted or set())

    def bring(self, paths: Iterable[str]) -> None:
        """Fetch files given by their path in the folder, those the store has."""
        start = f"{self.folder}/"
        keys = [str(path).removeprefix(start) for path in paths]
        unknown = {
            _work_of(key)
            for key in keys
            if key not in self._listing and not _OF_ONE_ATTEMPT.search(key)
        }
        prefixes = _below(listed_for(unknown, ROOMS))
        self._list([prefix for prefix in prefixes if not self._is_listed(prefix)])
        fetched = [key for key in keys if key in self._listing or _OF_ONE_ATTEMPT.search(key)]
        self._fetch(fetched, ())

    def names(self, room: str) -> list[str]:
        """Return what the store has folders of in runs/ or measurements/, in order."""
        if f"{room}/" in self._listed:
            return sorted({key.split("/")[1] for key in self._listing if key.startswith(room)})
        return sorted((self.root / room).names())

    # ---------------------------------------------------------------------------------- listings
    def _is_listed(self, prefix: str) -> bool:
        return prefix in self._listed or f"{prefix.split('/')[0]}/" in self._listed

    def _list(self, prefixes: Collection[str]) -> None:
        """Take in what there is below some prefixes, each asked for by itself."""
        for folder, entries in listings(self.root, [one.rstrip("/") for one in prefixes]).items():
            prefix = f"{folder}/"
            for key in [key for key in self._listing if key.startswith(prefix)]:
                del self._listing[key]
            readable = {f"{prefix}{key}": entry for key, entry in entries.items()}
            self._listing |= {k: entry for k, entry in readable.items() if _is_read(k)}
            self._listed.add(prefix)

    def _records(self, prefixes: tuple[str, ...], *, parts: bool = False) -> list[str]:
        return [
            key
            for key in self._listing
            if key.startswith(prefixes) and (parts or not key.endswith(".parquet"))
        ]

    # ------------------------------------------------------------------------------------- files
    def _fetch(self, keys: list[str], listed: tuple[str, ...]) -> bool:
        """Fetch what is new of ``keys`` and drop what has gone from below the prefixes ``listed``;
        return whether something had gone before it was fetched."""
        self.folder.mkdir(parents=True, exist_ok=True)
        lost = False
        with FileLock(f"{self.folder}.lock"):
            os.utime(self.folder)  # it is in use: see `depthsweep gc`
            copied = self._copied()
            before = dict(copied)
            for key in [key for key in copied if self._has_gone(key, listed)]:
                (self.folder / key).unlink(missing_ok=True)
                del copied[key]
            stale = [key for key in keys if not self._is_here(key, copied)]
            for some in _batches(stale):
                found = self.root.files.get_many(self._key(key) for key in some)
                for key in some:
                    if (data := found.get(self._key(key))) is not None:
                        self._place(key, data)
                        copied[key] = self._version(key)
                    else:
                        lost = True
                        copied.pop(key, None)
                        (self.folder / key).unlink(missing_ok=True)
            if copied != before:
                (self.folder / COPIED).write_text(json.dumps(copied), encoding="utf-8")
        return lost

    def _has_gone(self, key: str, listed: tuple[str, ...]) -> bool:
        return key.startswith(listed) and key not in self._listing if listed else False

    def _is_here(self, key: str, copied: dict[str, str]) -> bool:
        return copied.get(key) == self._version(key) and os.path.isfile(f"{self.folder}/{key}")

    def _version(self, key: str) -> str:
        entry = self._listing.get(key)
        return "" if entry is None or _OF_ONE_ATTEMPT.search(key) else entry.version

    def _place(self, name: str, data: bytes) -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        temporary.write_bytes(data)
        temporary.replace(path)

    def _copied(self) -> dict[str, str]:
        """Return the versions of the files in the folder; nothing where that cannot be said."""
        try:
            copied = json.loads((self.folder / COPIED).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        assert isinstance(copied, dict)
        return copied

    def _key(self, name: str) -> str:
        return f"{self.root.key}/{name}".lstrip("/")


def _is_read(key: str) -> bool:
    """Return whether a reader may want an object: records and parts, no tensors, no logs."""
    wanted = key.endswith((".json", ".jsonl", ".yaml", ".parquet"))
    return wanted and ".." not in key.split("/")


def _work_of(key: str) -> str:
    """Return the run or measurement that an object is of, as ``runs/<id>``."""
    return "/".join(key.split("/")[:2])


def _below(folders: Iterable[str]) -> tuple[str, ...]:
    return tuple(f"{folder}/" for folder in folders)


def _batches(keys: list[str]) -> Iterator[list[str]]:
    for start in range(0, len(keys), BATCH):
        yield keys[start : start + BATCH]
