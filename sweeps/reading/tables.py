"""A store as six Polars tables: runs, steps, layers, profiles, jackknife, attempts.

Every table carries the columns of ``runs``, so that a question needs no join; only what is made of
a run's rows (``MADE_OF_ROWS``) is in ``runs`` alone. Rows count when a
closing record (DONE.json) of a finished or diverged run lists the part they are in; anything else
in the folder is left from an attempt that did not end, and is read only on request.

Nothing is read before a frame is collected, and then only the columns and row groups it needs.
Collect large tables with ``engine="streaming"``: the join to ``runs`` then copies no rows.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
from polars.io.plugins import register_io_source
from pydantic import ValidationError

from sweeps.errors import UserError
from sweeps.reading.dose import doses
from sweeps.reading.measurements import MeasuredOfRuns
from sweeps.reading.run_table import (
    MADE_OF_ROWS,
    RUN_COLUMNS,
    attempt_frame,
    expected_facts,
    run_frame,
    run_row,
    run_schema,
)
from sweeps.spec import RunSpec
from sweeps.store.run_folder import RunFolder
from sweeps.store.schema import TABLES
from sweeps.store.store import Store

TABLE_NAMES = ("runs", "steps", "layers", "profiles", "jackknife", "attempts")


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
    store = Store.at(str(path)).reading()
    if not store.root.is_dir():
        raise UserError(f"--store {path}: no such folder; give the store that a run wrote to")
    if sweep is not None:
        planned = list(store.load_sweep(sweep).runs)
        return Tables(store, planned, include_running)
    if not (store.root / "runs").is_dir() and not (store.root / "sweeps").is_dir():
        raise UserError(
            f"--store {path}: holds neither runs/ nor sweeps/, so it is no store; give the folder"
            " that --store named when the sweep ran"
        )
    return Tables(store, None, include_running)


@dataclass(frozen=True, eq=False)
class Tables:
    """Lazy frames over one store, as it was when first asked."""

    store: Store
    planned: list[RunSpec] | None = field(repr=False)
    include_running: bool

    def runs(self) -> pl.LazyFrame:
        """One row per run of any status; see ``run_table.run_schema``.

        What is made of a run's rows is computed once, when a question first names it.
        """
        plain = self._contents.runs
        schema = pl.Schema([*plain.schema.items(), *MADE_OF_ROWS.items()])

        def source(
            columns: list[str] | None, wanted: pl.Expr | None, first: int | None, _: int | None
        ) -> Iterator[pl.DataFrame]:
            rows = self._runs_with_doses if set(columns or schema) & set(MADE_OF_ROWS) else plain
            if wanted is not None:
                rows = rows.filter(wanted)
            yield rows.select(columns or schema.names()).head(len(rows) if first is None else first)

        return register_io_source(source, schema=schema)

    def steps(self) -> pl.LazyFrame:
        """One row per run and optimizer step."""
        return self._scan("steps")

    def layers(self) -> pl.LazyFrame:
        """One row per run, step and layer group."""
        return self._scan("layers")

    def profiles(self) -> pl.LazyFrame:
        """One row per run, probe step and layer."""
        return self._scan("profiles")

    def last_profiles(self) -> pl.LazyFrame:
        """The rows of ``profiles`` that stand in the last part of each run, its last step's among
        them: what the final profiles need, without the parts before."""
        return self._joined("profiles", self._contents.last_profiles)

    def jackknife(self) -> pl.LazyFrame:
        """One row per run, layer and group of probe sequences: the change at the last probe step
        over the rows of all other groups."""
        return self._scan("jackknife")

    def propagation(self, metric: str) -> pl.DataFrame:
        """One row per run whose model was given noise: ``propagation`` and ``propagation_sd`` as in
        ``runs``, under this metric, and ``without_gradient``, the mean profile over its mean."""
        found = self._contents.measured.propagation(metric)
        schema: dict[str, Any] = {
            "run_id": pl.String,
            "propagation": pl.Float64,
            "propagation_sd": pl.Float64,
            "without_gradient": pl.List(pl.Float64),
        }
        rows = [(run_id, *measured) for run_id, measured in found.items()]
        return pl.DataFrame(rows, schema=schema, orient="row")

    def attempts(self) -> pl.LazyFrame:
        """One row per attempt at a run; ``seconds`` is the attempt's, not those of the run."""
        frame = attempt_frame(self._contents.attempts).lazy()
        runs = self._contents.runs.lazy().drop("seconds")
        return frame.join(runs, on="run_id", how="inner", maintain_order="left")

    def by_name(self) -> dict[str, pl.LazyFrame]:
        """Return every table by the name that SQL knows it under."""
        return {name: getattr(self, name)() for name in TABLE_NAMES}

    @cached_property
    def _contents(self) -> _Contents:
        return _read_contents(self.store, self.planned, self.include_running)

    @cached_property
    def _runs_with_doses(self) -> pl.DataFrame:
        runs = self._contents.runs
        found = doses(self._rows("layers", self._contents.parts["layers"]), runs)
        return runs.join(found, on="run_id", how="left", maintain_order="left")

    def _scan(self, table: str) -> pl.LazyFrame:
        return self._joined(table, self._contents.parts[table])

    def _joined(self, table: str, parts: list[str]) -> pl.LazyFrame:
        runs = self._contents.runs.lazy()
        return self._rows(table, parts).join(runs, on="run_id", how="inner")

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
    runs: pl.DataFrame
    attempts: dict[str, list[dict[str, Any]]]
    parts: dict[str, list[str]]
    last_profiles: list[str]
    measured: MeasuredOfRuns


