"""What a report shows, as small tables: everything is aggregated before it reaches the page."""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

from sweeps.findings.arms import paths_of
from sweeps.findings.claim_spec import ClaimsFile, Measure, Where
from sweeps.findings.claims import ClaimResult, evaluate
from sweeps.findings.estimate import Estimate
from sweeps.findings.evidence import Evidence
from sweeps.reading.run_table import states_of_open, with_states
from sweeps.reading.tables import Tables
from sweeps.report.answers import Answer, answers_of
from sweeps.report.tables.alignment import alignment_by_control, reversions
from sweeps.report.tables.comparisons import comparisons
from sweeps.report.tables.loops import turns
from sweeps.report.tables.names import STANDARD, named, reference_first
from sweeps.report.tables.provenance import made_with
from sweeps.report.tables.training import (
    change_limits,
    changes,
    curves,
    evaluation_curves,
    learned,
    ratios,
)
from sweeps.report.tables.views import VIEWED, View, other_views, tables_of_view
from sweeps.statistics.conditions import condition_columns, dose_of_seeds, everyone
from sweeps.statistics.profile_rows import At
from sweeps.statistics.profiles import Profiles, measure_each
from sweeps.statistics.stacks import STACK
from sweeps.store.records import PROVENANCE
from sweeps.store.schema import NULL_METRICS

EQUAL_STEP = "equal_step"

