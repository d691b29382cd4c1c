"""Rows of one run into Parquet parts whose boundaries the specification decides.

A part holds the rows of a fixed range of steps. It is written when the range is complete, under a
temporary name first, so a part that exists is whole, and it is named after its attempt, so it is
nobody else's. At the end the parts of each table become one, and the closing record lists that.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from sweeps.attempts import evaluated
from sweeps.attempts.attempt import Attempt
from sweeps.attempts.compaction import account, compact, names_of
from sweeps.attempts.dose import COLUMNS, dose_of
from sweeps.files.patience import patiently
from sweeps.files.whole_files import (
    Place,
    local_file,
    read_json,
    whole_file,
)
from sweeps.spec import RunSpec
from sweeps.store.records import sealed
from sweeps.store.run_folder import RunFolder, name_in
from sweeps.store.schema import TABLES
from sweeps.store.store import Status

EVALUATIONS = "evaluations"
ANSWERS = "answers"
# Rows in no part yet lie in a checkpoint under this name and their table's.
KEPT = "rows-"


class RunWriter:
    """Collects the rows of one run and writes each part once its last step is done."""

    def __init__(self, run: RunSpec, folder: RunFolder, attempt: Attempt) -> None:
        """``attempt`` is the run's own, whose name its parts bear."""
        self._run = run
        self._attempt = attempt
        self._folder = folder
        self._rows: dict[str, list[dict[str, Any]]] = {table: [] for table in TABLES}
        # Parts that count, by path in the folder: bytes, SHA-256 and rows as they were written.
        # What befalls a file later on is then seen, and not taken for its content.
        self._parts: dict[str, dict[str, Any]] = {}
        self._loss: float | None = None

    def add(self, table: str, step: int, rows: Iterable[dict[str, Any]]) -> None:
        """Append rows of ``step``; run id and step are added to each."""
        key = {"run_id": self._run.run_id, "step": step}
        added = [{**key, **row} for row in rows]
        unknown = {name for row in added for name in row} - set(TABLES[table].names)
        if unknown:  # Arrow would drop it without a word
            raise ValueError(f"{table} has no column {', '.join(sorted(unknown))}")
        self._rows[table].extend(added)
        if table == "steps":
            self._loss = added[-1]["loss"]

    def end_step(self, step: int, *, is_last: bool = False) -> bool:
        """Write the parts that ``step`` completes; return whether it does.

        With the last step, which may come before the specification's, the parts of each table
        become one: a checkpoint that is kept accounts for what stays.
        """
        first, last = self._run.part_of(step)
        if step == last or is_last:
            self._flush(first, last)
        if is_last:
            self._compact()
        return step == last or is_last

    def evaluation_losses(self) -> list[float]:
        """Return the evaluation loss of each time so far, in order; see ``spec.Stop``."""
        here = pa.Table.from_pylist(self._rows[EVALUATIONS], schema=TABLES[EVALUATIONS])
        return evaluated.losses_of([*self._columns(EVALUATIONS, evaluated.COLUMNS), here])

    def parts(self) -> dict[str, dict[str, Any]]:
        """Return what the parts so far hold, for a checkpoint's manifest."""
        return dict(self._parts)

    def keep(self, aside: Place) -> dict[str, dict[str, Any]]:
        """Write the rows that are in no part yet into a folder; return its files' accounts."""
        kept = {}
        for table, schema in TABLES.items():
            if self._rows[table]:
                path = aside / f"{KEPT}{table}.parquet"
                content = pa.Table.from_pylist(self._rows[table], schema=schema)
                kept[path.name] = patiently(partial(_write_kept, path, content), path)
        return kept

    def take_back(self, checkpoint: Place) -> None:
        """Continue after a checkpoint, whose manifest accounts for parts and rows beside them."""
        manifest = read_json(checkpoint / "manifest.json")
        self._parts = manifest["parts"]
        for name in manifest["files"]:
            stem = PurePosixPath(name).stem
            if stem.startswith(KEPT):
                with local_file(checkpoint / name) as file:
                    self._rows[stem.removeprefix(KEPT)] = pq.read_table(
                        file, partitioning=None
                    ).to_pylist()

    def finish(self, status: Status, step: int) -> None:
        """Write what is left after ``step``, make one part of each table, and close the run with
        the record that makes all of it count.

        Raises Superseded where another attempt owns the run, or has closed it.
        """
        if step:
            self._flush(*self._run.part_of(step))
        loss = self._last_loss(step)
        self._compact()
        parts = {
            name: {"rows": entry["rows"], "sha256": entry["sha256"]}
            for name, entry in self._parts.items()
        }
        content: dict[str, Any] = {"status": status, "step": step, "loss": loss, "parts": parts}
        # Of which layers are not trained a reader knows more: it asks the rows.
        if not self._run.says_what_is_trained:
            content["dose"] = dose_of(self._columns("layers", COLUMNS))
        if self._run.evaluation is not None:
            rows = self._columns(EVALUATIONS, evaluated.COLUMNS)
            content["evaluation"] = evaluated.evaluation_of(rows, step)
        closing = sealed(content)
        self._attempt.require_ownership()
        if not patiently(partial(self._folder.close, closing), self._folder.path):
            self._folder.remove_of(self._attempt.label)
            raise self._attempt.superseded()

    def _compact(self) -> None:
        """Make one part of each table's, in order of steps."""
        for table in TABLES:
            names = names_of(self._folder, table, self._parts)
            if len(names) > 1:
                self._put_together(table, names)

    def _put_together(self, table: str, names: list[str]) -> None:
        last = self._folder.last_step_of(self._folder.path / names[-1])
        path = self._folder.part_path(table, 0, last, self._attempt.label)
        entry = patiently(
            lambda: compact(self._folder, table, self._parts, self._whole(path)), path
        )
        for name in names:
            del self._parts[name]
        self._parts[name_in(self._folder, path)] = entry

    def _last_loss(self, step: int) -> float | None:
        """Return the loss of the last step, None where it is not finite or there is none.

        An attempt that continued after the last step has it in a part only.
        """
        if self._loss is None and step:
            *_, losses = self._columns("steps", ("loss",))
            self._loss = losses["loss"][-1].as_py()
        return self._loss if self._loss is not None and math.isfinite(self._loss) else None

    def _columns(self, table: str, columns: Sequence[str]) -> Iterator[pa.Table]:
        """Yield columns of a table's parts, in order of steps."""
        for name in names_of(self._folder, table, self._parts):
            with local_file(self._folder.path / name) as file:
                there = [one for one in columns if one in pq.read_schema(file).names]
                yield pq.read_table(file, columns=there, partitioning=None)

    def _flush(self, first: int, last: int) -> None:
        for table, schema in TABLES.items():
            rows = self._rows[table]
            if rows:
                path = self._folder.part_path(table, first, last, self._attempt.label)
                content = pa.Table.from_pylist(rows, schema=schema)
                entry = patiently(partial(self._write_part, path, content), path)
                self._parts[name_in(self._folder, path)] = {"rows": content.num_rows, **entry}
                rows.clear()

    def _write_part(self, path: Place, content: pa.Table) -> dict[str, Any]:
        with self._whole(path) as temporary:
            return _write_table(temporary, content)

    @contextmanager
    def _whole(self, path: Place) -> Iterator[Path]:
        """Yield where a file of the run is to be made; a run that was forgotten has none."""
        guard = self._attempt.require_not_superseded
        try:
            with whole_file(path, guard, within=self._folder.path) as temporary:
                yield temporary
        except FileNotFoundError:
            self._attempt.require_ownership()
            raise


class OnlookersWriter:
    """The writer of a rank that does not write."""

    def __init__(self, run: RunSpec) -> None:
        self._run = run

    def add(self, table: str, step: int, rows: Iterable[dict[str, Any]]) -> None:
        """Drop the rows."""
        del table, step, rows

    def end_step(self, step: int, *, is_last: bool = False) -> bool:
        """Return whether ``step`` completes a part, as the first rank's writer does."""
        return step == self._run.part_of(step)[1] or is_last

    def evaluation_losses(self) -> list[float]:
        """Return nothing: the first rank has them."""
        return []

    def parts(self) -> dict[str, dict[str, Any]]:
        """Return that it holds no part."""
        return {}

    def keep(self, aside: Place) -> dict[str, dict[str, Any]]:
        """Write nothing."""
        del aside
        return {}

    def finish(self, status: str, step: int) -> None:
        """Write nothing."""


def _write_kept(path: Place, content: pa.Table) -> dict[str, Any]:
    with whole_file(path) as temporary:
        return _write_table(temporary, content)


def _write_table(path: Path, content: pa.Table) -> dict[str, Any]:
    """Write rows into a local file and return its account."""
    pq.write_table(content, path, compression="zstd")
    return account(path)
