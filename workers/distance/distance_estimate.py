"""The distance between two mean gradients, of which only noisy ones of batches are known.

Two sides, a and b, have G groups of batches each; a group's gradient is the mean over its batches,
and no example is in two groups. With ⟨g, h⟩ the inner product of groups g and h in one block:

    ⟨a, b⟩    mean of ⟨a_g, b_h⟩ over all g and h
    ⟨a₁, a₂⟩  mean of ⟨a_g, a_h⟩ over all g ≠ h

Both are free of the noise of sampling, which a product of a gradient with itself is not: the second
is the average over all ways to split the groups into two independent halves. The cosine of a block
is ⟨a, b⟩ / √(⟨a₁, a₂⟩·⟨b₁, b₂⟩): it may exceed 1, and nothing is clipped. A block in which a self
product is not above 0 is missing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sweeps.statistics.intervals import Floats, Mean, row_variance

# A side whose halves agree less is too noisy for a claim.
RELIABLE = 0.8


@dataclass(frozen=True)
class Products:
    """Inner products of groups in float64, (L, G, G): of side a, of side b, and of a with b."""

    aa: Floats
    bb: Floats
    ab: Floats

    @classmethod
    def of(cls, a: Sequence[Sequence[Tensor]], b: Sequence[Sequence[Tensor]]) -> Products:
        """Return those of group vectors, ``a[g][l]`` and ``b[g][l]`` of group g and block l."""
        return cls(_gram(a, a), _gram(b, b), _gram(a, b))

    def without(self, group: int) -> Products:
        """Return those without one group of both sides."""
        kept = np.delete(np.arange(self.aa.shape[1]), group)
        rows = np.ix_(np.arange(len(self.aa)), kept, kept)
        return Products(self.aa[rows], self.bb[rows], self.ab[rows])


@dataclass(frozen=True)
class Estimate:
    """A distance with its 95 % interval; None where no block, or too few groups, allow one.

    ``cosines`` are those of blocks 1..L, None for a missing one; ``reliability`` that of each side.
    """

    distance: float | None
    low: float | None
    high: float | None
    cosines: list[float | None]
    reliability: tuple[float, float]

    @property
    def noisy(self) -> bool:
        """Whether a side's halves do not agree well enough for a claim to rest on the distance."""
        return self.distance is None or not min(self.reliability) >= RELIABLE


def estimate(products: Products) -> Estimate:
    """Return 1 − the mean cosine over blocks, with the interval of the jackknife over groups.

    Group g of both sides is left out in turn: v = (G−1)/G·Σ(θ₍g₎ − mean)², and the interval is
    θ ± t(0.975, G−1)·√v.
    """
    cosines = _cosines(products)
    distance = _distance(cosines)
    groups = products.aa.shape[1]
    half = _half_width(products) if groups > 2 else None
    low = high = None
    if distance is not None and half is not None:
        low, high = distance - half, distance + half
    return Estimate(
        distance,
        low,
        high,
        [None if np.isnan(cosine) else float(cosine) for cosine in cosines],
        (reliability(products.aa), reliability(products.bb)),
    )


def _half_width(products: Products) -> float | None:
    """Return half of the interval; None where a group's loss leaves no block."""
    groups = products.aa.shape[1]
    left = [_distance(_cosines(products.without(group))) for group in range(groups)]
    if None in left:
        return None
    values = np.array(left, dtype=np.float64)
    error = float(np.sqrt(row_variance(values[:, None])[0]))
    return Mean(0.0, error, groups - 1.0).interval[1]


def reliability(self_products: Floats) -> float:
    """Return ⟨a₁, a₂⟩ / (‖a₁‖‖a₂‖) of the mean gradients of even and odd groups, (L, G, G) given.

    Products are summed over blocks. NaN where a half is zero.
    """
    total = self_products.sum(axis=0)
    even, odd = slice(0, None, 2), slice(1, None, 2)
    norms = np.sqrt(total[even, even].mean() * total[odd, odd].mean())
    return float(total[even, odd].mean() / norms) if norms > 0 else float("nan")


def _cosines(products: Products) -> Floats:
    """Return the cosine of each block, NaN for a missing one."""
    a, b = _between(products.aa), _between(products.bb)
    present = (a > 0) & (b > 0)
    scale = np.sqrt(np.where(present, a * b, 1.0))
    return np.where(present, products.ab.mean(axis=(1, 2)) / scale, np.nan)


def _between(self_products: Floats) -> Floats:
    """Return the mean product of two different groups in each block."""
    groups = self_products.shape[1]
    same = np.trace(self_products, axis1=1, axis2=2)
    return np.asarray((self_products.sum(axis=(1, 2)) - same) / (groups * (groups - 1)))


def _distance(cosines: Floats) -> float | None:
    present = cosines[~np.isnan(cosines)]
    return float(1 - present.mean()) if len(present) else None


def _gram(a: Sequence[Sequence[Tensor]], b: Sequence[Sequence[Tensor]]) -> Floats:
    found = []
    for block in range(len(a[0])):
        left = torch.stack([group[block] for group in a]).double()
        right = torch.stack([group[block] for group in b]).double()
        found.append((left @ right.T).numpy())
    return np.array(found)
