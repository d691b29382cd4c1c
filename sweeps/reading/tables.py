"""A store as Polars tables: runs, steps, layers, profiles, jackknife, evaluations, metrics,
samples, subspaces and attempts.

Every table carries the columns of ``runs``, so that a question needs no join; only what is made of
a run's rows (``MADE_OF_ROWS``) is in ``runs`` alone. Rows count when a
closing record (DONE.json) of a run with a result lists the part they are in; anything else
in the folder is left from an attempt that did not end, and is read only on request.

Nothing is read before a frame is collected, and then only the columns and row groups it needs.
Collect large tables with ``engine="streaming"``: the join to ``runs`` then copies no rows.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property, partial
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
from polars.io.plugins import register_io_source

from sweeps.declaration.recorded_runs import RecordedRuns, RecordedSpecs
from sweeps.errors import UserError
from sweeps.index.closed_work import ClosedWork
from sweeps.reading.closings import Closings
from sweeps.reading.dose import SAYS, doses, doses_of_stacks, known_doses
from sweeps.reading.measurements import MeasuredOfRuns
from sweeps.reading.run_table import (
    ATTEMPT_COLUMNS,
    MADE_OF_ROWS,
    RUN_COLUMNS,
    RunColumns,
    RunRow,
    attempt_frame,
    run_schema,
)
from sweeps.spec import RunSpec, is_measurement
from sweeps.store.records import RESULTS
from sweeps.store.schema import TABLES
from sweeps.store.store import Store
from sweeps.store.sweep_records import recorded_runs

# Polars counts the rows of a table by its narrowest column, the first of those. This one costs
# nothing, and is in no answer.
COUNTED = "counted"
PROPAGATION: dict[str, Any] = {
    "run_id": pl.String,
    "stack": pl.String,
    "propagation": pl.Float64,
    "propagation_sd": pl.Float64,
    "without_gradient": pl.List(pl.Float64),
}
TABLE_NAMES = ("runs", *TABLES, "attempts")


def open_store(
    path: str | Path, *, sweep: str | None = None, include_running: bool = False
) -> Tables:
    """Return the tables of a store.

    Args:
        path: folder or URL of the store.
        sweep: only the runs of this sweep, under the names it gives models and objectives; runs it
            has not started yet are in ``runs`` with status ``pending``. Without one every run of
            the store, also those that no sweep names any more.
        include_running: also read the whole parts of runs that have not ended.

    Raises:
        UserError: no such store, or no such sweep. Asking for a table raises it too when a part
            that a closing record lists is missing.
    """
    store = Store.at(str(path)).reading(())
    store.require_there()
    if sweep is not None:
        return Tables(store, recorded_runs(store, sweep), include_running)
    return Tables(store, None, include_running)


@dataclass(frozen=True, eq=False)
class Tables:
    """Lazy frames over one store, as it was when first asked."""

    store: Store
    planned: Sequence[RunSpec] | None = field(repr=False)
    include_running: bool

    def runs(self) -> pl.LazyFrame:
        """One row per run of any status; see ``run_table.run_schema``.

        A column is made when a question first names it, and so is what is made of a run's rows.
        """
        columns = self._contents.columns
        schema = pl.Schema([(COUNTED, pl.Boolean), *self.schema_of("runs").items()])

        def source(
            names: list[str] | None, wanted: pl.Expr | None, first: int | None, _: int | None
        ) -> Iterator[pl.DataFrame]:
            shown = list(schema) if names is None else names or ["run_id"]
            needed = {*shown, *(wanted.meta.root_names() if wanted is not None else ())}
            plain = columns.frame(name for name in columns.schema if name in needed | {"run_id"})
            if COUNTED in needed:
                plain = plain.with_columns(pl.lit(value=True).alias(COUNTED))
            made = [name for name in MADE_OF_ROWS if name in needed]
            if made:
                doses = self._doses.select("run_id", *made)
                plain = plain.join(doses, on="run_id", how="left", maintain_order="left")
            rows = plain if wanted is None else plain.filter(wanted)
            yield rows.select(shown).head(len(rows) if first is None else first)

        return register_io_source(source, schema=schema).drop(COUNTED)

    def steps(self) -> pl.LazyFrame:
        """One row per run and optimizer step."""
        return self._scan("steps")

    def layers(self) -> pl.LazyFrame:
        """One row per run, step and layer group: embedding, head and each distinct block."""
        return self._scan("layers")

    def profiles(self) -> pl.LazyFrame:
        """One row per run, probe step, stack and layer; a block that runs several times has several
        layers."""
        return self._scan("profiles")

    def last_profiles(self) -> pl.LazyFrame:
        """The rows of ``profiles`` that stand in the last part of each run, its last step's among
        them: what the final profiles need, without the parts before."""
        return self._joined("profiles", self._contents.last_profiles)

    def jackknife(self) -> pl.LazyFrame:
        """One row per run, layer and group of probe sequences: the change at the last probe step
        over the rows of all other groups."""
        return self._scan("jackknife")

    def evaluations(self) -> pl.LazyFrame:
        """One row per run, step at which it was scored on held-out examples, and score."""
        return self._scan("evaluations")

    def answers(self) -> pl.LazyFrame:
        """One row per run, step at which it was evaluated, and prompt: what the model answered."""
        return self._scan("answers")

    def metrics(self) -> pl.LazyFrame:
        """One row per run, probe step, layer and metric of the user's own."""
        return self._scan("metrics")

    def samples(self) -> pl.LazyFrame:
        """One row per run, step and candidate of its batch, where a selection chooses it."""
        return self._scan("samples")

    def subspaces(self) -> pl.LazyFrame:
        """One row per run, probe step, block that runs several times, and pair of its turns."""
        return self._scan("subspaces")

    def own_metrics(self) -> list[str]:
        """Return the metrics of users' own that there are rows of, in order of their names."""
        rows = self._rows("metrics", self._contents.parts["metrics"]).select("metric").unique()
        return sorted(rows.collect()["metric"].to_list())

    def propagation(self, metric: str) -> pl.DataFrame:
        """One row per run whose model was given noise, and of several stacks per ``stack``:
        ``propagation`` and ``propagation_sd`` as in ``runs``, under this metric, and
        ``without_gradient``, the mean profile over its mean."""
        found = self._contents.columns.measured.propagation(metric)
        rows = [(run_id, *of_stack) for run_id, stacks in found.items() for of_stack in stacks]
        return pl.DataFrame(rows, schema=PROPAGATION, orient="row")

    def doses_of_stacks(self) -> pl.DataFrame:
        """One row per ``run_id`` and ``stack`` of the runs whose model has several: ``dose`` and
        ``dose_slope`` of the stack, which ``runs`` has of single stacks only."""
        runs = self._contents.columns.frame(["run_id", "model_layers", "model_stacks", *SAYS])
        several = set(runs.drop_nulls("model_stacks")["run_id"])
        layers = self._contents.parts["layers"]
        parts = [path for path in layers if _run_of(path) in several]
        return doses_of_stacks(self._rows("layers", parts), runs)

    def attempts(self) -> pl.LazyFrame:
        """One row per attempt at a run; ``seconds`` is the attempt's, not those of the run."""
        frame = attempt_frame(self._contents.attempts).lazy()
        runs = self._plain_runs().drop("seconds")
        return frame.join(runs, on="run_id", how="inner", maintain_order="left")

    def by_name(self, names: Collection[str] = TABLE_NAMES) -> dict[str, pl.LazyFrame]:
        """Return every table by the name that SQL knows it under.

        Of those that are not among ``names`` nothing is read or brought before they are collected,
        and then all of their columns.
        """
        return {
            name: getattr(self, name)() if name in names else self._put_off(name)
            for name in TABLE_NAMES
        }

    def schema_of(self, table: str) -> pl.Schema:
        """Return the columns of a table with their types, reading no row of it."""
        runs = dict(self._contents.columns.schema)
        if table == "runs":
            return pl.Schema([*runs.items(), *MADE_OF_ROWS.items()])
        own: dict[str, Any] = {"run_id": pl.String, **ATTEMPT_COLUMNS}
        if table == "attempts":
            del runs["seconds"]
        else:
            own = dict(polars_schema(TABLES[table]))
        return pl.Schema([*own.items(), *((k, v) for k, v in runs.items() if k not in own)])

    def _put_off(self, table: str) -> pl.LazyFrame:
        def source(
            names: list[str] | None, wanted: pl.Expr | None, first: int | None, _: int | None
        ) -> Iterator[pl.DataFrame]:
            rows = getattr(self, table)()
            rows = rows if wanted is None else rows.filter(wanted)
            rows = rows.select(names or list(self.schema_of(table)))
            yield (rows if first is None else rows.head(first)).collect(engine="streaming")

        return register_io_source(source, schema=self.schema_of(table))

    @cached_property
    def _contents(self) -> _Contents:
        return _read_contents(self.store, self.planned, self.include_running)

    @cached_property
    def _doses(self) -> pl.DataFrame:
        runs = self._contents.columns.frame(["run_id", "model_layers", *SAYS])
        known = self._contents.doses
        told = known_doses(known, runs)
        rest = [path for path in self._contents.parts["layers"] if _run_of(path) not in known]
        return pl.concat([told, doses(self._rows("layers", rest), runs)]) if rest else told

    def _plain_runs(self) -> pl.LazyFrame:
        return self.runs().drop(*MADE_OF_ROWS)

    def _scan(self, table: str) -> pl.LazyFrame:
        return self._joined(table, self._contents.parts[table])

    def _joined(self, table: str, parts: list[str]) -> pl.LazyFrame:
        return self._rows(table, parts).join(self._plain_runs(), on="run_id", how="inner")

    def _rows(self, table: str, parts: list[str]) -> pl.LazyFrame:
        self.store.bring(parts)
        _require(self.store, parts)
        schema = polars_schema(TABLES[table])
        if not parts:
            return pl.LazyFrame(schema=schema)
        # The schema is given, so that no footer is read to learn it and a part written before a
        # column was added still counts.
        # A path is what it says: no pattern, and no columns in the names of its folders.
        return pl.scan_parquet(
            parts,
            schema=schema,
            missing_columns="insert",
            extra_columns="ignore",
            glob=False,
            hive_partitioning=False,
        )


