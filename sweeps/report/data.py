"""What a report shows, as small tables: everything is aggregated before it reaches the page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from sweeps.findings.claim_spec import ClaimsFile, Measure, Where
from sweeps.findings.claims import ClaimResult, evaluate
from sweeps.findings.estimate import Estimate
from sweeps.findings.evidence import Evidence
from sweeps.findings.persistence import verdicts_by_metric
from sweeps.reading.tables import Tables
from sweeps.statistics.conditions import condition_columns, layer_bands, summarise
from sweeps.statistics.profiles import DEFAULT_BY, At, Profiles, measure_each
from sweeps.store.schema import NULL_METRICS

# Points of a training curve and columns of a heat map: what a page can show, whatever was run.
CURVE_POINTS = 60
HEAT_COLUMNS = 24

STANDARD, EQUAL_STEP = "standard", "equal_step"

_STANDARD: Where = {"control": STANDARD}
# What stands in words beside the charts of steepness and of width.
MODEL_FACTS = (
    *("family", "block", "model_layers", "model_width", "parameters"),
    *("pretraining_loss", "unigram_entropy"),
)
ASSOCIATIONS = {
    "rank correlation": Measure.model_validate(
        {
            "statistic": "steepness",
            "where": _STANDARD,
            "reduce": "spearman",
            "with": "objective_distance",
        }
    ),
    "explained by family": Measure(
        statistic="width", where=_STANDARD, reduce="variance_explained", by="family"
    ),
    "explained by objective": Measure(
        statistic="width", where=_STANDARD, reduce="variance_explained", by="objective"
    ),
}


@dataclass(frozen=True, eq=False)
class ReportData:
    """Everything a report shows of one sweep.

    ``tables`` by name: ``runs`` (model, status, runs, seconds), ``models`` (their facts),
    ``bands`` (change per condition and block), ``slopes`` (one row per condition),
    ``persistence``, ``steepness``, ``curves`` (loss),
    ``ratios`` (update ratio of each block relative to the mean over blocks), ``spread`` (how far
    ratios differ between blocks within a step). Each has ``model``, ``objective`` and
    ``treatment``: the control with every other setting that tells conditions apart. A row of
    ``persistence`` is a comparison of controls, and has ``setting``: the model with those settings.
    ``left_out`` and ``errors`` are runs, and have ``treatment`` too.
    """

    name: str
    description: str
    text: str
    metric: str
    at: At
    tables: dict[str, pl.DataFrame]
    associations: dict[str, Estimate]
    claims: tuple[ClaimResult, ...]
    claims_source: str
    left_out: pl.DataFrame
    errors: pl.DataFrame
    records: tuple[dict[str, Any], ...]


def gather(
    tables: Tables,
    name: str,
    description: str,
    text: str,
    claims: ClaimsFile | None,
    metric: str = "procrustes",
    at: At = "final",
) -> ReportData:
    """Read a sweep's tables and return what its report shows; ``claims`` are those it brings."""
    metrics = [metric, *[other for other in NULL_METRICS if other != metric]]
    profiles = measure_each(tables, metrics, at)
    first = profiles[metric]
    runs = tables.runs().collect()
    keys = condition_columns(runs)
    extra = [key for key in keys if key not in DEFAULT_BY]
    attempts = tables.attempts().select("run_id", "seconds", "cause", "error").collect()
    shown = {
        "runs": runs.group_by("model", "status", maintain_order=True).agg(
            pl.len().alias("runs"), pl.col("seconds").sum()
        ),
        "models": runs.select("model", *MODEL_FACTS).unique(maintain_order=True),
        "bands": _labelled(layer_bands(first, keys), extra),
        "slopes": _labelled(_described(summarise(first, keys), runs, keys), extra),
        "persistence": _persistence(profiles, runs),
        "curves": _labelled(_curves(tables, keys), extra),
        **{name: _labelled(table, extra) for name, table in _ratios(tables, runs, keys).items()},
    }
    shown["steepness"] = shown["slopes"].filter(pl.col("control") == STANDARD)
    errors = attempts.filter(pl.col("error").is_not_null()).join(
        runs.select("run_id", *keys, "seed", "status"), on="run_id"
    )
    return ReportData(
        name,
        description,
        text,
        metric,
        at,
        shown,
        {name: Evidence(first).estimate(each, EQUAL_STEP) for name, each in ASSOCIATIONS.items()},
        tuple(evaluate(claims.claims, profiles)) if claims else (),
        claims.source if claims else "",
        _labelled(first.left_out.select(*keys, "seed", "status", "last_step", "reason"), extra),
        _labelled(errors, extra),
        _records(tables, runs),
    )


