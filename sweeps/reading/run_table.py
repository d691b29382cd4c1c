"""One row per run: what was asked for, what ran, how it ended.

What was asked for is every setting of the specification, by rule: see ``declaration.settings``. The
names here do not collide with those of ``steps``, ``layers`` and ``profiles``, so that every column
can be joined to their rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

import polars as pl

from sweeps.declaration.settings import HEADS, SEED, TAKEN, Setting, settings_of
from sweeps.index.closed_work import ClosedWork
from sweeps.reading.closings import Closings
from sweeps.reading.measurements import MeasuredOfRuns
from sweeps.sources.catalog import CATALOG, FAMILIES
from sweeps.spec import (
    LOSS,
    FolderModel,
    HubModel,
    RunSpec,
    StandinModel,
    every_score,
    score_column,
)
from sweeps.store.records import PROVENANCE, state_after

_DTYPES: dict[type, type[pl.DataType]] = {
    str: pl.String,
    int: pl.Int64,
    float: pl.Float64,
    bool: pl.Boolean,
}
# How a run ended: null where it has not.
OUTCOME: dict[str, type[pl.DataType]] = {
    # finished, stopped, diverged, failed; unfinished: no closing record; pending: never started
    "status": pl.String,
    "last_step": pl.Int64,
    # Training loss of the last step, where it is finite.
    "final_loss": pl.Float64,
    "attempts": pl.Int64,
    # Of all attempts together.
    "seconds": pl.Float64,
}
# The evaluation loss at a run's end less that before its first step: below 0 is what it learned.
LOSS_CHANGE = "evaluation_loss_change"
# Of the outcome, what depends on the machine and its failures: no function of the specification.
HOW_IT_WENT = ("attempts", "seconds")
# What a model or dataset is, whatever the sweep calls it.
FACTS: dict[str, type[pl.DataType]] = {
    "model_source": pl.String,
    "family": pl.String,
    # encoder, decoder, ssm, rnn or unknown
    "kind": pl.String,
    # sequential, parallel, mixer or unknown
    "block": pl.String,
    # Distinct blocks, and how often one of them is called in a forward pass; those of each stack
    # where a model has several ("encoder 6, decoder 6").
    "model_layers": pl.Int32,
    "model_depth": pl.Int32,
    "model_stacks": pl.String,
    "model_width": pl.Int32,
    "parameters": pl.Int64,
    # Of stand-ins, in nats a token: what pretraining came to on text that it never saw, the
    # standard error of that, and what knowing no context would cost.
    "pretraining_loss": pl.Float64,
    "pretraining_loss_se": pl.Float64,
    "unigram_entropy": pl.Float64,
    "dataset": pl.String,
    # What was measured without training, null until it was: of the model and probe, what depth does
    # to noise in the weights (mean slope_normalised over draws, and their standard deviation); ...
    "propagation": pl.Float64,
    "propagation_sd": pl.Float64,
    # ... of the objective, too, how far it is from pretraining, with the 95 % interval, whether
    # the gradients are too noisy to tell, and the distance on one common text.
    "objective_distance": pl.Float64,
    "objective_distance_low": pl.Float64,
    "objective_distance_high": pl.Float64,
    "objective_distance_noisy": pl.Boolean,
    "objective_distance_common": pl.Float64,
    "objective_distance_common_noisy": pl.Boolean,
}
# What is made of a run's rows, and so only when it is asked for; see ``dose``.
MADE_OF_ROWS: dict[str, type[pl.DataType]] = {
    "dose": pl.Float64,
    "dose_slope": pl.Float64,
}


def evaluated_columns() -> dict[str, str | None]:
    """Return the columns that say what a run scored in its end, with the score of each; None for
    how far its evaluation loss has moved."""
    return {**{score_column(score): score for score in every_score()}, LOSS_CHANGE: None}


def run_schema(spec: type[RunSpec] = RunSpec) -> dict[str, type[pl.DataType]]:
    """Return the columns of ``runs`` for a specification, with their types."""
    settings = {one.name: _DTYPES[one.kind] for one in settings_of(spec)}
    first = [*HEADS, SEED]
    return {
        "run_id": pl.String,
        **{name: settings[name] for name in first},
        **OUTCOME,
        **dict.fromkeys(evaluated_columns(), pl.Float64),
        **FACTS,
        **{name: dtype for name, dtype in settings.items() if name not in first},
        **MADE_OF_ROWS,
    }


RUN_COLUMNS = run_schema()


def setting_columns(runs: pl.DataFrame) -> list[str]:
    """Return the columns of a frame with the columns of ``runs`` that tell conditions apart.

    That is every setting but the seed and those that decide no result.
    """
    apart = {one.name for one in settings_of() if not one.decides} | {SEED} | TAKEN
    return [name for name in runs.columns if name not in apart]


# The status of a run without a result: never begun, and begun.
OPEN = ("pending", "unfinished")


@dataclass(frozen=True, eq=False, slots=True)
class RunRow:
    """What a row of ``runs`` is made of: ``closed`` where the run has a result, ``begun`` is its
    run.json where it has none yet, and neither is there of a run that was never started.
    ``read_spec`` returns its specification, the same each time."""

    run_id: str
    read_spec: Callable[[], RunSpec]
    closed: ClosedWork | None
    begun: dict[str, Any] | None
    closings: Closings

    @property
    def spec(self) -> RunSpec:
        return self.read_spec()

    @property
    def status(self) -> str:
        if self.closed is not None:
            return str(self.closed.status)
        return OPEN[self.begun is not None]

    @property
    def facts(self) -> dict[str, Any]:
        """Those of run.json, or what is expected."""
        if self.closed is not None:
            return self.closed.facts
        if self.begun is None:
            return expected_facts(self.spec)
        facts: dict[str, Any] = self.begun["facts"]
        return facts

    @property
    def attempts(self) -> list[dict[str, Any]]:
        return self.closings.attempts(self.run_id)


class RunColumns:
    """The table ``runs``, column by column as they are asked for: most questions name a few."""

    def __init__(
        self,
        rows: Sequence[RunRow],
        measured: MeasuredOfRuns,
        schema: dict[str, type[pl.DataType]] = RUN_COLUMNS,
    ) -> None:
        self.rows = rows
        self.measured = measured
        self._made: dict[str, pl.Series] = {}
        # Without what is made of their rows.
        self.schema = {name: kind for name, kind in schema.items() if name not in MADE_OF_ROWS}

    def frame(self, names: Iterable[str] | None = None) -> pl.DataFrame:
        """Return some columns, or all, of every run, in the order given; typed."""
        return pl.DataFrame([self._series(name) for name in names or self.schema])

    def _series(self, name: str) -> pl.Series:
        if name not in self._made:
            values, kind = self._values(name), self.schema[name]
            self._made[name] = pl.Series(name, values, dtype=kind, strict=True)
        return self._made[name]

    def _values(self, name: str) -> list[Any]:
        if not self.rows:
            return []
        if name == "run_id":
            return [row.run_id for row in self.rows]
        if name in MADE_OF_ROW:
            return [MADE_OF_ROW[name](row) for row in self.rows]
        if name in (scores := evaluated_columns()):
            return [_evaluated(row, scores[name]) for row in self.rows]
        if name in FACT_NAMES:
            return [row.facts.get(FACT_NAMES[name]) for row in self.rows]
        if name in FACTS:
            return [self.measured.columns(row.spec)[name] for row in self.rows]
        settings = {one.name: one for kind in self._kinds for one in settings_of(kind)}
        return _of_part(settings[name], self.rows)

    @cached_property
    def _kinds(self) -> set[type[RunSpec]]:
        return {type(row.spec) for row in self.rows}


def _of_part(setting: Setting, rows: Sequence[RunRow]) -> list[Any]:
    """Return a setting of each run, worked out once for each part that runs share."""
    known: dict[int, Any] = {}
    values = []
    for row in rows:
        part = getattr(row.spec, setting.path[0], None)
        if id(part) not in known:
            known[id(part)] = setting.value(row.spec)
        values.append(known[id(part)])
    return values


def _evaluated(row: RunRow, score: str | None) -> float | None:
    """Return a score at a run's end, or how far its loss has moved; None where it is not known."""
    said = row.closed.evaluation if row.closed is not None else {}
    last = said.get("last", {})
    if score is not None:
        return last.get(score)
    first = said.get("first", {})
    return last[LOSS] - first[LOSS] if LOSS in first and LOSS in last else None


