"""Two arms compared where both have come equally far.

A control may also change how much is learned in the same number of steps, and with that every
slope. So two arms are compared at the same step, at equal evaluation loss, and at equal mean
change; definition ("Profile", comparing arms). Equal loss is the larger of the two final ones, at
the first step that reaches it; it needs runs that are evaluated.

Mean and slope are linear in a profile, so a profile interpolated between two probes has the
interpolated slope.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from sweeps.reading.run_table import evaluated_columns
from sweeps.reading.tables import Tables
from sweeps.spec import LOSS
from sweeps.statistics.intervals import Floats
from sweeps.statistics.profile_rows import slopes_by_step
from sweeps.statistics.profiles import Profiles
from sweeps.statistics.stacks import PROFILE, STACK

# The two sides of a comparison, as its columns end.
ARMS = ("control", "against")
# By run and stack (None of a single one): mean change, slope and evaluation loss (NaN where there
# is none) at each probe, (P, 3), after a first row for step 0, at which nothing has changed.
Paths = dict[tuple[str, str | None], Floats]


def paths_of(tables: Tables, metric: str) -> Paths:
    """Return how far each stack of each finished run had come at each probe, and with which slope.

    Blocks are those of the last probe: a run with an incomplete probe has no path beyond it.
    """
    probes = slopes_by_step(tables, metric)
    losses = (
        tables.evaluations()
        .filter(pl.col("score") == LOSS)
        .select("run_id", "step", pl.col("value").alias("evaluation"))
        .collect(engine="streaming")
    )
    first = dict(losses.filter(pl.col("step") == 0).select("run_id", "evaluation").iter_rows())
    probes = probes.join(losses, on=["run_id", "step"], how="left", maintain_order="left")
    values = probes.select(pl.col("mean", "slope", "evaluation").fill_null(np.nan)).to_numpy()
    of_each = probes.group_by(PROFILE, maintain_order=True).len()
    ends = of_each["len"].cum_sum().to_list()
    return {
        (str(run_id), stack): np.vstack(
            [[0.0, 0.0, first.get(run_id, np.nan)], values[end - count : end]]
        )
        for (run_id, stack, count), end in zip(of_each.iter_rows(), ends, strict=True)
    }


@dataclass(frozen=True)
class Moved:
    """Slopes of both arms, (n,) each, where the runs of a pair have come equally far.

    ``shares`` says, of each arm, which part that is of its final mean change, on the average: what
    the probe's rows do to a slope, they do to one so much smaller in that proportion.
    """

    slopes: tuple[Floats, Floats]
    shares: tuple[float, float]


def matched_pairs(
    profiles: Profiles, keys: Sequence[str], own: Sequence[str], control: str, against: str
) -> pl.DataFrame:
    """Return a row per matched seed with a slope on both sides, at the last step that both have.

    Columns: ``keys``, in which both agree, and ``own``, options of the control; ``seed``; ``slope``
    and ``mean`` under the control, ``reference`` and ``mean_reference`` under the other;
    ``saturated`` of each; the run ids ``ours`` and ``theirs``; ``dose`` of the reference;
    ``earlier``; the scores of either arm.
    """
    runs = profiles.runs
    ours = runs.filter(pl.col("control") == control)
    theirs = runs.filter(pl.col("control") == against)
    scores = score_columns(runs)
    reference = theirs.select(
        *[*keys, "seed", "dose"],
        pl.col("slope").alias("reference"),
        pl.col("run_id").alias("theirs"),
        pl.col("at", "saturated", "mean").name.suffix("_reference"),
        *[pl.col(name).alias(of_arm(name, "against")) for name in scores],
    )
    return (
        ours.select(
            *[*keys, *own, "seed", "at", "slope", "mean", "saturated"],
            pl.col("run_id").alias("ours"),
            *[pl.col(name).alias(of_arm(name, "control")) for name in scores],
        )
        .join(reference, on=[*keys, "seed"], how="inner", nulls_equal=True)
        .pipe(at_the_same_step, profiles.by_step)
        .drop_nulls(["slope", "reference"])
    )


def at_the_same_step(pairs: pl.DataFrame, by_step: pl.DataFrame | None) -> pl.DataFrame:
    """Return pairs of runs, each at the last step at which both were probed.

    Where one of a pair stopped earlier (``earlier``) that is not the last step of the other:
    slopes and means there take the place of the final ones, null where no probe is shared.
    """
    pairs = pairs.with_row_index("pair").with_columns(
        earlier=(pl.col("at") != pl.col("at_reference"))
    )
    uneven = pairs.filter("earlier")
    if by_step is None or uneven.is_empty():
        return pairs
    stack = [STACK] if STACK in pairs.columns else []
    sides = [
        uneven.select("pair", *stack, pl.col(run).alias("run_id"))
        .join(by_step, on=["run_id", *stack], nulls_equal=True)
        .select("pair", "step", "slope", "mean")
        for run in ("ours", "theirs")
    ]
    shared = (
        sides[0]
        .join(sides[1], on=["pair", "step"], suffix="_reference")
        .sort("pair", "step")
        .group_by("pair", maintain_order=True)
        .last()
        .rename({"slope_reference": "reference"})
    )
    moved = ("slope", "mean", "reference", "mean_reference")
    return pairs.join(
        shared.select("pair", *moved), on="pair", how="left", suffix="_there", maintain_order="left"
    ).with_columns(
        pl.when("earlier").then(f"{name}_there").otherwise(name).alias(name) for name in moved
    )


def slopes_at_equal_change(
    paths: Paths, ours: Sequence[str], theirs: Sequence[str], stack: str | None = None
) -> Moved | None:
    """Return the slopes of a stack at the smaller of a pair's two final mean changes; None where a
    run has no probes or did not change."""

    def reached(pair: Sequence[Floats]) -> list[Floats] | None:
        target = min(path[-1, 0] for path in pair)
        return [_at(path, path[:, 0], target) for path in pair]

    return _moved(paths, ours, theirs, stack, reached)


def slopes_at_equal_loss(
    paths: Paths, ours: Sequence[str], theirs: Sequence[str], stack: str | None = None
) -> Moved | None:
    """Return the slopes of a stack where each run of a pair first had the larger of the pair's two
    final evaluation losses; None where a run was not evaluated at a probe, or had it at step 0."""

    def reached(pair: Sequence[Floats]) -> list[Floats] | None:
        target = max(path[-1, 2] for path in pair)
        if any(np.isnan(path[:, 2]).any() or not path[0, 2] > target for path in pair):
            return None
        return [_at(path, -path[:, 2], -target) for path in pair]

    return _moved(paths, ours, theirs, stack, reached)


def _moved(
    paths: Paths,
    ours: Sequence[str],
    theirs: Sequence[str],
    stack: str | None,
    reached: Callable[[Sequence[Floats]], list[Floats] | None],
) -> Moved | None:
    """Return the slopes of pairs of runs at the (mean, slope) of both that ``reached`` returns;
    None where it does, or a run has no path or did not change."""
    slopes, shares = [], []
    for a, b in zip(ours, theirs, strict=True):
        pair = [paths[run_id, stack] for run_id in (a, b) if (run_id, stack) in paths]
        if len(pair) < 2 or not min(path[-1, 0] for path in pair) > 0:
            return None
        points = reached(pair)
        if points is None:
            return None
        slopes.append([point[1] for point in points])
        shares.append([point[0] / path[-1, 0] for point, path in zip(points, pair, strict=True)])
    found, parts = np.array(slopes), np.array(shares).mean(axis=0)
    return Moved((found[:, 0], found[:, 1]), (float(parts[0]), float(parts[1])))


def slope_at(path: Floats, target: float) -> float:
    """Return the slope of a path where its mean first reaches ``target``, which it does."""
    return float(_at(path, path[:, 0], target)[1])


def _at(path: Floats, along: Floats, target: float) -> Floats:
    """Return the mean and slope of a path, between its probes in proportion, where ``along`` (P,)
    first reaches ``target``, which it does."""
    k = int(np.argmax(along >= target))
    if k == 0:
        return path[0, :2]
    share = (target - along[k - 1]) / (along[k] - along[k - 1])
    here: Floats = path[k - 1, :2] + (path[k, :2] - path[k - 1, :2]) * share
    return here


def score_columns(runs: pl.DataFrame) -> list[str]:
    """Return the columns of ``runs`` with what they scored in the end, those in which some run has
    a value."""
    return [name for name in evaluated_columns() if runs[name].is_not_null().any()]


def of_arm(column: str, arm: str) -> str:
    """Return what a comparison calls a column of ``runs`` that it has of both arms."""
    return f"{column}_{arm}"