@dataclass(frozen=True, eq=False)
class _Contents:
    """What the small records of every run say; of each thing only what is asked for."""

    columns: RunColumns
    store: Store
    include_running: bool

    @cached_property
    def attempts(self) -> dict[str, list[dict[str, Any]]]:
        return {row.run_id: row.attempts for row in self.columns.rows}

    @cached_property
    def parts(self) -> dict[str, list[str]]:
        """The parts that count, by table."""
        found: dict[str, list[str]] = {table: [] for table in TABLES}
        running = []
        for row in self.columns.rows:
            folder = self.store.run(row.run_id)
            if row.closed is None:
                running.append(folder)
            elif row.status in RESULTS:
                for name in row.closed.parts:
                    found[name.split("/", 1)[0]].append(f"{folder.path}/{name}")
        if self.include_running:
            self.store.look([folder.run_id for folder in running], parts=True)
            for folder in running:
                for table in TABLES:
                    found[table].extend(map(str, folder.open_parts(table)))
        return found

    @cached_property
    def last_profiles(self) -> list[str]:
        last = {}
        for path in self.parts["profiles"]:
            last[_run_of(path)] = path
        closed = {row.run_id for row in self.columns.rows if row.closed is not None}
        return [path for run_id, path in last.items() if run_id in closed]

    @cached_property
    def doses(self) -> dict[str, dict[str, Any] | None]:
        """What closing records say of doses, by run; of other runs the rows have to be asked."""
        return {
            row.run_id: row.closed.dose
            for row in self.columns.rows
            if row.closed is not None and row.closed.status in RESULTS and row.closed.knows_dose
        }


