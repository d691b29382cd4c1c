"""One row per run: what was asked for, what ran, how it ended.

The names here do not collide with those of ``steps``, ``layers`` and ``profiles``, so that every
column can be joined to their rows.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

import polars as pl

from sweeps.declaration.catalog import CATALOG, FAMILIES
from sweeps.spec import FolderModel, HubModel, RunSpec, StandinModel
from sweeps.store.store import RunFolder

RUN_COLUMNS: dict[str, type[pl.DataType]] = {
    "run_id": pl.String,
    "model": pl.String,
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
    "objective": pl.String,
    "dataset": pl.String,
    "control": pl.String,
    # layer_clip: max_norm; equal_step: target and scope; empty for standard
    "control_setting": pl.String,
    "seed": pl.Int64,
    "steps": pl.Int64,
    "batch_size": pl.Int64,
    "sequence_length": pl.Int64,
    "peak_learning_rate": pl.Float64,
    "weight_decay": pl.Float64,
    "precision": pl.String,
    # Null until the training-free probe has measured it for this model and objective.
    "objective_distance": pl.Float64,
    # finished, diverged, failed; unfinished: no closing record; pending: never started
    "status": pl.String,
    "last_step": pl.Int64,
}


def run_row(
    spec: RunSpec,
    facts: dict[str, Any],
    status: str,
    step: int | None,
    objective_distance: float | None,
) -> dict[str, Any]:
    """Return one row of ``runs``; ``facts`` are those of run.json, or ``expected_facts``."""
    return {
        "run_id": spec.run_id,
        "model": spec.model.name,
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
        "objective": spec.objective.kind,
        "dataset": spec.objective.data.label,
        "control": spec.control.kind,
        "control_setting": spec.control.setting,
        "seed": spec.seed,
        "steps": spec.steps,
        "batch_size": spec.batch_size,
        "sequence_length": spec.sequence_length,
        "peak_learning_rate": spec.optimizer.learning_rate,
        "weight_decay": spec.optimizer.weight_decay,
        "precision": spec.precision,
        "objective_distance": objective_distance,
        "status": status,
        "last_step": step,
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


def run_frame(rows: Iterable[dict[str, Any]]) -> pl.DataFrame:
    """Return the typed table of runs, in the order given; empty where there is none."""
    return pl.DataFrame(list(rows), schema=RUN_COLUMNS, orient="row")


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
}


def attempt_frame(folders: Iterable[RunFolder]) -> pl.DataFrame:
    """Return one row per attempt, keyed by run_id."""
    rows = [
        {"run_id": folder.run_id, **{name: _cell(name, record) for name in ATTEMPT_COLUMNS}}
        for folder in folders
        for record in folder.attempts()
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
