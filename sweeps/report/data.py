"""What a report shows, as small tables: everything is aggregated before it reaches the page."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from sweeps.declaration.matched_seeds import FEWEST_SEEDS
from sweeps.findings.arms import Paths, paths_of
from sweeps.findings.claim_spec import ClaimsFile, Measure, Where
from sweeps.findings.claims import ClaimResult, evaluate
from sweeps.findings.estimate import Estimate
from sweeps.findings.evidence import Evidence
from sweeps.findings.persistence import verdicts_by_metric
from sweeps.findings.verdicts import FINDINGS
from sweeps.reading.tables import Tables
from sweeps.report.training_data import curves, evaluation_curves, ratios, scores
from sweeps.statistics.conditions import condition_columns, everyone, layer_bands, summarise
from sweeps.statistics.profile_rows import At
from sweeps.statistics.profiles import DEFAULT_BY, Profiles, measure_each
from sweeps.statistics.stacks import NEGATIVE_CONTROL, STACK
from sweeps.store.records import PROVENANCE, VERSION
from sweeps.store.schema import NULL_METRICS

STANDARD, EQUAL_STEP = "standard", "equal_step"

# What a verdict is called where it is told from findings only.
NO_FINDING = "no finding"
# The share of a slope that was kept is shown from here to there; what lies beyond is an arrow.
LEAST_VIEW, MOST_VIEW = (-0.5, 1.25), (-2.0, 3.0)

_STANDARD: Where = {"control": STANDARD}
MODEL_FACTS = (
    *("family", "block", "model_layers", "model_depth", "model_stacks", "model_width"),
    *("parameters", "pretraining_loss", "unigram_entropy"),
)
_OF_RUNS = (
    *("family", "kind", "block", "parameters"),
    *("objective_distance", "objective_distance_low", "objective_distance_high"),
    "objective_distance_noisy",
)
# What stands in words beside the charts of steepness and of width.
ASSOCIATIONS = {
    "rank correlation": Measure.model_validate(
        {
            "statistic": "steepness",
            "where": _STANDARD,
            "reduce": "spearman",
            "with": "objective_distance",
        }
    ),
    **{
        f"explained by {by}": Measure(
            statistic="steepness", where=_STANDARD, reduce="variance_explained", by=by
        )
        for by in ("family", "objective")
    },
}
_WIDTH, _STEEPNESS = (
    Measure(statistic=name, where=_STANDARD, reduce="mean") for name in ("width", "steepness")
)


@dataclass(frozen=True, eq=False)
class ReportData:
    """Everything a report shows of one sweep.

    ``tables`` by name: ``runs`` (model, status, runs, seconds), ``models`` (their facts),
    ``bands`` (change per condition and block; layer 0 is the embedding's output), ``slopes`` (one
    row per condition, with its seeds as lists), ``persistence``, ``retained`` (the rows of
    ``persistence`` that have a share, laid out on its scale), ``steepness`` (the slopes under
    standard training), ``curves`` (training loss), ``evaluation_curves`` and ``scores`` (of
    held-out examples; empty where there are none), ``ratios`` (update ratio of each block relative
    to the mean over blocks), ``spread`` (how far ratios differ between blocks within a step, and
    ``dose``). Each has ``model``, ``objective`` and ``treatment``: the control with every other
    setting that tells conditions apart, and the stack. A row of ``persistence`` is a comparison of
    controls, and has ``setting``: the model with those settings. Of fewer than 3 seeds no table has
    an interval.
    ``left_out`` and ``errors`` are runs, and have ``treatment`` too. ``width_like_steepness`` is
    their rank correlation over the conditions under standard training, NaN of fewer than 3.
    ``made_with`` counts runs by the code, versions and hardware that their attempts had.
    """

    name: str
    description: str
    text: str
    metric: str
    at: At
    tables: dict[str, pl.DataFrame]
    associations: dict[str, Estimate]
    width_like_steepness: float
    claims: tuple[ClaimResult, ...]
    claims_source: str
    left_out: pl.DataFrame
    errors: pl.DataFrame
    made_with: dict[str, dict[str, int]]


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
    everything = everyone(first)
    keys = condition_columns(everything)
    of_runs = [key for key in keys if key != STACK]
    extra, extra_of_runs = (
        [key for key in names if key not in DEFAULT_BY] for names in (keys, of_runs)
    )
    told = ("seconds", "cause", "error", *PROVENANCE)
    attempts = tables.attempts().select("run_id", *told).collect()
    slopes = _slopes(first, everything, keys)
    paths = paths_of(tables, metric) if at == "final" else None
    persistence = _persistence(profiles, runs, paths)
    of_blocks = ratios(tables, runs, keys)
    doses = slopes.select(*keys, "dose")
    of_blocks["spread"] = of_blocks["spread"].join(doses, on=keys, how="left", nulls_equal=True)
    shown = {
        "runs": runs.group_by("model", "status", maintain_order=True).agg(
            pl.len().alias("runs"), pl.col("seconds").sum()
        ),
        "models": runs.select("model", *MODEL_FACTS).unique(maintain_order=True),
        "bands": _labelled(_bands(first, keys), extra),
        "slopes": _labelled(slopes, extra),
        "persistence": persistence,
        "retained": _retained(persistence),
        "curves": _labelled(curves(tables, of_runs), extra_of_runs),
        "evaluation_curves": _labelled(evaluation_curves(tables, of_runs), extra_of_runs),
        "scores": _scores(runs, of_runs, extra_of_runs),
        **{name: _labelled(table, extra) for name, table in of_blocks.items()},
    }
    shown["steepness"] = shown["slopes"].filter(pl.col("control") == STANDARD)
    evidence = Evidence(first)
    errors = attempts.filter(pl.col("error").is_not_null()).join(
        runs.select("run_id", *of_runs, "seed", "status"), on="run_id"
    )
    return ReportData(
        name,
        description,
        text,
        metric,
        at,
        shown,
        {name: evidence.estimate(each, EQUAL_STEP) for name, each in ASSOCIATIONS.items()},
        evidence.rank_correlation(_WIDTH, _STEEPNESS),
        tuple(evaluate(claims.claims, profiles)) if claims else (),
        claims.source if claims else "",
        _labelled(first.left_out.select(*keys, "seed", "status", "last_step", "reason"), extra),
        _labelled(errors, extra_of_runs),
        _made_with(tables, attempts, runs["run_id"]),
    )


def _scores(runs: pl.DataFrame, keys: Sequence[str], extra: Sequence[str]) -> pl.DataFrame:
    table = scores(runs, keys)
    return table if table.is_empty() else _labelled(table, extra)


def _labelled(
    table: pl.DataFrame, extra: Sequence[str], lead: str = "control", name: str = "treatment"
) -> pl.DataFrame:
    """Add ``name``: the column ``lead``, and each setting of ``extra`` that has a value; a stack is
    said by its name alone."""
    parts = [pl.col(lead).fill_null("")]
    for key in extra:
        said = pl.col(key).cast(pl.String).fill_null("")
        # A digest says no more by its other digits.
        short = (
            pl.when(said.str.contains("^[0-9a-f]{40,}$")).then(said.str.head(12)).otherwise(said)
        )
        shown = pl.concat_str([pl.lit(" · " if key == STACK else f" · {key} "), short])
        parts.append(pl.when(said != "").then(shown).otherwise(pl.lit("")))
    return table.with_columns(pl.concat_str(parts).alias(name)).drop(extra)


def _without_intervals_of_few(table: pl.DataFrame, seeds: str) -> pl.DataFrame:
    """Null the ends of intervals of fewer seeds than a verdict needs; a null's are of its range."""
    ends = [
        name
        for name in table.columns
        if name.split("_")[-1] in ("low", "high") and not name.startswith("null")
    ]
    enough = pl.col(seeds) >= FEWEST_SEEDS
    return table.with_columns(pl.when(enough).then(pl.col(name)).alias(name) for name in ends)