def _read_contents(
    store: Store, planned: Iterable[RunSpec] | None, include_running: bool
) -> _Contents:
    """Read the small records of every run, and list the parts that count."""
    rows = []
    attempts: dict[str, list[dict[str, Any]]] = {}
    schema = RUN_COLUMNS
    last_profiles: list[str] = []
    measured = MeasuredOfRuns(store)
    parts: dict[str, list[str]] = {table: [] for table in TABLES}
    wanted: list[tuple[RunFolder, RunSpec | None]]
    if planned is None:
        wanted = [(folder, None) for folder in store.runs()]
    else:
        wanted = [(store.run(spec.run_id), spec) for spec in planned]
        schema = next((run_schema(type(spec)) for _, spec in wanted if spec is not None), schema)
    for folder, spec in wanted:
        record, done = folder.record(), folder.done()
        if done is not None and record is None:
            raise UserError(
                f"{folder.path}: has a result and no run.json that can be read; `depthsweep doctor"
                " --fix` drops the result, and resuming makes it anew"
            )
        if spec is None:
            if record is None:
                continue
            spec = _spec_of(folder, record)
        facts = record["facts"] if record else expected_facts(spec)
        status = done["status"] if done else "unfinished" if record else "pending"
        tries = attempts[folder.run_id] = folder.attempts()
        rows.append(run_row(spec, facts, status, done, tries, measured.columns(spec)))
        if done is not None and status in ("finished", "diverged"):
            for name in sorted(done["parts"]):
                parts[name.split("/", 1)[0]].append(f"{folder.path}/{name}")
            last = max((name for name in done["parts"] if name.startswith("profiles/")), default="")
            last_profiles += [f"{folder.path}/{last}"] if last else []
        elif done is None and include_running:
            for table in TABLES:
                parts[table].extend(map(str, folder.open_parts(table)))
    return _Contents(run_frame(rows, schema), attempts, parts, last_profiles, measured)


def _spec_of(folder: RunFolder, record: dict[str, Any]) -> RunSpec:
    try:
        return RunSpec.model_validate_json(json.dumps(record["spec"]))
    except (KeyError, ValidationError) as error:
        raise UserError(
            f"{folder.path / 'run.json'}: not the record of a run that this version can read"
            f" ({' '.join(str(error).split())[:200]}); `depthsweep forget {folder.run_id}` drops it"
        ) from None


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
    frame = pl.from_arrow(schema.empty_table())
    assert isinstance(frame, pl.DataFrame)
    return frame.schema
