"""Does a depth profile outlive a control? Controlled slope against standard slope, seed by seed.

``persistence`` of a condition (model × objective, and every other setting that varies): the slope
under the control over the seeds that finished both ways with all other settings equal, with a
bootstrap interval over those seeds. The sign is taken along the standard slope, which for the
profiles of the study is positive:

    persists      the interval lies above 0
    reverses      the interval lies below 0
    collapses     the interval contains 0
    insufficient  fewer than 2 matched seeds
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl

from sweeps.declaration.settings import control_options
from sweeps.errors import UserError, closest
from sweeps.statistics.bootstrap import Floats, quantiles, resamples
from sweeps.statistics.conditions import FEW_SEEDS, everyone, require_one_a_seed
from sweeps.statistics.profiles import FLOOR, Profiles, varied_settings

VERDICTS = ("persists", "collapses", "reverses", "insufficient")


@dataclass(frozen=True)
class Paired:
    """Slopes of one condition over matched seeds, (n,) each."""

    controlled: Floats
    standard: Floats


@dataclass(frozen=True)
class Persistence:
    """What matched seeds say.

    Attributes:
        verdict: one of ``VERDICTS``.
        along: the controlled slope along the standard slope's sign, with its interval.
        retained: mean controlled slope over mean standard slope, with its paired interval.
    """

    verdict: str
    along: tuple[float, float, float]
    retained: tuple[float, float, float]


def judge(pair: Paired) -> Persistence:
    """Return the verdict of one condition."""
    n = len(pair.controlled)
    nan = float("nan")
    if n == 0:
        return Persistence("insufficient", (nan, nan, nan), (nan, nan, nan))
    direction = -1.0 if pair.standard.mean() < 0 else 1.0
    along = float(direction * pair.controlled.mean())
    standard = float(pair.standard.mean())
    retained = float(pair.controlled.mean()) / standard if standard else nan
    if n < 2:
        return Persistence("insufficient", (along, nan, nan), (retained, nan, nan))
    drawn = resamples(n)
    # Paired: one resample takes the same seeds on both sides.
    controlled = drawn.weights @ pair.controlled
    reference = drawn.weights @ pair.standard
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(reference != 0, controlled / reference, nan)
    low, high = quantiles(np.column_stack([direction * controlled, ratio]), drawn.times)
    return Persistence(
        verdict_of(float(low[0]), float(high[0])),
        (along, float(low[0]), float(high[0])),
        (retained, float(low[1]), float(high[1])),
    )


def verdict_of(low: float, high: float) -> str:
    """Return the verdict of an interval of the slope along the standard slope's sign."""
    if low > 0:
        return "persists"
    return "reverses" if high < 0 else "collapses"


def compare(
    profiles: Profiles, control: str = "equal_step", against: str = "standard"
) -> pl.DataFrame:
    """Return one row per condition that was planned under ``control``.

    Columns: model, objective and every other setting that varies; family, block, parameters;
    ``n`` matched seeds; ``slope_against``, ``slope_control`` (means over them); ``along``,
    ``along_low``, ``along_high``; ``retained``, ``retained_low``, ``retained_high``; ``verdict``;
    ``flags``.

    Raises:
        UserError: no run of the selection has one of the two controls, or a seed has more than
            one counterpart.
    """
    runs = everyone(profiles)
    known = runs["control"].unique().sort().to_list()
    for option, name in (("--control", control), ("--against", against)):
        if name not in known:
            raise UserError(f"{option} {name}: no run has it; {closest(name, known)}")
    if control == against:
        raise UserError(f"--control and --against are both {control}: compare two controls")
    keys, own, other = comparison_columns(runs, control, against)
    if other:
        raise UserError(
            f"--against {against}: runs have it with several settings ({', '.join(other)}), so"
            " no seed has one counterpart; compare against standard"
        )
    described = (
        runs.filter(pl.col("control") == control)
        .group_by([*keys, *own], maintain_order=True)
        .agg(
            pl.col("family", "kind", "block", "parameters").first(),
            planned=pl.len().cast(pl.Int64),
            diverged=(pl.col("status") == "diverged").sum().cast(pl.Int64),
        )
    )
    table = described.join(
        _matched(profiles.runs, keys, own, control, against),
        on=[*keys, *own],
        how="left",
        nulls_equal=True,
        maintain_order="left",
    )
    judged = [
        judge(Paired(_array(slope), _array(reference)))
        for slope, reference in table.select("slope", "reference").iter_rows()
    ]
    return (
        table.with_columns(
            n=pl.col("slope").list.len().cast(pl.Int64).fill_null(0),
            slope_against=pl.col("reference").list.mean(),
            slope_control=pl.col("slope").list.mean(),
            verdict=pl.Series([result.verdict for result in judged], dtype=pl.String),
            **_triple("along", [result.along for result in judged]),
            **_triple("retained", [result.retained for result in judged]),
        )
        .with_columns(flags=_flags(profiles.metric))
        .drop("slope", "reference", "planned", "mean")
    )


