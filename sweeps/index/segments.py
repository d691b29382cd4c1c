"""The files of a store's index: what is closed, and which closing records have gone.

    index/closed-<random>.jsonl    entries: see ``closed_work``
    index/gone-<random>.jsonl      closing records that were thrown away, by id and seal

Each is written whole under a name of its own and never changed, so drivers may write at once; what
they say is added up by readers, in any order: an entry counts unless its closing record has gone.
Whoever removes or replaces a closing record first says so here (``bury``), then removes it. A crash
in between leaves a record that no entry vouches for, which readers read themselves.

The index is made of the records and may be deleted at any time. A damaged file of entries is passed
over. Where a file of what has gone cannot be read, no entry is believed.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic_core import from_json

from sweeps.files.listing import contents, entries
from sweeps.files.objects import Entry
from sweeps.files.whole_files import Place, remove_folder, write_text
from sweeps.index.closed_work import ClosedWork, lines_of, parsed

FOLDER = "index"
CLOSED, GONE = "closed", "gone"
# Raised when a reader of before would misread a file; one of another format is passed over.
FORMAT = 1
# So many files of a kind are merged into one, entries only while they are small.
MANY = 8
LARGE_BYTES = 2_000_000
# How often a listing is asked for again that named a file which was merged before it was read.
TRIES = 5


@dataclass(frozen=True)
class Index:
    """What the files of an index say together.

    Attributes:
        entries: what is closed, by id.
        damaged: the files that could not be read.
        believed: whether all that has gone is known; without it there are no entries.
        gone: ids and seals of closing records that were thrown away.
    """

    entries: dict[str, ClosedWork] = field(default_factory=dict)
    damaged: list[str] = field(default_factory=list)
    believed: bool = True
    gone: set[tuple[str, str]] = field(default_factory=set)


@dataclass(frozen=True)
class _Segment:
    """One file as it was read; ``lines``, entries or what has gone, is None where it is damaged."""

    name: str
    size: int
    lines: list[Any] | None

    @property
    def kind(self) -> str:
        return self.name.partition("-")[0]


def write_closed(root: Place, closed: Sequence[ClosedWork]) -> None:
    """Add entries to the index of a store, and merge its files where they are many."""
    if closed:
        _write(root, CLOSED, lines_of(closed))
        merge(root)


def bury(root: Place, work_id: str, seals: Iterable[str]) -> None:
    """Say that closing records of a run or measurement are about to go: entries of them count no
    more, whoever writes them and when."""
    lines = [json.dumps([work_id, seal]) for seal in sorted(seals)]
    if lines:
        _write(root, GONE, lines)


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
_Files = tuple[tuple[str, Entry], ...]
_last: list[tuple[tuple[str, _Files], Index]] = []


def _added_up(segments: Sequence[_Segment] | None) -> Index:
    if segments is None:
        return Index(believed=False)
    damaged = [one.name for one in segments if one.lines is None]
    if any(one.startswith(GONE) for one in damaged):
        return Index({}, damaged, believed=False)
    found: dict[str, ClosedWork] = {}
    disputed: set[str] = set()
    for (work_id, _), entry in _standing(segments).items():
        if work_id in found:
            disputed.add(work_id)
        found[work_id] = entry
    for work_id in disputed:  # one of them was removed by hand: the record itself is asked
        del found[work_id]
    return Index(found, damaged, gone=_gone(segments))


def merge(root: Place) -> None:
    """Put small files together where there are many.

    The one they become is written first: whoever reads meanwhile reads the same twice.
    """
    listing = _listing(root)
    gone = [name for name in listing if name.startswith(GONE)]
    small = [
        name
        for name, entry in listing.items()
        if name.startswith(CLOSED) and entry.size < LARGE_BYTES
    ]
    if len(small) <= MANY and len(gone) <= MANY:
        return
    segments = [one for one in _read(root, [*small, *gone]) if one.lines is not None]
    merged = [one.name for one in segments if one.kind == CLOSED]
    if len(merged) > MANY:
        _write(root, CLOSED, lines_of(list(_standing(segments).values())))
        _remove(root, merged)
    buried = [one.name for one in segments if one.kind == GONE]
    if len(buried) > MANY:
        _write(root, GONE, [json.dumps(one) for one in sorted(_gone(segments))])
        _remove(root, buried)


def _standing(segments: Iterable[_Segment]) -> dict[tuple[str, str], ClosedWork]:
    """Return the entries by id and seal whose closing records have not gone, of each the newest."""
    gone = _gone(segments)
    found: dict[tuple[str, str], ClosedWork] = {}
    for segment in segments:
        if segment.kind != CLOSED:
            continue
        for entry in segment.lines or ():
            key = (entry.work_id, entry.seal)
            known = found.get(key)
            if key not in gone and (known is None or entry.supersedes(known)):
                found[key] = entry
    return found


def _gone(segments: Iterable[_Segment]) -> set[tuple[str, str]]:
    return {
        (work_id, seal)
        for segment in segments
        if segment.kind == GONE
        for work_id, seal in segment.lines or ()
    }


def _segments(root: Place) -> tuple[_Files, list[_Segment] | None]:
    """Return the files of an index as they were listed, and read; None where they changed faster
    than they were read."""
    for _ in range(TRIES):
        listing = _listing(root)
        found = _read(root, list(listing))
        if len(found) == len(listing):
            return tuple(listing.items()), found
    return (), None


def _listing(root: Place) -> dict[str, Entry]:
    kinds = (f"{CLOSED}-", f"{GONE}-")
    return {
        name: entry
        for name, entry in sorted(entries(root / FOLDER).items())
        if name.startswith(kinds) and name.endswith(".jsonl")
    }


def _read(root: Place, names: Sequence[str]) -> list[_Segment]:
    """Return files of an index; one that has gone since it was listed is left out."""
    return [_parsed(*one) for one in sorted(contents(root / FOLDER, names).items())]


def _remove(root: Place, names: Iterable[str]) -> None:
    for name in names:
        (root / FOLDER / name).unlink(missing_ok=True)


def _write(root: Place, kind: str, lines: Iterable[str]) -> None:
    body = "".join(f"{line}\n" for line in lines)
    header = {"format": FORMAT, "sha256": hashlib.sha256(body.encode()).hexdigest()}
    name = f"{kind}-{secrets.token_hex(8)}.jsonl"
    write_text(root / FOLDER / name, f"{json.dumps(header)}\n{body}")


def _parsed(name: str, content: bytes) -> _Segment:
    head, _, body = content.partition(b"\n")
    lines: list[Any] | None = None
    with contextlib.suppress(ValueError, KeyError, TypeError, IndexError):
        header = from_json(head)
        if header["format"] == FORMAT and header["sha256"] == hashlib.sha256(body).hexdigest():
            gone = name.startswith(GONE)
            lines = [from_json(line) for line in body.splitlines()] if gone else parsed(body)
    return _Segment(name, len(content), lines)
