"""Rows of one run into Parquet parts whose boundaries the specification decides.

A part holds the rows of a fixed range of steps. It is written when the range is complete, under a
temporary name first, so a part that exists is whole; an attempt that starts over rewrites the same
names with the same rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from sweeps.results.patience import patiently
from sweeps.results.schema import TABLES
from sweeps.results.store import (
    Place,
    RunFolder,
    Status,
    file_checksum,
    local_file,
    name_in,
    whole_file,
    write_json,
)
from sweeps.spec import RunSpec


class RunWriter:
    """Collects the rows of one run and writes each part once its last step is done."""

    def __init__(self, run: RunSpec, folder: RunFolder, guard: Callable[[], None]) -> None:
        """``guard`` is called before anything is put in place, and raises to prevent it."""
        self._run = run
        self._guard = guard
        self._folder = folder
        self._rows: dict[str, list[dict[str, Any]]] = {table: [] for table in TABLES}

    def add(self, table: str, step: int, rows: Iterable[dict[str, Any]]) -> None:
        """Append rows of ``step``; run id and step are added to each."""
        key = {"run_id": self._run.run_id, "step": step}
        self._rows[table].extend({**key, **row} for row in rows)

    def end_step(self, step: int) -> bool:
        """Write the parts that ``step`` completes; return whether it does."""
        first, last = self._run.part_of(step)
        if step == last:
            self._flush(first, last)
        return step == last

    def finish(self, status: Status, step: int) -> None:
        """Write what is left after ``step``, then the closing record that makes all of it count."""
        if step:
            self._flush(*self._run.part_of(step))
        parts = {
            name_in(self._folder, path): _account(path)
            for table in TABLES
            for path in self._folder.parts(table)
        }
        closing = {"status": status, "step": step, "parts": parts}
        path = self._folder.path / "DONE.json"
        patiently(partial(write_json, path, closing, self._guard), path)

    def _flush(self, first: int, last: int) -> None:
        for table, schema in TABLES.items():
            rows = self._rows[table]
            if rows:
                path = self._folder.part_path(table, first, last)
                content = pa.Table.from_pylist(rows, schema=schema)
                patiently(partial(_write_part, path, content, self._guard), path)
                rows.clear()


def _account(path: Place) -> dict[str, Any]:
    with local_file(path) as local:
        return {"rows": pq.read_metadata(local).num_rows, "sha256": file_checksum(local)}


def _write_part(path: Place, content: pa.Table, guard: Callable[[], None]) -> None:
    with whole_file(path, guard) as temporary:
        pq.write_table(content, temporary, compression="zstd")