_STANDARD: Where = {"control": STANDARD}
MODEL_FACTS = (
    *("family", "block", "model_layers", "model_depth", "model_stacks", "model_width"),
    *("parameters", "pretraining_loss", "unigram_entropy"),
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
    row per condition, with its seeds as lists), ``persistence`` (a row per condition under a
    control), ``retained`` (the rows of ``persistence`` that have a share, laid out on its scale),
    ``steepness`` (the slopes under standard training), ``changes`` (the change of each block at
    each probe), ``curves`` (training loss), ``evaluation_curves`` (of held-out examples; empty
    where there are none), ``learned`` (what was learned beside the change), ``ratios`` (update
    ratio of each block relative to the mean over blocks), ``spread`` (how far ratios differ between
    blocks within a step, and ``dose``); ``band_limits`` and ``pair_limits`` end the scales of
    charts. Each has ``model``, ``objective`` and what conditions are called: ``arm``, ``setting``,
    ``condition``, ``treatment``; see ``tables/names.py``. Those of ``VIEWED`` have ``view``: the
    rows of each of ``views``, the pairs of a metric and a step a page can be switched to, of which
    the first is the one asked for. Of fewer than 3 seeds no table has an interval.
    ``alignment`` has the outcomes where runs answer prompts, ``reversions`` how far layers went
    back where models are compared with what they were made of, ``turns`` how much the turns of a
    loop have in common; each may be empty.
    ``answers`` are, by view, the sentences the page begins with.
    ``left_out`` and ``errors`` are runs, with those names, too. ``width_like_steepness`` is
    their rank correlation over the conditions under standard training, NaN of fewer than 3.
    ``made_with`` counts runs by the code, versions and hardware that their attempts had.
    """

    name: str
    description: str
    text: str
    views: tuple[View, ...]
    tables: dict[str, pl.DataFrame]
    answers: dict[str, tuple[Answer, ...]]
    associations: dict[str, Estimate]
    width_like_steepness: float
    claims: tuple[ClaimResult, ...]
    claims_source: str
    left_out: pl.DataFrame
    errors: pl.DataFrame
    made_with: dict[str, dict[str, int]]

    @property
    def metric(self) -> str:
        return self.views[0].metric

    @property
    def at(self) -> At:
        return self.views[0].at

    def shown(self, table: str) -> pl.DataFrame:
        """Return the rows of a table of ``VIEWED`` for the view that was asked for."""
        rows = self.tables[table]
        return rows if rows.is_empty() else rows.filter(pl.col("view") == self.views[0].name)


def gather(
    tables: Tables,
    name: str,
    description: str,
    text: str,
    claims: ClaimsFile | None,
    metric: str = "procrustes",
    at: At = "final",
    *,
    switch: bool = True,
) -> ReportData:
    """Read a sweep's tables and return what its report shows.

    Args:
        claims: those the sweep brings.
        switch: whether other metrics and other steps are there to be switched to.
    """
    metrics = [metric, *[other for other in NULL_METRICS if other != metric]]
    profiles = measure_each(tables, metrics, at)
    first = profiles[metric]
    runs = tables.runs().collect()
    keys = condition_columns(everyone(first))
    of_runs = [key for key in keys if key != STACK]
    paths = paths_of(tables, metric) if at == "final" else None
    shown = View(metric, at)
    by_view = {shown: tables_of_view(shown, first, comparisons(profiles, paths))}
    if switch:
        rows = by_view[shown]["bands"].height
        by_view.update(other_views(tables, shown, metrics, rows))
    found = _joined(by_view)
    found |= _of_training(tables, first, runs, [view.metric for view in by_view])
    found["runs"] = (
        with_states(runs, states_of_open(runs, tables.attempts))
        .group_by("model", "status", maintain_order=True)
        .agg(pl.len().alias("runs"), pl.col("seconds").sum())
    )
    found["alignment"] = alignment_by_control(first)
    found["reversions"] = named(reversions(tables, of_runs), of_runs)
    found["turns"] = turns(tables, of_runs)
    found["models"] = runs.select("model", *MODEL_FACTS).unique(maintain_order=True)
    found["steepness"] = by_view[shown]["slopes"].filter(pl.col("control") == STANDARD)
    attempts = tables.attempts().select("run_id", "seconds", "cause", "error", *PROVENANCE)
    tried = attempts.collect()
    errors = tried.filter(pl.col("error").is_not_null()).join(
        runs.select("run_id", *of_runs, "seed", "status"), on="run_id"
    )
    evidence = Evidence(first)
    left_out = first.left_out.select(*keys, "seed", "status", "last_step", "reason")
    return ReportData(
        name,
        description,
        text,
        tuple(by_view),
        found,
        {
            view.name: answers_of(one["slopes"], one["persistence"], view.metric)
            for view, one in by_view.items()
        },
        {name: evidence.estimate(each, EQUAL_STEP) for name, each in ASSOCIATIONS.items()},
        evidence.rank_correlation(_WIDTH, _STEEPNESS),
        tuple(evaluate(claims.claims, profiles)) if claims else (),
        claims.source if claims else "",
        named(left_out, keys),
        named(errors, of_runs),
        made_with(tables, tried, runs["run_id"]),
    )


def _joined(by_view: dict[View, dict[str, pl.DataFrame]]) -> dict[str, pl.DataFrame]:
    """Return each table of ``VIEWED`` with the rows of all views."""
    found = {}
    for name in VIEWED:
        some = [one[name] for one in by_view.values() if not one[name].is_empty()]
        empty = next(iter(by_view.values()))[name]
        found[name] = pl.concat(some, how="diagonal_relaxed") if some else empty
    return found


def _of_training(
    tables: Tables, profiles: Profiles, runs: pl.DataFrame, metrics: list[str]
) -> dict[str, pl.DataFrame]:
    """Return the tables of what happened during training."""
    keys = condition_columns(everyone(profiles))
    of_runs = [key for key in keys if key != STACK]
    of_blocks = ratios(tables, runs, keys)
    doses = profiles.runs.group_by(keys).agg(dose_of_seeds())
    of_blocks["spread"] = of_blocks["spread"].join(doses, on=keys, how="left", nulls_equal=True)
    over_steps = named(changes(tables, list(dict.fromkeys(metrics)), keys), keys)
    return {
        "changes": over_steps,
        "change_limits": change_limits(over_steps),
        "curves": reference_first(named(curves(tables, runs, of_runs), of_runs)),
        "evaluation_curves": reference_first(named(evaluation_curves(tables, of_runs), of_runs)),
        "learned": named(learned(profiles, runs, keys, of_runs), keys),
        **{name: named(table, keys) for name, table in of_blocks.items()},
    }
