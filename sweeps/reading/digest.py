"""One checksum a table: equal for two stores exactly when they hold the same rows.

Which files the rows lie in, in which order they were written, by how many attempts and when, does
not enter: a sweep that was interrupted and resumed has the digests of one that never was.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import polars as pl

from sweeps.reading.tables import Tables
from sweeps.store.schema import ADDED, ADDED_TABLES, SORT_KEYS, TABLES

STATUSES = "runs"


@dataclass(frozen=True)
class TableDigest:
    """The rows of one table: how many, and SHA-256 over them in order of their keys."""

    table: str
    rows: int
    sha256: str


def digests(tables: Tables) -> Iterator[TableDigest]:
    """Yield the digest of ``runs`` (how each ended) and of each table of rows.

    Numbers enter by their bits, so that a difference in the last place is a difference.
    """
    runs = tables.runs().select("run_id", "status", "last_step").sort("run_id").collect()
    yield _digest(STATUSES, runs)
    for table, schema in TABLES.items():
        scan = tables.by_name()[table].select(schema.names).sort(SORT_KEYS[table])
        rows = scan.collect(engine="streaming")
        if rows.height or table not in ADDED_TABLES:
            yield _digest(table, rows)


def _digest(table: str, rows: pl.DataFrame) -> TableDigest:
    digest = hashlib.sha256()
    for name, column in zip(rows.columns, rows, strict=True):
        if name in ADDED and column.null_count() == len(column):
            continue
        digest.update(f"{name}:{column.dtype}:{len(column)}\n".encode())
        digest.update(column.is_null().cast(pl.UInt8).to_numpy().tobytes())
        if isinstance(column.dtype, pl.List):
            # How many numbers each row has, then all of them.
            digest.update(column.list.len().fill_null(0).to_numpy().tobytes())
            column = column.explode(empty_as_null=False, keep_nulls=False)
            digest.update(column.is_null().cast(pl.UInt8).to_numpy().tobytes())
        if column.dtype == pl.String:
            # Length first: no two lists of texts give the same bytes.
            for text in column.fill_null(""):
                encoded = text.encode()
                digest.update(f"{len(encoded)}:".encode() + encoded)
        else:
            digest.update(column.fill_null(0).to_numpy().tobytes())
    return TableDigest(table, rows.height, digest.hexdigest())
