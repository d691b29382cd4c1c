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
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from workers.probes.rows import ProbeRows
from workers.probes.similarity import (
    CANCELLATION,
    Reference,
    distance_by_residual,
    distance_by_spectrum,
)
from workers.spectra.cka import (
    ROUNDING,
    cka_distance,
    debiased_cka_distance,
    hsic,
    self_hsic,
)
from workers.spectra.inputs import MINIMUM_ROWS

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


def changes_without(x: Reference, y: Reference, groups: RowGroups) -> list[Remaining]:
    """Return the change from ``x`` to ``y`` without each group, as `compare` of the rest has it.

    NaN where fewer than 4 rows remain or those that do are all equal. Nothing is returned where
    there are fewer than two groups. At no time does it hold more than two k×k matrices and one
    more copy of a representation, so it needs no more memory than a comparison.
    """
    if groups.count < 2:
        return []
    of = groups.of.to(x.coordinates.device)
    kept = [of != group for group in range(groups.count)]
    assert x.principal is not None
    along = replace(x, coordinates=x.principal)
    rests_x, rests_y = ([_Rest.of(each, rows) for rows in kept] for each in (along, y))
    norms_x, norms_y = _gram_norms(along, rests_x), _gram_norms(y, rests_y)
    whole = along.coordinates.T @ y.coordinates
    found = []
    for group, (a, b) in enumerate(zip(rests_x, rests_y, strict=True)):
        if a is None or b is None:
            found.append(Remaining(int(kept[group].sum()), math.nan, math.nan, math.nan))
            continue
        core = _product(a, b, whole)
        distance = distance_by_spectrum(core)
        if distance < CANCELLATION:
            # As they are: of rows that are the same their difference is exactly 0.
            rest = _Rest.of(x, kept[group])
            assert rest is not None
            distance = distance_by_residual(rest.unit(), b.unit())
        cross, norms = float(core.square().sum()), (norms_x[group], norms_y[group])
        own = self_hsic(norms[0], a.energy), self_hsic(norms[1], b.energy)
        debiased = debiased_cka_distance(hsic(cross, a.energy, b.energy), *own)
        found.append(Remaining(len(a.energy), distance, cka_distance(cross, *norms), debiased))
    return found


@dataclass(frozen=True, slots=True, eq=False)
class _Rest:
    """The rows of one representation that remain when a group is left out.

    Attributes:
        whole: (n, k), centred and of norm 1.
        kept: (n,) which of its rows remain.
        mean: (k,) mean of the rows that remain.
        norm: their Frobenius norm when centred.
        energy: (n_K,) their squared norms when centred, of sum 1.
    """

    whole: Tensor
    kept: Tensor
    mean: Tensor
    norm: float
    energy: Tensor

    @classmethod
    def of(cls, state: Reference, kept: Tensor) -> _Rest | None:
        """Return the rest of a state; None where it has no distance to anything."""
        rows = state.coordinates[kept]
        if len(rows) < MINIMUM_ROWS:
            return None
        mean = rows.mean(dim=0)
        lengths = torch.linalg.vector_norm(rows.sub_(mean), dim=1)
        norm = float(torch.linalg.vector_norm(lengths))
        offset = float(torch.linalg.vector_norm(state.mean)) / state.norm
        if norm <= ROUNDING * (1.0 + math.sqrt(len(rows)) * offset):
            return None
        return cls(state.coordinates, kept, mean, norm, (lengths / norm).square())

    def unit(self) -> Tensor:
        """Return the rows that remain (n_K, k), centred and of norm 1."""
        return self.whole[self.kept].sub_(self.mean).div_(self.norm)


def _gram_norms(state: Reference, rests: Sequence[_Rest | None]) -> list[float]:
    """Return ‖XᵀX‖_F of the unit of each rest."""
    whole = state.coordinates.T @ state.coordinates
    return [
        math.nan if rest is None else float(torch.linalg.matrix_norm(_product(rest, rest, whole)))
        for rest in rests
    ]


def _product(a: _Rest, b: _Rest, whole: Tensor) -> Tensor:
    """Return the k×k product of the units of two rests, from the product of the wholes."""
    if min(a.norm, b.norm) ** 2 < LITTLE_LEFT:
        return a.unit().T @ b.unit()
    product = torch.addmm(whole, a.whole[~a.kept].T, b.whole[~a.kept], alpha=-1)
    return product.addr_(a.mean, b.mean, alpha=-len(a.energy)).div_(a.norm * b.norm)