def _bands(profiles: Profiles, keys: Sequence[str]) -> pl.DataFrame:
    """Return the change of each block by condition, and that of the embedding's output as block 0,
    where it is known."""
    blocks = _without_intervals_of_few(layer_bands(profiles, keys), "n")
    kinds = blocks.schema
    embedding = (
        profiles.runs.drop_nulls("embedding_change")
        .group_by(keys, maintain_order=True)
        .agg(
            pl.lit(0, kinds["layer"]).alias("layer"),
            pl.lit(0.0, kinds["depth"]).alias("depth"),
            pl.len().cast(kinds["n"]).alias("n"),
            pl.col("embedding_change").mean().alias("value"),
        )
    )
    return pl.concat([blocks, embedding], how="diagonal")


def _slopes(profiles: Profiles, runs: pl.DataFrame, keys: Sequence[str]) -> pl.DataFrame:
    """Return a row per condition: its quantities, those of its seeds, and what its runs are."""
    table = _without_intervals_of_few(summarise(profiles, keys), "seeds").with_columns(
        beyond_propagation=pl.col("beyond_propagation") & (pl.col("seeds") >= FEWEST_SEEDS)
    )
    facts = runs.group_by(keys).agg(pl.col(_OF_RUNS).first())
    seeds = (
        profiles.runs.sort("seed")
        .group_by(keys)
        .agg(
            "seed",
            pl.col("slope").alias("seed_slope"),
            pl.col("steepness").alias("seed_steepness"),
            pl.col("slope_dfbeta").max(),
        )
    )
    for other in (facts, seeds):
        table = table.join(other, on=keys, how="left", nulls_equal=True, maintain_order="left")
    return table.with_columns(pl.col("seed", "seed_slope", "seed_steepness").fill_null([]))