def _seconds(row: RunRow) -> float | None:
    times = [each["seconds"] for each in row.attempts if each["seconds"] is not None]
    return sum(times) if times else None


# The columns of OUTCOME and FACTS, each by what it is of.
MADE_OF_ROW: dict[str, Callable[[RunRow], Any]] = {
    "status": lambda row: row.status,
    "last_step": lambda row: row.closed.step if row.closed else None,
    "final_loss": lambda row: row.closed.loss if row.closed else None,
    "attempts": lambda row: len(row.attempts),
    "seconds": _seconds,
    "model_source": lambda row: _source(row.spec),
    "dataset": lambda row: row.spec.objective.data.label,
}
FACT_NAMES = {
    **{name: name for name in ("family", "kind", "block", "parameters")},
    **{name: name for name in ("pretraining_loss", "pretraining_loss_se", "unigram_entropy")},
    "model_layers": "layers",
    "model_depth": "depth",
    "model_stacks": "stacks",
    "model_width": "width",
}


def expected_facts(spec: RunSpec) -> dict[str, Any]:
    """Return what is known of a model before it was ever loaded: from the catalogue, or nothing."""
    source = spec.model.source
    if isinstance(source, HubModel):
        for model in CATALOG.values():
            if model.hub == source.hub:
                family = FAMILIES[model.family]
                return {
                    "family": model.family,
                    "kind": family.kind,
                    "block": family.block,
                    "layers": model.layers,
                    "width": model.width,
                    "parameters": model.parameters,
                }
    if isinstance(source, StandinModel):
        known = FAMILIES.get(source.standin)
        return {
            "family": source.standin,
            "kind": known.kind if known else None,
            "block": known.block if known else None,
            "layers": source.blocks_of_its_own,
            "width": source.width,
        }
    return {}


