"""A layer's change with one group of probe sequences left out at a time: the group jackknife.

Tokens of one sequence depend on each other, so whole sequences are left out, in 16 groups that are
the same for every layer and run of a model. From the changes so found the error of a quantity over
probe texts is v = (G − 1)/G · Σ(θ_g − mean)², G the number of groups.

Shapes: n probe rows, d features, k = min(n, d), as in ``similarity``. Of the rows that remain (K) a
product is what the whole product less the group's (g) leaves, less that of the means:

    Σ_K (a − m_a)(b − m_b)ᵀ = AᵀB − A_gᵀB_g − n_K·m_a·m_bᵀ

so a group costs one SVD of a k×k core and three products over a sixteenth of the rows.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from workers.probes.rows import ProbeRows
from workers.probes.similarity import (
    MINIMUM_ROWS,
    ROUNDING,
    Reference,
    cka_distance,
    debiased_cka_distance,
    hsic,
    procrustes_distance,
    self_hsic,
)

GROUPS = 16

LITTLE_LEFT = 0.1
"""Share of the energy below which the products are made anew: a difference would lose digits."""


@dataclass(frozen=True, slots=True)
class RowGroups:
    """Which group each probe row belongs to: ``of`` is (n,), its values 0..``count`` − 1."""

    of: Tensor
    count: int


def row_groups(rows: ProbeRows) -> RowGroups:
    """Return the groups of the rows: consecutive sequences, of as equal a number as can be.

    They are of the sequences as chosen, so that rows left out later move no other row's group.
    """
    sequences = len(rows.input_ids)
    count = min(GROUPS, sequences)
    return RowGroups(rows.sequence * count // sequences, count)


@dataclass(frozen=True, slots=True)
class Remaining:
    """The change of one layer over the rows that remain; NaN where they have none.

    ``rows`` is their number; the metrics are those of ``similarity.Change``.
    """

    rows: int
    procrustes: float
    cka_distance: float
    cka_distance_debiased: float


def changes_without(x: Reference, y: Reference, groups: RowGroups) -> Iterator[Remaining]:
    """Yield the change from ``x`` to ``y`` without each group, as `compare` of the rest has it.

    NaN where fewer than 4 rows remain or those that do are all equal. Nothing is yielded where
    there are fewer than two groups.
    """
    if groups.count < 2:
        return
    wholes = tuple(a.coordinates.T @ b.coordinates for a, b in ((x, y), (x, x), (y, y)))
    of = groups.of.to(x.coordinates.device)
    for group in range(groups.count):
        kept = of != group
        rows = int(kept.sum())
        if rows < MINIMUM_ROWS:
            yield Remaining(rows, math.nan, math.nan, math.nan)
            continue
        rests = _Rest.of(x, kept), _Rest.of(y, kept)
        if rests[0].norm <= rests[0].least or rests[1].norm <= rests[1].least:
            yield Remaining(rows, math.nan, math.nan, math.nan)
            continue
        yield _remaining(*rests, wholes)


@dataclass(frozen=True, slots=True, eq=False)
class _Rest:
    """The rows of one representation that remain, and what went with the others.

    Attributes:
        unit: (n_K, k), centred and of norm 1.
        gone: (n_g, k) rows that are left out, as they stand in the whole.
        mean: (k,) mean of the rows that remain.
        norm: their Frobenius norm when centred, that of the whole being 1.
        least: a norm that is rounding.
    """

    unit: Tensor
    gone: Tensor
    mean: Tensor
    norm: float
    least: float

    @classmethod
    def of(cls, whole: Reference, kept: Tensor) -> _Rest:
        rows = whole.coordinates[kept]
        mean = rows.mean(dim=0)
        centred = rows - mean
        norm = float(torch.linalg.matrix_norm(centred))
        offset = float(torch.linalg.vector_norm(whole.mean)) / whole.norm
        least = ROUNDING * (1.0 + math.sqrt(len(rows)) * offset)
        return cls(centred / max(norm, least), whole.coordinates[~kept], mean, norm, least)


def _remaining(x: _Rest, y: _Rest, wholes: tuple[Tensor, ...]) -> Remaining:
    core, gram_x, gram_y = (
        _product(a, b, whole)
        for (a, b), whole in zip(((x, y), (x, x), (y, y)), wholes, strict=True)
    )
    cross = float(core.square().sum())
    norms = float(torch.linalg.matrix_norm(gram_x)), float(torch.linalg.matrix_norm(gram_y))
    energies = x.unit.square().sum(dim=1), y.unit.square().sum(dim=1)
    own = self_hsic(norms[0], energies[0]), self_hsic(norms[1], energies[1])
    return Remaining(
        len(x.unit),
        procrustes_distance(x.unit, y.unit, core),
        cka_distance(cross, *norms),
        debiased_cka_distance(hsic(cross, *energies), *own),
    )


def _product(a: _Rest, b: _Rest, whole: Tensor) -> Tensor:
    """Return the k×k product of the units of two rests, from the product of the wholes."""
    if min(a.norm, b.norm) ** 2 < LITTLE_LEFT:
        return a.unit.T @ b.unit
    means = torch.outer(len(a.unit) * a.mean, b.mean)
    return (whole - a.gone.T @ b.gone - means) / (a.norm * b.norm)