def _persistence(
    profiles: dict[str, Profiles], runs: pl.DataFrame, paths: Paths | None
) -> pl.DataFrame:
    """Return the comparison of controls with what its cells say; empty where there is none."""
    if not {STANDARD, EQUAL_STEP} <= set(runs["control"]):
        return pl.DataFrame()
    table = verdicts_by_metric(profiles, EQUAL_STEP, STANDARD, paths)
    extra = table.columns[2 : table.columns.index("family")]
    table = _without_intervals_of_few(_labelled(table, extra, "model", "setting"), "n")
    enough = pl.col("n") >= FEWEST_SEEDS
    low, high = (
        (100 * pl.col(f"retained_{end}")).round(0).cast(pl.Int64, strict=False)
        for end in ("low", "high")
    )
    interval = (
        pl.when(enough & pl.col("retained_unbounded"))
        .then(pl.lit("unbounded"))
        .when(low.is_not_null() & high.is_not_null())
        .then(pl.format("[{}, {}] %", low, high))
    )
    return table.with_columns(
        verdict_said=pl.col("verdict").str.replace_all("_", " "),
        interval=interval,
        cell=pl.concat_str(
            [
                pl.format("n {}", "n"),
                pl.when("negative_control")
                .then(pl.lit(f"\n{NEGATIVE_CONTROL}"))
                .otherwise(pl.lit("")),
                pl.when(interval.is_not_null())
                .then(pl.concat_str([pl.lit("\n"), interval.fill_null("")]))
                .otherwise(pl.lit("")),
            ]
        ),
        finding=pl.when(pl.col("verdict").is_in(FINDINGS))
        .then("verdict")
        .otherwise(pl.lit(NO_FINDING)),
    )


def _retained(persistence: pl.DataFrame) -> pl.DataFrame:
    """Return the conditions of which a share was kept, each clipped to what the scale shows.

    ``shown``, ``shown_low`` and ``shown_high`` are the share and the ends of its interval;
    ``cut_low`` and ``cut_high`` say that one of them lies beyond ``view_low`` or ``view_high``.
    """
    if persistence.is_empty():
        return persistence
    rows = persistence.filter(pl.col("retained").is_finite())
    ends = rows.select(pl.col("retained", "retained_low", "retained_high")).unpivot()["value"]
    known = ends.drop_nulls().to_list()
    # A little further than what is shown, so that no mark lies on the edge as if it were cut.
    low = max(min([LEAST_VIEW[0], *(one - 0.1 for one in known)]), MOST_VIEW[0])
    high = min(max([LEAST_VIEW[1], *(one + 0.1 for one in known)]), MOST_VIEW[1])
    unbounded = (pl.col("interval") == "unbounded").fill_null(value=False)
    share, least, most = (pl.col(name) for name in ("retained", "retained_low", "retained_high"))
    return rows.with_columns(
        condition=pl.format("{} · {}", "setting", "objective"),
        view_low=pl.lit(low),
        view_high=pl.lit(high),
        shown=share.clip(low, high),
        shown_low=pl.when(unbounded).then(low).otherwise(least.clip(low, high)),
        shown_high=pl.when(unbounded).then(high).otherwise(most.clip(low, high)),
        cut_low=unbounded | (pl.min_horizontal(share, least) < low),
        cut_high=unbounded | (pl.max_horizontal(share, most) > high),
    ).with_columns(
        shown_low=pl.when("cut_low").then(low).otherwise("shown_low"),
        shown_high=pl.when("cut_high").then(high).otherwise("shown_high"),
    )


def _made_with(
    tables: Tables, attempts: pl.DataFrame, run_ids: Iterable[str]
) -> dict[str, dict[str, int]]:
    """Count runs by what their attempts were made with: code, versions, hardware.

    A run with attempts of two codes counts under both. Where attempts do not say, as in a store of
    before they did, run.json does.
    """
    said: dict[str, set[tuple[str, str]]] = {}
    for row in attempts.iter_rows(named=True):
        found = {name: row[name] for name in PROVENANCE if row[name] is not None}
        if found:
            said.setdefault(row["run_id"], set()).update(_told(found))
    counts: dict[str, dict[str, int]] = {"code": {}, "versions": {}, "hardware": {}}
    for run_id in run_ids:
        record = None if run_id in said else tables.store.run(run_id).record()
        for what, value in sorted(said.get(run_id) or _told(_of_record(record or {}))):
            counts[what][value] = counts[what].get(value, 0) + 1
    return counts


def _told(found: dict[str, str]) -> set[tuple[str, str]]:
    """Return what is known of an attempt, in words, by what it is about."""
    code = {"depthsweep": "depthsweep_version", "commit": "git_commit", "code": "code_digest"}
    versions = [name for name in found if name.endswith(VERSION) and name not in code.values()]
    lines = {
        "code": ", ".join(f"{word} {found[name]}" for word, name in code.items() if name in found),
        "versions": ", ".join(f"{name.removesuffix(VERSION)} {found[name]}" for name in versions),
        "hardware": " ".join(found[name] for name in ("device", "hardware") if name in found),
    }
    return {(what, line) for what, line in lines.items() if line}


def _of_record(record: dict[str, Any]) -> dict[str, str]:
    """Return what a run.json says of how the run was made, by the names that attempts use."""
    hardware = record.get("hardware") or {}
    found = {
        "git_commit": record.get("git_commit"),
        **{f"{name}{VERSION}": said for name, said in (record.get("versions") or {}).items()},
        "device": hardware.get("device"),
        "hardware": hardware.get("name"),
    }
    return {name: str(said) for name, said in found.items() if said is not None}