def _labelled(
    table: pl.DataFrame, extra: Sequence[str], lead: str = "control", name: str = "treatment"
) -> pl.DataFrame:
    """Add ``name``: the column ``lead``, and each setting of ``extra`` that has a value."""
    parts = [pl.col(lead).fill_null("")]
    for key in extra:
        said = pl.col(key).cast(pl.String).fill_null("")
        # A digest says no more by its other digits.
        short = (
            pl.when(said.str.contains("^[0-9a-f]{40,}$")).then(said.str.head(12)).otherwise(said)
        )
        shown = pl.concat_str([pl.lit(f" · {key} "), short])
        parts.append(pl.when(said != "").then(shown).otherwise(pl.lit("")))
    return table.with_columns(pl.concat_str(parts).alias(name)).drop(extra)


def _described(table: pl.DataFrame, runs: pl.DataFrame, keys: Sequence[str]) -> pl.DataFrame:
    facts = runs.group_by(keys).agg(
        pl.col("family", "kind", "block", "parameters", "objective_distance").first()
    )
    return table.join(facts, on=keys, how="left", nulls_equal=True, maintain_order="left")


def _persistence(profiles: dict[str, Profiles], runs: pl.DataFrame) -> pl.DataFrame:
    if not {STANDARD, EQUAL_STEP} <= set(runs["control"]):
        return pl.DataFrame()
    table = verdicts_by_metric(profiles, EQUAL_STEP, STANDARD)
    extra = table.columns[2 : table.columns.index("family")]
    return _labelled(table, extra, "model", "setting")


def _curves(tables: Tables, keys: list[str]) -> pl.DataFrame:
    """Return the mean loss per condition at up to ``CURVE_POINTS`` moments."""
    moment = ((pl.col("step") - 1) * CURVE_POINTS) // pl.col("steps")
    return (
        tables.steps()
        .group_by(*keys, moment.alias("moment"))
        .agg(pl.col("step").max(), pl.col("loss").mean(), pl.col("seed").n_unique().alias("n"))
        .sort(*keys, "moment", nulls_last=True)
        .drop("moment")
        .collect(engine="streaming")
    )


def _ratios(tables: Tables, runs: pl.DataFrame, keys: list[str]) -> dict[str, pl.DataFrame]:
    """Return ``ratios`` and ``spread`` of ‖ΔW‖/‖W‖ over the blocks, the groups equal_step controls.

    The layers table is the only long one: it is grouped by run first, and joined to the columns of
    runs when it is short.
    """
    blocks = tables.layers().filter(
        (pl.col("layer") >= 1)
        & (pl.col("layer") <= pl.col("model_layers"))
        & (pl.col("weight_norm") > 0)
    )
    ratio = pl.col("update_norm") / pl.col("weight_norm")
    moment = ((pl.col("step") - 1) * HEAT_COLUMNS) // pl.col("steps")
    wanted = ["run_id", *keys, "steps"]
    conditions = runs.select(list(dict.fromkeys(wanted))).lazy()
    heat = (
        blocks.group_by("run_id", "layer", moment.alias("moment"))
        .agg(ratio.mean().alias("ratio"))
        .with_columns(relative=(pl.col("ratio") / pl.col("ratio").mean().over("run_id", "moment")))
        .join(conditions, on="run_id")
        .group_by(*keys, "layer", "moment")
        .agg(
            pl.col("relative").log(2).mean().alias("relative"),
            pl.col("ratio").mean(),
            pl.col("steps").first().alias("length"),
        )
        .with_columns(
            start=(pl.col("moment") * pl.col("length")) // HEAT_COLUMNS,
            stop=((pl.col("moment") + 1) * pl.col("length")) // HEAT_COLUMNS,
        )
        .sort(*keys, "moment", "layer", nulls_last=True)
        .drop("moment", "length")
    )
    spread = (
        blocks.group_by("run_id", "step")
        .agg((ratio.max() / ratio.min() - 1).alias("spread"))
        .group_by("run_id")
        .agg(pl.col("spread").max())
        .join(conditions, on="run_id")
        .group_by(*keys)
        .agg(pl.col("spread").max(), pl.len().alias("runs"))
        .sort(keys, nulls_last=True)
    )
    found = pl.collect_all([heat, spread], engine="streaming")
    return {"ratios": found[0], "spread": found[1]}


def _records(tables: Tables, runs: pl.DataFrame) -> tuple[dict[str, Any], ...]:
    """Return the run.json of every run that has one, without its specification."""
    found = []
    for run_id in runs["run_id"]:
        record = tables.store.run(run_id).record()
        if record is not None:
            found.append({key: value for key, value in record.items() if key != "spec"})
    return tuple(found)