def _read_contents(
    store: Store, planned: Sequence[RunSpec] | None, include_running: bool
) -> _Contents:
    """Return the runs of a store, or those that are planned, each with the records it has."""
    if planned is None:
        closings = Closings(store)
        rows, schema = _rows_of_all(closings), RUN_COLUMNS
    else:
        recorded = planned if isinstance(planned, RecordedRuns) else RecordedRuns.of(planned)
        closings = Closings(store, recorded.ids)
        rows = [
            RunRow(run_id, partial(recorded.__getitem__, k), *_records(closings, run_id), closings)
            for k, run_id in enumerate(recorded.ids)
        ]
        schema = run_schema(recorded.kind) if rows else RUN_COLUMNS
    measured = MeasuredOfRuns(closings.store, rows)
    return _Contents(RunColumns(rows, measured, schema), closings.store, include_running)


def _rows_of_all(closings: Closings) -> list[RunRow]:
    rows = []
    specs = RecordedSpecs()
    for run_id in closings.ids():
        if is_measurement(run_id):
            continue
        closed, begun = _records(closings, run_id)
        if closed is None and begun is None:
            continue
        read = cache(partial(_spec_of, closings, run_id, specs))
        if run_id not in closings.index.entries:
            read()  # what is wrong with a record is said at once, where it was not read before
        rows.append(RunRow(run_id, read, closed, begun, closings))
    return rows


def _records(closings: Closings, run_id: str) -> tuple[ClosedWork | None, dict[str, Any] | None]:
    """Return the closing record of a run, or else its run.json, where it has one."""
    try:
        closed = closings.closed(run_id)
    except ValueError:
        raise UserError(
            f"{closings.folder(run_id).path}: has a result and no run.json that can be read;"
            " `depthsweep doctor --fix` drops the result, and resuming makes it anew"
        ) from None
    return closed, closings.folder(run_id).record() if closed is None else None


def _spec_of(closings: Closings, run_id: str, specs: RecordedSpecs) -> RunSpec:
    folder = closings.folder(run_id)
    closed, begun = _records(closings, run_id)
    said = closed.spec if closed is not None else (begun or {}).get("spec")
    try:
        return specs.read(said or {}, run_id)
    except ValueError as error:
        raise UserError(
            f"{folder.path / 'run.json'}: not the record of a run that this version can read"
            f" ({' '.join(str(error).split())[:200]}); `depthsweep forget {run_id}` drops it"
        ) from None


def _run_of(path: str) -> str:
    """Return the id of the run that a part is of."""
    return path.rsplit("/", 3)[1]


def _require(store: Store, parts: Iterable[str]) -> None:
    """Raise UserError for a part that is gone, before Polars meets it in the middle of a scan."""
    for path in parts:
        if not os.path.isfile(path):
            part = Path(path)
            raise UserError(
                f"{store.location}/runs/{part.parents[1].name}: {part.parent.name}/{part.name} is"
                " missing though DONE.json lists it; `depthsweep doctor --fix` drops the result,"
                " and resuming makes it anew"
            )


def polars_schema(schema: pa.Schema) -> pl.Schema:
    """Return the Polars types of an Arrow schema."""
    return pl.Schema(schema)