def comparison_columns(
    runs: pl.DataFrame, control: str, against: str
) -> tuple[list[str], list[str], list[str]]:
    """Return what tells apart the conditions of a comparison, on which both sides agree; then which
    options of the one control vary, and which of the other.

    A setting that differs between the two controls only is a key as well: seeds are matched with
    all other settings equal.
    """
    sides = runs.filter(pl.col("control").is_in([control, against]))
    options = control_options()
    keys = ["model", "objective"]
    keys += [
        name
        for name in varied_settings(sides.drop(options), keys)
        if name not in ("control", *options)
    ]
    by_side = [
        [name for name in options if runs.filter(pl.col("control") == side)[name].n_unique() > 1]
        for side in (control, against)
    ]
    return keys, by_side[0], by_side[1]


def _matched(
    runs: pl.DataFrame, keys: list[str], own: list[str], control: str, against: str
) -> pl.DataFrame:
    """Return the slopes of matched seeds as lists, a row per condition.

    Raises UserError where a seed does not have one counterpart.
    """
    ours = runs.filter(pl.col("control") == control)
    theirs = runs.filter(pl.col("control") == against)
    require_one_a_seed(ours, [*keys, *own], f"--control {control}")
    require_one_a_seed(theirs, keys, f"--against {against}")
    reference = theirs.select(*keys, "seed", pl.col("slope").alias("reference"))
    return (
        ours.select(*keys, *own, "seed", "slope", "mean")
        .join(reference, on=[*keys, "seed"], how="inner", nulls_equal=True)
        .drop_nulls(["slope", "reference"])
        .group_by([*keys, *own])
        .agg("slope", "reference", pl.col("mean").mean())
    )


def _array(values: list[float] | None) -> Floats:
    return np.array(values or [], dtype=np.float64)


def _triple(name: str, values: list[tuple[float, float, float]]) -> dict[str, pl.Series]:
    ends = ("", "_low", "_high")
    return {
        name + end: pl.Series([value[k] for value in values], dtype=pl.Float64).fill_nan(None)
        for k, end in enumerate(ends)
    }


def _flags(metric: str) -> pl.Expr:
    n = pl.col("n")
    words = [
        pl.when(n < pl.col("planned")).then(
            pl.format("{} of {} seeds matched", n, pl.col("planned"))
        ),
        pl.when((n >= 2) & (n < FEW_SEEDS)).then(pl.format("only {} seeds", n)),
        pl.when(pl.col("diverged") > 0).then(pl.format("{} diverged", "diverged")),
        pl.when((n > 0) & (pl.col("slope_against") <= 0)).then(
            pl.lit("standard slope is not positive")
        ),
        pl.when(pl.col("mean") < FLOOR.get(metric, 0.0)).then(pl.lit("under the numerical floor")),
    ]
    return (
        pl.concat_list([word.fill_null("") for word in words])
        .list.eval(pl.element().filter(pl.element() != ""))
        .list.join("; ")
    )


def verdicts_by_metric(
    by_metric: dict[str, Profiles], control: str = "equal_step", against: str = "standard"
) -> pl.DataFrame:
    """Return the comparison under the first metric, with a verdict column for each metric.

    Adds ``verdict_<metric>`` for every metric, and to ``flags`` where they disagree. A metric that
    was not measured in a condition is insufficient there and disagrees with nothing.
    """
    tables = {name: compare(found, control, against) for name, found in by_metric.items()}
    first = next(iter(tables.values()))
    columns = {f"verdict_{name}": table["verdict"] for name, table in tables.items()}
    wide = first.with_columns(**columns)
    judged = pl.concat_list(
        [
            pl.when(pl.col(name) != "insufficient").then(pl.col(name)).otherwise(None)
            for name in columns
        ]
    ).list.drop_nulls()
    return wide.with_columns(
        flags=pl.when(judged.list.n_unique() > 1)
        .then(
            pl.concat_str(
                [
                    pl.when(pl.col("flags") == "")
                    .then(pl.lit(""))
                    .otherwise(pl.concat_str([pl.col("flags"), pl.lit("; ")])),
                    pl.lit("metrics disagree"),
                ]
            )
        )
        .otherwise(pl.col("flags"))
    )
