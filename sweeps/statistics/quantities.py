"""What one depth profile says, in numbers.

A profile is d_i over blocks i = 1..L of one run at one probe step, at relative depth i/L. Formulas
are those of this project's definitions ("Profile").

Shapes, here and below:
    R  profiles
    L  blocks, the same for all
"""

from __future__ import annotations

from collections.abc import Callable, Collection

import numpy as np
from numpy.typing import NDArray

from sweeps.statistics.intervals import Floats

# Below so many blocks leaving one out, or ranking them, says nothing.
FEWEST_BLOCKS = 4
# Changes that differ by less are equal: what is left of a difference after rounding.
TIE = 1e-9


def quantities(
    profiles: Floats, floor: float = 0.0, wanted: Collection[str] | None = None
) -> dict[str, Floats]:
    """Return each quantity of (R, L) finite profiles as (R,) values, NaN where it is not defined;
    those that are ``wanted``, where not all are.

    slope: ordinary least squares on relative depth; from two blocks. Blocks are serially dependent,
        so it has no standard error over them.
    slope_normalised: the slope of the profile divided by its mean. Like all shares below it needs
        changes that are not negative and a mean above ``floor``, where rounding ends.
    theil_sen: median of the slopes between two blocks, from four blocks.
    slope_dfbeta: the largest change of the slope, either way, when one block is left out and the
        others keep their depth; from four blocks.
    spearman: rank correlation with depth, from four blocks that are not all equal.
    centre_of_mass: Σ d_i·(i − ½)/L / Σ d_i, ½ of a flat profile.
    concentration_last_quarter: the share of Σ d_i in the last quarter of the depth, a block that
        the quarter cuts counted in part; ¼ of a flat profile at every L.
    width: exp(entropy of d_i/Σd_i) / L; it needs a sum above 0 only.
    width_beyond_slope: the width less that of a straight profile of the same slope.
    """
    count = profiles.shape[1]
    index = np.arange(1, count + 1)
    depth = index / count
    total = profiles.sum(axis=1)
    positive = profiles.min(axis=1) >= 0
    defined = positive & (profiles.mean(axis=1) > floor)
    steps = np.clip(index - 0.75 * count, 0.0, 1.0)

    def shares() -> Floats:
        return _where(positive & (total > 0), lambda: profiles / total[:, None])

    def normalised() -> Floats:
        return _where(defined, lambda: _slopes(profiles, depth) / profiles.mean(axis=1))

    def width() -> Floats:
        # 0·ln 0 = 0: a block that did not change carries nothing.
        own = shares()
        logs = np.log(own, out=np.zeros_like(own), where=own > 0)
        return np.asarray(np.exp(-(own * logs).sum(axis=1)) / count)

    every: dict[str, Callable[[], Floats]] = {
        "slope": lambda: _slopes(profiles, depth),
        "slope_normalised": normalised,
        "theil_sen": lambda: _theil_sen(profiles, depth),
        "slope_dfbeta": lambda: _slope_dfbeta(profiles, depth),
        "spearman": lambda: _spearman(profiles),
        "centre_of_mass": lambda: _where(defined, lambda: shares() @ ((index - 0.5) / count)),
        "concentration_last_quarter": lambda: _where(defined, lambda: shares() @ steps),
        "width": width,
        "width_beyond_slope": lambda: width() - (1 - normalised() ** 2 * (1 - 1 / count**2) / 24),
    }
    return {name: find() for name, find in every.items() if wanted is None or name in wanted}


def _where(defined: NDArray[np.bool_], values: Callable[[], Floats]) -> Floats:
    """Return the values of the profiles for which they are defined, NaN for the others."""
    with np.errstate(divide="ignore", invalid="ignore"):
        found = values()
    return np.where(defined if found.ndim == 1 else defined[:, None], found, np.nan)


def _slopes(profiles: Floats, depth: Floats) -> Floats:
    if len(depth) < 2:
        return np.full(len(profiles), np.nan)
    centred = depth - depth.mean()
    deviations = profiles - profiles.mean(axis=1, keepdims=True)
    return np.asarray(deviations @ centred / (centred @ centred))


def _theil_sen(profiles: Floats, depth: Floats) -> Floats:
    if len(depth) < FEWEST_BLOCKS:
        return np.full(len(profiles), np.nan)
    first, second = np.triu_indices(len(depth), 1)
    pairs = (profiles[:, second] - profiles[:, first]) / (depth[second] - depth[first])
    return np.asarray(np.median(pairs, axis=1))


def _slope_dfbeta(profiles: Floats, depth: Floats) -> Floats:
    """Leaving out block j moves the slope by (x_j − x̄)·e_j / (S_xx·(1 − h_j)), h_j its leverage."""
    count = len(depth)
    if count < FEWEST_BLOCKS:
        return np.full(len(profiles), np.nan)
    centred = depth - depth.mean()
    spread = centred @ centred
    deviations = profiles - profiles.mean(axis=1, keepdims=True)
    residuals = deviations - np.outer(_slopes(profiles, depth), centred)
    leverage = 1 / count + centred**2 / spread
    return np.asarray(np.abs(residuals * centred / (spread * (1 - leverage))).max(axis=1))


def _spearman(profiles: Floats) -> Floats:
    """Blocks in a chain of differences below ``TIE`` are equal; a flat profile has no ranks."""
    runs, count = profiles.shape
    if count < FEWEST_BLOCKS:
        return np.full(runs, np.nan)
    order = np.argsort(profiles, axis=1)
    ordered = np.take_along_axis(profiles, order, axis=1)
    above = np.cumsum(np.diff(ordered, axis=1) >= TIE, axis=1)
    levels = np.zeros((runs, count), np.int64)
    np.put_along_axis(levels, order[:, 1:], above, axis=1)
    lower = (levels[:, :, None] > levels[:, None, :]).sum(axis=2)
    equal = (levels[:, :, None] == levels[:, None, :]).sum(axis=2)
    ranks = lower + (equal + 1) / 2 - (count + 1) / 2
    blocks = np.arange(count) - (count - 1) / 2
    spread = np.sqrt((ranks**2).sum(axis=1) * (blocks @ blocks))
    return _where(spread > 0, lambda: ranks @ blocks / spread)
