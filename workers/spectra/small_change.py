"""The Procrustes distance of two representations that differ little, by matrix products alone.

d = ‖P − YWᵀ‖_F, where P (n, k) is the reference along its principal axes, PᵀP = Λ, and W has the
orthonormal rows of the polar factor of M = PᵀY = HW, H = (MMᵀ)^½. It subtracts before it squares,
as ‖aU − bV‖_F of the singular vectors does, and costs a fifth of these: where little has changed H
is nearly Λ, so that M has nearly orthogonal rows, of known lengths, and few corrections are due.

With W₀ = Λ⁻¹M and W₀W₀ᵀ = I + S the first is W₁ = W₀ − FW₀, Fᵢⱼ = λⱼSᵢⱼ/(λᵢ + λⱼ). It leaves
M = H₁W₁, H₁ = Λ + ΛF + ΛF² + …, which is symmetric as H is: where W₁ has not yet orthonormal rows
the same correction is made again, by what they lack. That long rows give way to short ones by as
little as λⱼ/λᵢ keeps the turn: W is short of the best one by a third power of S, and d by its sixth
over d. S is of more than a change, too: what Λ and P are off by in rounding is not little next to
the energies of the shortest rows.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

NEAR = 0.01
"""Largest ‖S‖_F: d is too large by less than 1e-14."""

ORTHONORMAL = 3e-8
"""Departure of rows whose square is rounding."""

NOUGHT = 1e-28
"""Energies below this share of the largest are rounding, and their axes are anything."""


def small_distance(
    principal: Tensor, spectrum: Tensor, coordinates: Tensor, graded: Tensor
) -> float | None:
    """Return min ‖P − YQ‖_F over rotations Q; None where the two are not near each other.

    Args:
        principal: P (n, k) of centred rows, of orthogonal columns, ever longer.
        spectrum: Λ (k,), the squares of their lengths.
        coordinates: Y (n, k).
        graded: M = PᵀY (k, k).
    """
    n, k = principal.shape
    # Rows that are centred, and no more than their features, have one direction less; what that
    # one's energy is depends on who computes it, and on rounding.
    left_out = max(int((spectrum <= NOUGHT * spectrum[-1]).sum()), int(n == k))
    if left_out > 1:
        return None
    left, principal = principal[:, :left_out], principal[:, left_out:]
    lengths, product = spectrum[left_out:], graded[left_out:]
    weights = lengths / (lengths[:, None] + lengths)
    rows = product / lengths[:, None]
    apart = _apart(rows)
    departure = float(torch.linalg.matrix_norm(apart))
    if not departure <= NEAR:  # so of NaN, too
        return None
    while departure > ORTHONORMAL:
        rows -= _roughly(apart.mul_(weights), rows)
        apart = _apart(rows)
        departure = float(torch.linalg.matrix_norm(apart))
    rows -= _roughly(apart.mul_(weights), rows)
    residual = torch.addmm(principal, coordinates, rows.T, alpha=-1.0)
    squared = float(torch.linalg.matrix_norm(residual)) ** 2
    if left_out:
        squared += _beside(left, coordinates, rows)
    return math.sqrt(squared)


def _roughly(correction: Tensor, rows: Tensor) -> Tensor:
    """Return a product whose seventh digit is not asked for: of a correction that is small."""
    return correction.float() @ rows.float()


def _apart(rows: Tensor) -> Tensor:
    """Return WWᵀ − I."""
    product = rows @ rows.T
    product.diagonal().sub_(1.0)
    return product


def _beside(left: Tensor, coordinates: Tensor, rows: Tensor) -> float:
    """Return what is left of P, (n, 1), less what Y has in the one direction that is orthogonal to
    all rows, squared."""
    axis = torch.zeros(rows.shape[1], dtype=rows.dtype, device=rows.device)
    # Of all features the one that lies farthest from the rows: another, or a sum of them, may lie
    # among the rows, and what is left of it be rounding.
    axis[rows.square().sum(dim=0).argmin()] = 1.0
    # Twice, since the first leaves rounding as large as what it takes away.
    for _ in range(2):
        axis = axis - rows.T @ (rows @ axis)
        axis = axis / torch.linalg.vector_norm(axis)
    beside = coordinates @ axis
    # An axis has no sign.
    return min(float((left[:, 0] + one).square().sum()) for one in (beside, -beside))
