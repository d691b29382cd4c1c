"""Intervals of a mean over seeds, of a mean with its probe rows, and of a ratio.

Formulas are those of this project's definitions ("Profile"). A seed is the unit of replication: the
interval of n of them is mean ± t(n − 1)·s/√n. Probe rows are the same for all seeds, so their error
does not fall with n; it is v, a jackknife that deletes in turn each of G groups of whole probe
sequences. Both together have SE² = s²/n + v, and degrees of freedom whose inverse is the mean of
1/(n − 1) and 1/(G − 1), weighed by the two parts. Satterthwaite's (1946), which weigh by squares,
are too many where s² of three seeds happens to be small: intervals then cover 92.7 % and a bound at
0.025 is crossed by 3.7 %; with these, from three seeds on, 94.6 to 96.9 % and at most 2.7 %,
whatever the parts.

Resampling seeds would not do: with 2, 3 and 5 of them a 95 % bootstrap interval covers 50, 75 and
84 %.

Shapes, here and below:
    n  seeds
    G  groups of probe sequences
    k  numbers that are treated alike
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtr, stdtrit

Floats = NDArray[np.float64]

LEVEL = 0.95
# In which an end of an interval is found: about ten are enough.
MOST_STEPS = 100


@dataclass(frozen=True)
class Mean:
    """A mean with its standard error and degrees of freedom; both NaN for a single value.

    ``rows`` says whether the error of the probe rows is in it.
    """

    value: float
    error: float
    freedom: float
    rows: bool = False

    def bound(self, level: float) -> float:
        """Return the value below which the mean lies with probability ``level``: one bound."""
        if self.error == 0:
            return self.value
        return self.value + float(stdtrit(self.freedom, level)) * self.error

    @property
    def interval(self) -> tuple[float, float]:
        """Both ends of the 95 % interval; NaN for a single value."""
        return self.bound((1 - LEVEL) / 2), self.bound((1 + LEVEL) / 2)

    def p_above(self) -> float:
        """Return the one-sided p of "the mean is not above 0"."""
        if self.error == 0:
            return 0.0 if self.value > 0 else 1.0
        return float(stdtr(self.freedom, -self.value / self.error))

    def p_below(self) -> float:
        """Return the one-sided p of "the mean is not below 0"."""
        return Mean(-self.value, self.error, self.freedom).p_above()


def mean_of(values: Floats, deleted: Floats | None = None) -> Mean:
    """Return the mean of (n,) values, one a seed.

    Args:
        values: at least one.
        deleted: (G,) the same mean with each group of probe sequences deleted in turn; without it
            the error is that "for these probe rows".
    """
    found = moments(values[:, None], None if deleted is None else np.asarray(deleted)[:, None])
    value, variance, freedom = (float(each[0]) for each in found)
    return Mean(value, float(np.sqrt(variance)), freedom, deleted is not None and len(deleted) > 1)


def mean_intervals(values: Floats, deleted: Floats | None = None) -> tuple[Floats, Floats]:
    """Return (k,) and (k,), the ends of the 95 % interval of the mean of each column.

    Args:
        values: (n, k), one row a seed.
        deleted: (G, k), as for ``mean_of``; NaN in a column that has none.

    NaN where n < 2: one seed says nothing of the spread between seeds.
    """
    return ends_of(*moments(values, deleted))


def ends_of(mean: Floats, variance: Floats, freedom: Floats) -> tuple[Floats, Floats]:
    """Return both ends of the 95 % intervals of means with these squared errors, (k,) each."""
    quantile = stdtrit(freedom, (1 + LEVEL) / 2)
    half = np.where(variance == 0, 0.0, quantile * np.sqrt(variance))
    return mean - half, mean + half


def row_variance(deleted: Floats) -> Floats:
    """Return (k,), v = (G − 1)/G · Σ(θ₍g₎ − mean)² of (G, k) means with a group deleted each."""
    groups = deleted.shape[0]
    centred = deleted - deleted.mean(axis=0)
    return np.asarray((groups - 1) / groups * np.square(centred).sum(axis=0))


def moments(values: Floats, deleted: Floats | None = None) -> tuple[Floats, Floats, Floats]:
    """Return mean, SE² and degrees of freedom of each column, (k,) each; of (n, k) and (G, k) as
    for ``mean_intervals``. SE² is NaN for n < 2."""
    n = values.shape[0]
    mean = values.mean(axis=0)
    if n < 2:
        nothing = np.full(values.shape[1], np.nan)
        return mean, nothing, nothing
    between = values.var(axis=0, ddof=1) / n
    freedom = np.full(values.shape[1], n - 1.0)
    if deleted is None or len(deleted) < 2:
        return mean, between, freedom
    rows = np.nan_to_num(row_variance(deleted), nan=0.0)
    return mean, *together(between, freedom, rows, np.full(len(rows), len(deleted) - 1.0))


def together(
    one: Floats, one_freedom: Floats, other: Floats, other_freedom: Floats
) -> tuple[Floats, Floats]:
    """Return the sum of two independent squared errors, and its degrees of freedom."""
    total = one + other
    with np.errstate(invalid="ignore", divide="ignore"):
        inverse = (one / one_freedom + other / other_freedom) / total
        freedom = np.where(total > 0, 1 / inverse, one_freedom)
    return total, freedom


@dataclass(frozen=True)
class Ratio:
    """mean c / mean r with Fieller's 95 % interval; ``low`` and ``high`` are NaN where it has no
    ends: a denominator that may be 0 (``unbounded``), or a single value."""

    value: float
    low: float
    high: float
    unbounded: bool = False


def ratio_of(
    numerator: Floats,
    denominator: Floats,
    deleted: tuple[Floats, Floats] | None = None,
) -> Ratio:
    """Return the ratio of two means over the same n seeds, (n,) each (Fieller 1954).

    The interval is {ρ: |mean(c − ρr)| ≤ t·SE(c − ρr)}, with the quantile of the degrees of freedom
    that c − ρr has at that ρ: it is what tests of single ratios, as verdicts make them, do not
    reject. These are n − 1 where ``deleted``, the means with a group of probe sequences deleted, is
    not given; else they differ from one ρ to another.
    """
    c, r, n = numerator, denominator, len(numerator)
    value = c.mean() / r.mean() if r.mean() else np.nan
    if n < 2 or np.isnan(value):
        return Ratio(float(value), np.nan, np.nan)
    seeds = _Form.of(np.cov(np.stack([c, r]), ddof=1) / n, n - 1.0)
    rows = None
    if deleted is not None and (groups := len(deleted[0])) > 1:
        spread = (groups - 1) ** 2 / groups * np.cov(np.stack(deleted), ddof=1)
        rows = _Form.of(spread, groups - 1.0)
    fieller = _Fieller(float(c.mean()), float(r.mean()), seeds, rows)
    if fieller.excess(0.0, 1.0) <= 0:  # of r alone: it may be 0
        return Ratio(float(value), np.nan, np.nan, unbounded=True)
    low, high = (fieller.end(float(value), sign) for sign in (-1.0, 1.0))
    return Ratio(float(value), low, high)


@dataclass(frozen=True)
class _Form:
    """The squared error of a·mean(c) − b·mean(r) from one source, with its degrees of freedom."""

    cc: float
    cr: float
    rr: float
    freedom: float

    @classmethod
    def of(cls, covariance: Floats, freedom: float) -> _Form:
        return cls(
            float(covariance[0, 0]), float(covariance[0, 1]), float(covariance[1, 1]), freedom
        )

    def at(self, a: float, b: float) -> float:
        return max(a * a * self.cc - 2 * a * b * self.cr + b * b * self.rr, 0.0)


@dataclass(frozen=True)
class _Fieller:
    """Two means with their errors over seeds and over probe rows."""

    c: float
    r: float
    seeds: _Form
    rows: _Form | None

    def excess(self, a: float, b: float) -> float:
        """Return (a·c − b·r)² less (t·SE)²: above 0 where a test rejects that the two are one."""
        one, freedom = self.seeds.at(a, b), self.seeds.freedom
        total = one
        if self.rows is not None:
            other = self.rows.at(a, b)
            total = one + other
            if total:
                freedom = total / (one / freedom + other / self.rows.freedom)
        quantile = float(stdtrit(freedom, (1 + LEVEL) / 2))
        return (a * self.c - b * self.r) ** 2 - quantile**2 * total

    def end(self, value: float, sign: float) -> float:
        """Return where, from the ratio found in one direction, ratios begin to be rejected."""
        # That far it would be if the error were the same at every ratio.
        step = 1.1 * max(-self.excess(1.0, value), 0.0) ** 0.5 / abs(self.r) or 1e-9
        inner, outer = value, value + sign * step
        while self.excess(1.0, outer) <= 0:
            step *= 2
            inner, outer = outer, value + sign * step
        if self.excess(1.0, inner) >= 0:  # no error at all: the ratio itself
            return inner
        # By the Illinois method; what finds roots in SciPy takes longer to import than this to run.
        low, high = self.excess(1.0, inner), self.excess(1.0, outer)
        for _ in range(MOST_STEPS):
            middle = inner - low * (outer - inner) / (high - low)
            if abs(outer - inner) <= 1e-13 * max(1.0, abs(middle)) or middle in (inner, outer):
                break
            found = self.excess(1.0, middle)
            if found <= 0:
                inner, low, high = middle, found, high / 2
            else:
                outer, high, low = middle, found, low / 2
        return inner
