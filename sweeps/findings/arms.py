"""Two arms compared where both have come equally far.

A control may also change how much is learned in the same number of steps, and with that every
slope. So two arms are compared at the same step, at equal evaluation loss, and at equal mean
change; definition ("Profile", comparing arms). Equal loss is left ``unmatched`` until sweeps
evaluate.

Mean and slope are linear in a profile, so a profile interpolated between two probes has the
interpolated slope.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from sweeps.reading.tables import Tables
from sweeps.statistics.intervals import Floats
from sweeps.statistics.stacks import PROFILE

# By run and stack (None of a single one): mean change and slope at each probe, (P, 2), after a
# first row of zeros for step 0.
Paths = dict[tuple[str, str | None], Floats]


def paths_of(tables: Tables, metric: str) -> Paths:
    """Return how far each stack of each finished run had come at each probe, and with which slope.

    Blocks are those of the last probe: a run with an incomplete probe has no path beyond it.
    """
    x, d = pl.col("depth"), pl.col(metric)
    layers = pl.coalesce("stack_layers", "model_layers")
    probes = (
        tables.profiles()
        .filter((pl.col("layer") > 0) & (pl.col("status") == "finished"))
        .group_by(*PROFILE, "step")
        .agg(
            d.mean().alias("mean"),
            (pl.cov(x, d) / x.var()).alias("slope"),
            (d.is_finite().all() & (pl.len() == layers.first())).alias("whole"),
        )
        .filter("whole")
        .sort(*PROFILE, "step")
        .collect(engine="streaming")
    )
    return {
        (str(run_id), stack): np.vstack([np.zeros(2), own.select("mean", "slope").to_numpy()])
        for (run_id, stack), own in probes.group_by(PROFILE, maintain_order=True)
    }


@dataclass(frozen=True)
class Moved:
    """Slopes of both arms, (n,) each, where a pair's profiles have the same mean change.

    ``shares`` says, of each arm, which part that is of its final mean change, on the average: what
    the probe's rows do to a slope, they do to one so much smaller in that proportion.
    """

    slopes: tuple[Floats, Floats]
    shares: tuple[float, float]


def slopes_at_equal_change(
    paths: Paths, ours: Sequence[str], theirs: Sequence[str], stack: str | None = None
) -> Moved | None:
    """Return the slopes of a stack at the smaller of a pair's two final mean changes; None where a
    run has no probes or did not change."""
    slopes, shares = [], []
    for a, b in zip(ours, theirs, strict=True):
        pair = [paths[run_id, stack] for run_id in (a, b) if (run_id, stack) in paths]
        if len(pair) < 2 or not min(path[-1, 0] for path in pair) > 0:
            return None
        target = min(path[-1, 0] for path in pair)
        slopes.append([slope_at(path, target) for path in pair])
        shares.append([target / path[-1, 0] for path in pair])
    found, parts = np.array(slopes), np.array(shares).mean(axis=0)
    return Moved((found[:, 0], found[:, 1]), (float(parts[0]), float(parts[1])))


def slope_at(path: Floats, target: float) -> float:
    """Return the slope of a path (P, 2) of mean and slope where its mean first reaches ``target``,
    which it does."""
    k = int(np.argmax(path[:, 0] >= target))
    if k == 0:
        return float(path[0, 1])
    (before, low), (after, high) = path[k - 1], path[k]
    return float(low + (high - low) * (target - before) / (after - before))
