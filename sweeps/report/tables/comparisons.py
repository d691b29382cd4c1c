"""What each control left of the slopes of standard training: a row per condition and control."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from sweeps.declaration.matched_seeds import FEWEST_SEEDS
from sweeps.findings.arms import Paths, matched_pairs
from sweeps.findings.persistence import comparison_columns, verdicts_by_metric
from sweeps.findings.verdicts import FINDINGS
from sweeps.report.tables.conditions import without_intervals_of_few
from sweeps.report.tables.names import STANDARD, named
from sweeps.statistics.conditions import condition_columns, everyone
from sweeps.statistics.profiles import Profiles
from sweeps.statistics.stacks import NEGATIVE_CONTROL

# What a verdict is called where it is told from findings only.
NO_FINDING = "no finding"
# The share of a slope that was kept is shown from here to there; what lies beyond is an arrow.
LEAST_VIEW, MOST_VIEW = (-0.5, 1.25), (-2.0, 3.0)


def comparisons(profiles: dict[str, Profiles], paths: Paths | None = None) -> pl.DataFrame:
    """Return each control of a sweep compared with standard training under the first metric, with
    what its cells say; empty where there is nothing to compare.

    Beside the columns of ``verdicts_by_metric``: ``seed``, ``seed_control`` and ``seed_against``,
    the slopes of matched seeds along the sign of the reference; ``kept_said``, ``interval``,
    ``verdict_said`` and ``cell``, what a cell says; ``finding``.
    """
    first = next(iter(profiles.values()))
    controls = everyone(first)["control"].unique(maintain_order=True).to_list()
    if STANDARD not in controls:
        return pl.DataFrame()
    found = [_compared(profiles, one, paths) for one in controls if one != STANDARD]
    return pl.concat(found, how="diagonal_relaxed") if found else pl.DataFrame()


def with_all_that_varies(
    table: pl.DataFrame, runs: pl.DataFrame, control: str, keys: Sequence[str]
) -> pl.DataFrame:
    """Add what varies in the sweep and not in a control and its reference: it is in the names of
    conditions, too. ``keys`` name the row of a condition."""
    others = [key for key in condition_columns(runs) if key not in (*keys, "control")]
    told = runs.filter(pl.col("control") == control).group_by(keys).agg(pl.col(others).first())
    return table.join(told, on=keys, how="left", nulls_equal=True, maintain_order="left")


def _compared(profiles: dict[str, Profiles], control: str, paths: Paths | None) -> pl.DataFrame:
    first = next(iter(profiles.values()))
    runs = everyone(first)
    keys, own, _ = comparison_columns(runs, control, STANDARD)
    table = verdicts_by_metric(profiles, control, STANDARD, paths)
    table = with_all_that_varies(table, runs, control, [*keys, *own])
    seeds = (
        matched_pairs(first, keys, own, control, STANDARD)
        .sort("seed")
        .group_by([*keys, *own])
        .agg(
            "seed",
            pl.col("slope").alias("seed_control"),
            pl.col("reference").alias("seed_against"),
        )
    )
    sign = pl.when(pl.col("slope_against") < 0).then(-1.0).otherwise(1.0)
    sides = ("seed_control", "seed_against")
    table = (
        table.join(seeds, on=[*keys, *own], how="left", nulls_equal=True, maintain_order="left")
        .with_columns(
            pl.when(pl.col(side).is_not_null()).then(pl.col(side) * sign).alias(side)
            for side in sides
        )
        .with_columns(pl.col("seed", *sides).fill_null([]), control=pl.lit(control))
    )
    return _said(without_intervals_of_few(named(table, condition_columns(runs)), "n"))


def _said(table: pl.DataFrame) -> pl.DataFrame:
    """Add what a cell of the matrix says."""
    enough = pl.col("n") >= FEWEST_SEEDS
    low, high = (
        (100 * pl.col(f"retained_{end}")).round(0).cast(pl.Int64, strict=False)
        for end in ("low", "high")
    )
    share = (100 * pl.col("retained").fill_nan(None)).round(0).cast(pl.Int64, strict=False)
    interval = (
        pl.when(enough & pl.col("retained_unbounded"))
        .then(pl.lit("unbounded"))
        .when(low.is_not_null() & high.is_not_null())
        .then(pl.format("[{}, {}] %", low, high))
    )
    dose = pl.col("dose").cast(pl.Decimal(12, 2), strict=False).cast(pl.String)
    lines = [
        interval,
        pl.format("n {}", "n"),
        pl.when("negative_control").then(pl.lit(NEGATIVE_CONTROL)),
        pl.when(dose.is_not_null()).then(pl.format("dose {}", dose)),
    ]
    return table.with_columns(
        verdict_said=pl.col("verdict").str.replace_all("_", " "),
        kept_said=pl.when(share.is_not_null()).then(pl.format("{} %", share)).otherwise(pl.lit("")),
        interval=interval,
        cell=pl.concat_str(lines, separator="\n", ignore_nulls=True),
        finding=pl.when(pl.col("verdict").is_in(FINDINGS))
        .then("verdict")
        .otherwise(pl.lit(NO_FINDING)),
    )


def pair_limits(persistence: pl.DataFrame) -> pl.DataFrame:
    """Return, by arm, where both axes of slope against slope begin and end, alike: ``low`` and
    ``high``."""
    if persistence.is_empty():
        return persistence
    names = ("reference", "reference_low", "reference_high", "along", "along_low", "along_high")
    seeds = [pl.col(name) for name in ("seed_control", "seed_against")]
    high = pl.max_horizontal(*names, *(one.list.max() for one in seeds)).max()
    low = pl.min_horizontal(*names, *(one.list.min() for one in seeds)).min()
    return (
        persistence.group_by("arm", maintain_order=True)
        .agg(low.alias("low"), high.alias("high"))
        .with_columns(low=pl.min_horizontal("low", 0.0).fill_null(0.0), high=pl.col("high"))
        .with_columns(high=pl.max_horizontal("high", 0.0).fill_null(1.0))
        .with_columns(room=0.04 * (pl.col("high") - pl.col("low")))
        .with_columns(low=pl.col("low") - pl.col("room"), high=pl.col("high") + pl.col("room"))
        .drop("room")
    )


def retained_shares(persistence: pl.DataFrame) -> pl.DataFrame:
    """Return the conditions of which a share was kept, each clipped to what the scale shows.

    ``shown``, ``shown_low`` and ``shown_high`` are the share and the ends of its interval;
    ``cut_low`` and ``cut_high`` say that one of them lies beyond ``edge_low`` or ``edge_high``,
    which are one for all conditions.
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
        row=pl.format("{} · {}", "model", "condition"),
        edge_low=pl.lit(low),
        edge_high=pl.lit(high),
        shown=share.clip(low, high),
        shown_low=pl.when(unbounded).then(low).otherwise(least.clip(low, high)),
        shown_high=pl.when(unbounded).then(high).otherwise(most.clip(low, high)),
        cut_low=unbounded | (pl.min_horizontal(share, least) < low),
        cut_high=unbounded | (pl.max_horizontal(share, most) > high),
    ).with_columns(
        shown_low=pl.when("cut_low").then(low).otherwise("shown_low"),
        shown_high=pl.when("cut_high").then(high).otherwise("shown_high"),
    )
