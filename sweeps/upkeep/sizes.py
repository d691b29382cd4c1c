"""How many bytes a store takes, by what they are: rows, weights, logs, records, the cache."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import PurePosixPath

from sweeps.files.trees import files_below, folders_below
from sweeps.store.store import Store

TABLES, CHECKPOINTS, LOGS, RECORDS = "tables", "checkpoints", "logs", "records"
KINDS = (TABLES, CHECKPOINTS, LOGS, RECORDS)
ROOMS = ("runs", "measurements")

Bytes = Counter[str]


def kind_of(name: str) -> str:
    """Return which of ``KINDS`` a file is, by its name within a run's folder."""
    first, *rest = PurePosixPath(name).parts
    if rest and first in (CHECKPOINTS, LOGS):
        return first
    return TABLES if name.endswith(".parquet") else RECORDS


def bytes_by_run(store: Store) -> Iterator[tuple[str, Bytes]]:
    """Yield the id of each run and measurement of a store with its bytes by kind."""
    for room in ROOMS:
        for work_id, files in folders_below(store.source.root / room):
            found: Bytes = Counter()
            for name, seen in files.items():
                found[kind_of(name)] += seen.bytes
            yield work_id, found


def cache_bytes(store: Store) -> int:
    """Return the bytes of what can be made again: in a folder store's cache, or on this node."""
    return sum(seen.bytes for seen in files_below(store.cache).values())


def said(size: int) -> str:
    """Return a number of bytes for a person: 1.2 GB."""
    value = float(size)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 999.5:
            return f"{value:.0f} {unit}" if unit == "B" or value >= 99.5 else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"
