"""Additive fits to factors, many at once.

The factor of most levels that is given is absorbed, fitted by its means, for its columns are
orthogonal: a sweep over a hundred learning rates has a hundred. What is left of the other columns
is fitted besides (Frisch and Waugh 1933, Lovell 1963).

Shapes, here and below:
    C  conditions
    P  columns of a fit
    R  fits
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sweeps.statistics.intervals import Floats

# Relative to all of a fit's columns, what of one counts as depending on others.
RANK_TOLERANCE = 1e-10
# Numbers of fits that are made at once.
AT_ONCE = 200_000
Codes = NDArray[np.int64]


def codes_of(values: Sequence[Any]) -> Codes:
    """Return (C,) numbers that are equal where values are."""
    return np.unique([str(value) for value in values], return_inverse=True)[1].astype(np.int64)


def dummies(codes: Codes) -> Floats:
    return np.eye(int(codes.max()) + 1)[codes]


@dataclass(frozen=True, eq=False)
class GivenFit:
    """An additive fit to what is given of C conditions.

    The factor of most levels, ``absorbed``, is fitted by its means, for its columns are orthogonal:
    a sweep over a hundred learning rates has a hundred. ``others`` are (C, P) columns besides.
    """

    absorbed: Codes
    others: Floats

    @cached_property
    def sizes(self) -> Floats:
        """How many conditions each level of ``absorbed`` has."""
        return np.bincount(self.absorbed).astype(np.float64)

    @cached_property
    def basis(self) -> Floats:
        """(C, rank) orthonormal columns that span what ``others`` add to ``absorbed``."""
        if not self.others.shape[1]:
            return self.others
        left, sizes, _ = np.linalg.svd(self._less_means(self.others), full_matrices=False)
        return np.asarray(left[:, sizes > np.linalg.norm(self.others) * RANK_TOLERANCE])

    def left_of(self, values: Floats) -> Floats:
        """Return what the fit leaves of (C,) values."""
        rest = self._less_means(values[:, None])[:, 0]
        return np.asarray(rest - self.basis @ (self.basis.T @ rest))

    def _less_means(self, columns: Floats) -> Floats:
        sums = np.stack(
            [np.bincount(self.absorbed, one, len(self.sizes)) for one in columns.T], axis=1
        )
        return np.asarray(columns - (sums / self.sizes[:, None])[self.absorbed])


def given_fit(given: Sequence[Codes], conditions: int) -> GivenFit:
    """Return the fit to factors of (C,) levels; to the mean alone where there are none."""
    factors = sorted(given, key=lambda one: -int(one.max())) or [np.zeros(conditions, np.int64)]
    columns = [np.empty((conditions, 0)), *map(dummies, factors[1:])]
    return GivenFit(codes_of(factors[0].tolist()), np.hstack(columns))


@dataclass(frozen=True)
class Fits:
    """The columns of R least-squares fits, as their products' (R, P) sizes along (R, P, P) axes,
    and (R,) sizes of their own beside which a small one is rounding."""

    sizes: Floats
    axes: Floats
    scale: Floats

    def explained(self, along: Floats) -> Floats:
        """Return (R,) sums of squares that fits explain of values whose products with the columns
        are (R, P)."""
        squares = np.square(np.matmul(along[:, None, :], self.axes)[:, 0])
        counts = self.sizes > RANK_TOLERANCE * self.scale[:, None]
        shares = np.divide(squares, self.sizes, out=squares, where=counts)
        return np.asarray(shares.sum(axis=1, where=counts))


def meetings(one: Codes, others: Codes, levels: int) -> Floats:
    """Return (R, levels of one, levels) counts of how often levels of (C,) and of each of (R, C)
    meet."""
    count = int(one.max()) + 1
    cells = (np.arange(len(others))[:, None] * count + one) * levels + others
    met = np.bincount(cells.ravel(), minlength=len(others) * count * levels)
    return met.reshape(len(others), count, levels).astype(np.float64)


def lots(count: int, each: int) -> Iterator[slice]:
    """Yield slices of ``count`` that are treated at once, of ``each`` numbers one."""
    size = max(1, AT_ONCE // max(each, 1))
    for first in range(0, count, size):
        yield slice(first, min(first + size, count))
