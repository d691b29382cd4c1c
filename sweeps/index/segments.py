"""The files of a store's index: what is closed, and which closing records have gone.

    index/closed-<random>.jsonl    entries of ``closed_work``
    index/gone-<random>.jsonl      closing records that were thrown away, by id and seal

Each is written whole under a name of its own and never changed, so drivers may write at once; what
they say is added up by readers, in any order: an entry counts unless its closing record has gone.
Whoever removes or replaces a closing record first says so here (``bury``), then removes it. A crash
in between leaves a record that no entry vouches for, which readers read themselves.

The index is made of the records and may be deleted at any time. A damaged file of entries is passed
over. Where a file of what has gone cannot be read, no entry is believed.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic_core import from_json

from sweeps.files.listing import contents, versions
from sweeps.files.whole_files import Place, remove_folder, write_text
from sweeps.index.closed_work import ClosedWork, packed

FOLDER = "index"
CLOSED, GONE = "closed", "gone"
# Raised when a reader of before would misread a file; one of another format is passed over.
FORMAT = 1
# So many files of a kind are merged into one, entries only while they are small.
MANY = 16
LARGE_BYTES = 8_000_000
# How often a listing is asked for again that named a file which was merged before it was read.
TRIES = 5


@dataclass(frozen=True)
class Index:
    """What the files of an index say together.

    Attributes:
        entries: what is closed, by id.
        damaged: the files that could not be read.
        believed: whether all that has gone is known; without it there are no entries.
    """

    entries: dict[str, ClosedWork] = field(default_factory=dict)
    damaged: list[str] = field(default_factory=list)
    believed: bool = True


@dataclass(frozen=True)
class _Segment:
    """One file as it was read; ``lines`` is None where it is damaged."""

    name: str
    size: int
    shared: list[Any]
    lines: list[dict[str, Any]] | None

    @property
    def kind(self) -> str:
        return self.name.partition("-")[0]


def write_closed(root: Place, entries: Sequence[dict[str, Any]]) -> None:
    """Add entries to the index of the store at ``root``, and merge its files where they are many.

    An entry is what ``ClosedWork.data`` returns.
    """
    if entries:
        _write(root, CLOSED, *packed(entries))
        merge(root)


def bury(root: Place, work_id: str, seals: Iterable[str]) -> None:
    """Say that closing records of a run or measurement are about to go: entries of them count no
    more, whoever writes them and when."""
    lines = [{"id": work_id, "seal": seal} for seal in sorted(seals)]
    if lines:
        _write(root, GONE, [], lines)


def drop(root: Place) -> None:
    """Remove the index: readers read the records again, until a driver has made another."""
    remove_folder(root / FOLDER)


def read(root: Place) -> Index:
    """Return what the index of the store at ``root`` says; nothing where there is none.

    It is kept by this process until one of its files is another one.
    """
    key = (str(root), tuple(_listing(root).items()))
    if _last and _last[0][0] == key:
        return _last[0][1]
    read_as, segments = _segments(root)
    index = _added_up(segments)
    _last[:] = [((str(root), read_as), index)]
    return index


# The index that was read last, and of which files: commands ask for one store many times.
_last: list[tuple[tuple[str, tuple[tuple[str, str], ...]], Index]] = []


def _added_up(segments: Sequence[_Segment] | None) -> Index:
    if segments is None:
        return Index(believed=False)
    damaged = [one.name for one in segments if one.lines is None]
    if any(one.startswith(GONE) for one in damaged):
        return Index({}, damaged, believed=False)
    entries: dict[str, ClosedWork] = {}
    disputed: set[str] = set()
    for (work_id, _), entry in _standing(segments).items():
        if work_id in entries:
            disputed.add(work_id)
        entries[work_id] = entry
    for work_id in disputed:  # one of them was removed by hand: the record itself is asked
        del entries[work_id]
    return Index(entries, damaged)


def merge(root: Place) -> None:
    """Put small files together where there are many.

    The one they become is written first: whoever reads meanwhile reads the same twice.
    """
    names = list(_listing(root))
    if all(sum(name.startswith(kind) for name in names) <= MANY for kind in (CLOSED, GONE)):
        return
    segments = _segments(root)[1] or []
    whole = [one for one in segments if one.lines is not None]
    small = [one for one in whole if one.kind == CLOSED and one.size < LARGE_BYTES]
    if len(small) > MANY:
        gone = [one for one in whole if one.kind == GONE]
        kept = [entry.data() for entry in _standing([*small, *gone]).values()]
        _write(root, CLOSED, *packed(kept))
        _remove(root, [one.name for one in small])
    buried = [one for one in whole if one.kind == GONE]
    if len(buried) > MANY:
        lines = [{"id": work_id, "seal": seal} for work_id, seal in sorted(_gone(buried))]
        _write(root, GONE, [], lines)
        _remove(root, [one.name for one in buried])


def _standing(segments: Iterable[_Segment]) -> dict[tuple[str, str], ClosedWork]:
    """Return the entries by id and seal whose closing records have not gone, of each the newest."""
    gone = _gone(segments)
    found: dict[tuple[str, str], ClosedWork] = {}
    for segment in segments:
        if segment.kind != CLOSED:
            continue
        for line in segment.lines or ():
            key = (line["id"], line["seal"])
            if key in gone:
                continue
            entry, known = ClosedWork(line, segment.shared), found.get(key)
            if known is None or entry.supersedes(known):
                found[key] = entry
    return found


def _gone(segments: Iterable[_Segment]) -> set[tuple[str, str]]:
    return {
        (line["id"], line["seal"])
        for segment in segments
        if segment.kind == GONE
        for line in segment.lines or ()
    }


def _segments(root: Place) -> tuple[tuple[tuple[str, str], ...], list[_Segment] | None]:
    """Return the files of an index as they were listed, and read; None where they changed faster
    than they were read."""
    for _ in range(TRIES):
        listing = _listing(root)
        read = contents(root / FOLDER, list(listing))
        if len(read) == len(listing):
            found = [_parsed(name, read[name]) for name in listing]
            return tuple(listing.items()), found
    return (), None


def _listing(root: Place) -> dict[str, str]:
    """Return the names of an index's files, in order, each with what changes with its content."""
    kinds = (f"{CLOSED}-", f"{GONE}-")
    return {
        name: version
        for name, version in versions(root / FOLDER).items()
        if name.startswith(kinds) and name.endswith(".jsonl")
    }


def _remove(root: Place, names: Iterable[str]) -> None:
    for name in names:
        (root / FOLDER / name).unlink(missing_ok=True)


def _write(root: Place, kind: str, shared: list[Any], lines: list[dict[str, Any]]) -> None:
    body = "".join(f"{json.dumps(one, separators=(',', ':'))}\n" for one in (shared, *lines))
    header = {"format": FORMAT, "sha256": hashlib.sha256(body.encode()).hexdigest()}
    name = f"{kind}-{secrets.token_hex(8)}.jsonl"
    write_text(root / FOLDER / name, f"{json.dumps(header)}\n{body}")


def _parsed(name: str, content: bytes) -> _Segment:
    head, _, body = content.partition(b"\n")
    damaged = _Segment(name, len(content), [], None)
    try:
        header = from_json(head)
        if header["format"] != FORMAT or header["sha256"] != hashlib.sha256(body).hexdigest():
            return damaged
        shared, *lines = from_json(b"[" + body.rstrip(b"\n").replace(b"\n", b",") + b"]")
    except (ValueError, KeyError, TypeError):
        return damaged
    return _Segment(name, len(content), shared, lines)