ATTEMPT_COLUMNS: dict[str, Any] = {
    "attempt": pl.Int32,
    "started": pl.Datetime("us", "UTC"),
    "ended": pl.Datetime("us", "UTC"),
    "node": pl.String,
    "pid": pl.Int64,
    # finished, stopped, diverged, failed, cancelled; null while it runs or when it was killed
    "cause": pl.String,
    "error": pl.String,
    "seconds": pl.Float64,
    # The code that made it, and on what.
    **dict.fromkeys(PROVENANCE, pl.String),
}


def attempt_frame(attempts: dict[str, list[dict[str, Any]]]) -> pl.DataFrame:
    """Return one row per attempt, keyed by run_id, of the records of each run's attempts."""
    rows = [
        {"run_id": run_id, **{name: _cell(name, record) for name in ATTEMPT_COLUMNS}}
        for run_id, records in attempts.items()
        for record in records
    ]
    return pl.DataFrame(rows, schema={"run_id": pl.String, **ATTEMPT_COLUMNS}, orient="row")


def states_of_open(runs: pl.DataFrame, attempts: Callable[[], pl.LazyFrame]) -> dict[str, str]:
    """Return of runs without a result whose newest attempt has ended what became of it, as
    ``depthsweep status`` says it: failed, cancelled, preempted or lost.

    Of others nothing: whether an attempt that has not ended lives takes watching it.
    """
    tried = runs.filter(pl.col("status").is_in(OPEN), pl.col("attempts") > 0)["run_id"].unique()
    if tried.is_empty():
        return {}
    newest = (
        attempts()
        .filter(pl.col("run_id").is_in(tried.implode()))
        .group_by("run_id")
        .agg(pl.col("cause").sort_by("attempt").last())
        .drop_nulls()
        .collect()
    )
    return {run_id: state_after(cause) for run_id, cause in newest.rows()}


def with_states(runs: pl.DataFrame, states: dict[str, str], column: str = "status") -> pl.DataFrame:
    """Return runs that say in a column what ``states_of_open`` knows of them."""
    said = pl.col("run_id").replace_strict(states, default=None, return_dtype=pl.String)
    return runs.with_columns(pl.coalesce(said, column).alias(column)) if states else runs


def _cell(name: str, record: dict[str, Any]) -> Any:
    value = record.get(name)
    if name in ("started", "ended") and value is not None:
        # Not by Polars, which refuses some forms of ISO 8601 that a harmed record may have.
        return datetime.fromisoformat(value).astimezone(UTC)
    return value


def _source(spec: RunSpec) -> str:
    source = spec.model.source
    if isinstance(source, HubModel):
        return f"hub:{source.hub}"
    if isinstance(source, FolderModel):
        return f"folder:{source.digest[:12]}"
    return f"standin:{source.standin}"
