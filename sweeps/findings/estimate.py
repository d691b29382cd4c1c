"""A number that a claim rests on, with the ends it may lie between."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import polars as pl

from sweeps.statistics.associations import ends
from sweeps.statistics.intervals import Floats, Mean


@dataclass(frozen=True)
class Counted:
    """Of ``of`` units, how many are so and how many are not; the rest is open.

    ``each`` takes every unit at its own level, ``together`` corrects for there being several. For
    what is known exactly both are the same. ``share`` says that the number is a share of ``of``.
    """

    of: int
    hits_each: int
    hits_together: int
    misses_each: int
    misses_together: int
    share: bool = False


@dataclass(frozen=True)
class Estimate:
    """A number, the ends it may lie between, and what it rests on.

    Attributes:
        n: units it was taken from; ``of`` counts those selected, known or not.
        counted: of a count or share, what it counts; ``value`` is then of the known units.
        mean: of a mean or a gap, itself with its error; ``conditions`` are those of a mean.
        p_value: of an association, that there is none.
        draws: of a share of variance, (R,) values over resampled models.
        chance: of a share of variance, what a column of as many values explains by chance.
        notes: what a reader must know; ``blocked`` says why there is no number at all.
    """

    value: float
    low: float
    high: float
    n: int
    of: int
    unit: str
    notes: tuple[str, ...] = ()
    p_value: float | None = None
    blocked: str = ""
    counted: Counted | None = None
    mean: Mean | None = None
    chance: float = 0.0
    draws: Floats | None = field(default=None, repr=False, compare=False)
    conditions: pl.DataFrame | None = field(default=None, repr=False, compare=False)


def difference(a: Estimate, b: Estimate) -> Estimate:
    """Return a − b of numbers of two selections.

    Shares of variance are paired resample by resample, each less what it is by chance: columns of
    more values explain more.
    """
    value, low, high = a.value - b.value, a.low - b.high, a.high - b.low
    mean = None
    if a.mean is not None and b.mean is not None:
        mean = less(a.mean, b.mean)
        low, high = mean.interval
    elif a.draws is not None and b.draws is not None and len(a.draws) == len(b.draws):
        chance = a.chance - b.chance
        value, (low, high) = value - chance, ends(a.draws - b.draws - chance)
    blocked = a.blocked or b.blocked
    return replace(a, value=value, low=low, high=high, blocked=blocked, counted=None, mean=mean)


def less(a: Mean, b: Mean) -> Mean:
    """Return a − b of independent means, with the degrees of freedom of Welch (1947)."""
    error = a.error**2 + b.error**2
    spread = a.error**4 / a.freedom + b.error**4 / b.freedom
    freedom = error**2 / spread if spread > 0 else a.freedom + b.freedom
    return Mean(a.value - b.value, float(np.sqrt(error)), float(freedom))


def nothing(
    reason: str, of: int = 0, notes: tuple[str, ...] = (), counted: Counted | None = None
) -> Estimate:
    nan = float("nan")
    return Estimate(nan, nan, nan, 0, of, "conditions", notes, blocked=reason, counted=counted)
