"""One row per run: what was asked for, what ran, how it ended.

What was asked for is every setting of the specification, by rule: see ``declaration.settings``. The
names here do not collide with those of ``steps``, ``layers`` and ``profiles``, so that every column
can be joined to their rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import polars as pl

from sweeps.declaration.settings import HEADS, SEED, TAKEN, settings_of
from sweeps.sources.catalog import CATALOG, FAMILIES
from sweeps.spec import FolderModel, HubModel, RunSpec, StandinModel
from sweeps.store.records import PROVENANCE

_DTYPES: dict[type, type[pl.DataType]] = {
    str: pl.String,
    int: pl.Int64,
    float: pl.Float64,
    bool: pl.Boolean,
}
# How a run ended: null where it has not.
OUTCOME: dict[str, type[pl.DataType]] = {
    # finished, diverged, failed; unfinished: no closing record; pending: never started
    "status": pl.String,
    "last_step": pl.Int64,
    # Training loss of the last step, where it is finite.
    "final_loss": pl.Float64,
    "attempts": pl.Int64,
    # Of all attempts together.
    "seconds": pl.Float64,
}
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
    "model_layers": pl.Int32,
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


def run_schema(spec: type[RunSpec] = RunSpec) -> dict[str, type[pl.DataType]]:
    """Return the columns of ``runs`` for a specification, with their types."""
    settings = {one.name: _DTYPES[one.kind] for one in settings_of(spec)}
    first = [*HEADS, SEED]
    return {
        "run_id": pl.String,
        **{name: settings[name] for name in first},
        **OUTCOME,
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


def run_row(
    spec: RunSpec,
    facts: dict[str, Any],
    status: str,
    done: dict[str, Any] | None,
    attempts: Sequence[dict[str, Any]],
    measured: dict[str, Any],
) -> dict[str, Any]:
    """Return one row of ``runs``.

    Args:
        facts: those of run.json, or ``expected_facts``.
        done: the closing record, where there is one.
        attempts: the records of every attempt.
        measured: the columns of training-free measurements; see ``MeasuredOfRuns``.
    """
    times = [each["seconds"] for each in attempts if each["seconds"] is not None]
    return {
        "run_id": spec.run_id,
        **{one.name: one.value(spec) for one in settings_of(type(spec))},
        "status": status,
        "last_step": done["step"] if done else None,
        "final_loss": done.get("loss") if done else None,
        "attempts": len(attempts),
        "seconds": sum(times) if times else None,
        "model_source": _source(spec),
        "family": facts.get("family"),
        "kind": facts.get("kind"),
        "block": facts.get("block"),
        "model_layers": facts.get("layers"),
        "model_width": facts.get("width"),
        "parameters": facts.get("parameters"),
        "pretraining_loss": facts.get("pretraining_loss"),
        "pretraining_loss_se": facts.get("pretraining_loss_se"),
        "unigram_entropy": facts.get("unigram_entropy"),
        "dataset": spec.objective.data.label,
        **measured,
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
            "layers": source.layers,
            "width": source.width,
        }
    return {}


def run_frame(
    rows: Sequence[dict[str, Any]], schema: dict[str, type[pl.DataType]] = RUN_COLUMNS
) -> pl.DataFrame:
    """Return the typed table of runs, in the order given; empty where there is none.

    Without what is made of their rows.
    """
    known = {name: dtype for name, dtype in schema.items() if name not in MADE_OF_ROWS}
    return pl.DataFrame(
        {name: [row[name] for row in rows] for name in known}, schema=known, strict=True
    )


ATTEMPT_COLUMNS: dict[str, Any] = {
    "attempt": pl.Int32,
    "started": pl.Datetime("us", "UTC"),
    "ended": pl.Datetime("us", "UTC"),
    "node": pl.String,
    "pid": pl.Int64,
    # finished, diverged, failed, cancelled; null while it runs or when it was killed
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
