"""From many values to one number with its uncertainty: what a claim is decided on.

Shapes, here and below:
    C  conditions
    R  resamples
A sample matrix (R, C) holds condition means of one bootstrap resample of the seeds per row.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sweeps.statistics.bootstrap import RESAMPLES, SEED, Floats, resamples


def seed_resamples(values: Sequence[Floats]) -> Floats:
    """Return (R, C) means of resampled seeds, each condition resampled on its own.

    Every condition has the same 10,000 resamples as in its own interval, in an order of its own.

    Args:
        values: per condition its seeds' values, (n_c,), n_c at least 1.
    """
    orders = _orders(len(values), RESAMPLES)
    means = np.empty((RESAMPLES, len(values)))
    for k, group in enumerate(values):
        drawn = resamples(len(group))
        means[:, k] = np.repeat(drawn.weights @ group, drawn.times)[orders[:, k]]
    return means


@cache
def _orders(count: int, length: int) -> NDArray[np.int64]:
    """Return (length, count): an independent random order of ``length`` things per column."""
    generator = np.random.default_rng([SEED, count, length])
    ordered = np.tile(np.arange(length)[:, None], (1, count))
    return generator.permuted(ordered, axis=0)


def gap(means: Floats, groups: Sequence[Any]) -> Floats:
    """Return (R,): the largest group mean less the smallest, of (R, C) condition means."""
    shares = _membership(groups)
    per_group = means @ (shares / shares.sum(axis=0))
    return np.asarray(per_group.max(axis=1) - per_group.min(axis=1))


def variance_explained(means: Floats, groups: Sequence[Any]) -> Floats:
    """Return (R,): adjusted R² of (R, C) condition means by group.

    1 − (1 − R²)(C − 1)/(C − G): R² alone grows with the number of groups G, and families and
    objectives differ in it. NaN where every condition is a group of its own.
    """
    shares = _membership(groups)
    count, number = shares.shape
    if number >= count:
        return np.full(means.shape[0], np.nan)
    sizes = shares.sum(axis=0)
    # Sums of squares about one common value: nothing near zero is taken from something large.
    centred = means - means.mean()
    offset = centred.sum(axis=1) ** 2 / count
    total = np.einsum("rc,rc->r", centred, centred) - offset
    between = ((centred @ shares) ** 2 / sizes).sum(axis=1) - offset
    with np.errstate(divide="ignore", invalid="ignore"):
        unexplained = np.where(total > 0, 1 - between / total, np.nan)
    return np.asarray(1 - unexplained * (count - 1) / (count - number))


def permutation_p(means: Floats, groups: Sequence[Any]) -> float:
    """Return the share of label permutations that explain at least as much variance as (C,)."""
    shuffled = means[_orders(RESAMPLES, len(groups)).T]
    observed = variance_explained(means[None], groups)[0]
    if np.isnan(observed):
        return float("nan")
    # Rounding must not part a permutation from an equal one.
    exceeding = int((variance_explained(shuffled, groups) >= observed - 1e-12).sum())
    return (1 + exceeding) / (1 + RESAMPLES)


def spearman(x: Floats, y: Floats, weights: Floats | None = None) -> Floats:
    """Return (R,): Spearman correlation of x (C,) and y (C,), each condition counted as in weights.

    Args:
        weights: (R, C) how often a resample holds each condition; once each where not given.

    NaN where a resample has no variation in x or in y.
    """
    counts = np.ones((1, len(x))) if weights is None else weights
    a, b = _ranks(x, counts), _ranks(y, counts)
    total = counts.sum(axis=1, keepdims=True)
    a = a - (counts * a).sum(axis=1, keepdims=True) / total
    b = b - (counts * b).sum(axis=1, keepdims=True) / total
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = (counts * a * b).sum(axis=1) / np.sqrt(
            (counts * a * a).sum(axis=1) * (counts * b * b).sum(axis=1)
        )
    return np.asarray(ratio)


@cache
def condition_weights(count: int) -> Floats:
    """Return (R, C): how often each of C conditions stands in each resample of the conditions."""
    generator = np.random.default_rng([SEED, count, 2])
    return generator.multinomial(count, np.full(count, 1 / count), RESAMPLES).astype(float)


def _ranks(values: Floats, counts: Floats) -> Floats:
    """Return (R, C) average ranks of (C,) values repeated ``counts`` (R, C) times each."""
    _, inverse = np.unique(values, return_inverse=True)
    tied = counts @ _membership(inverse)
    before = np.cumsum(tied, axis=1) - tied
    return np.asarray((before + (tied + 1) / 2)[:, inverse])


def _membership(groups: Sequence[Any] | NDArray[Any]) -> Floats:
    """Return (C, G): 1 where a condition belongs to a group, groups in sorted order."""
    names = (
        np.asarray([str(group) for group in groups])
        if not isinstance(groups, np.ndarray)
        else groups
    )
    distinct, inverse = np.unique(names, return_inverse=True)
    return np.eye(len(distinct))[inverse]
