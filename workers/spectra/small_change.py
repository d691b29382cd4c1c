"""The Procrustes distance of two representations that differ little, by matrix products alone.

d = ‖P − YWᵀ‖_F, where P (n, k) is the reference along its principal axes, PᵀP = Λ, and W has the
orthonormal rows of the polar factor of M = PᵀY = HW, H = (MMᵀ)^½. It subtracts before it squares,
as ‖aU − bV‖_F of the singular vectors does, and costs a fifth of these: where little has changed H
is nearly Λ, so that M has nearly orthogonal rows, of known lengths, and few corrections are due.

With W₀ = Λ⁻¹M and W₀W₀ᵀ = I + S the first is W₁ = W₀ − FW₀, Fᵢⱼ = λⱼSᵢⱼ/(λᵢ + λⱼ), which solves
H² = Λ(I + S)Λ to first order in S. Steps of Newton and Schulz, W − ½(WWᵀ − I)W, then make its rows
orthonormal. What W is still short of the best turn is of second order in S, so that d² is too large
by a share of up to ‖S‖²_F. Where that is to be seen it is taken off: Σ (Bᵢⱼ − Bⱼᵢ)²/(2(λᵢ + λⱼ)),
B = MWᵀ.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

NEAR = 0.01
"""Largest ‖S‖_F: what is neglected is of the order of its square, and taken off to first order."""

ORTHONORMAL = 3e-8
"""Departure of rows whose square is rounding."""

ROUNDING = 2e-15
"""An error of d that is no larger is that of its sum."""

NOUGHT = 1e-28
"""Energies below this share of the largest are rounding, and their axes are anything."""


def small_distance(
    principal: Tensor, spectrum: Tensor, coordinates: Tensor, graded: Tensor
) -> float | None:
    """Return min ‖P − YQ‖_F over rotations Q; None where the two are not near each other.

    Args:
        principal: P (n, k), of orthogonal columns, ever longer.
        spectrum: Λ (k,), the squares of their lengths.
        coordinates: Y (n, k).
        graded: M = PᵀY (k, k).
    """
    left_out = int((spectrum <= NOUGHT * spectrum[-1]).sum())
    if left_out > 1:  # rows that are centred have one
        return None
    principal, lengths, product = principal[:, left_out:], spectrum[left_out:], graded[left_out:]
    over_both = (lengths[:, None] + lengths).reciprocal_()
    rows = product / lengths[:, None]
    apart = _apart(rows)
    first = float(torch.linalg.matrix_norm(apart))
    if not first <= NEAR:  # so of NaN, too
        return None
    rows -= _roughly(apart.mul_(over_both).mul_(lengths), rows)
    departure = math.inf
    while departure > ORTHONORMAL:
        apart = _apart(rows)
        departure = float(torch.linalg.matrix_norm(apart))
        rows -= _roughly(apart.mul_(0.5), rows)
    residual = torch.addmm(principal, coordinates, rows.T, alpha=-1.0)
    squared = float(torch.linalg.matrix_norm(residual)) ** 2
    if left_out:
        squared += _beside(coordinates, rows)
    if math.sqrt(squared) * first**2 > ROUNDING:
        skew = product @ rows.T
        skew = skew - skew.T
        squared -= float(over_both.mul_(skew).flatten() @ skew.flatten()) / 2.0
    return math.sqrt(max(0.0, squared))


def _roughly(correction: Tensor, rows: Tensor) -> Tensor:
    """Return a product whose seventh digit is not asked for: of a correction that is small."""
    return correction.float() @ rows.float()


def _apart(rows: Tensor) -> Tensor:
    """Return WWᵀ − I."""
    product = rows @ rows.T
    product.diagonal().sub_(1.0)
    return product


def _beside(coordinates: Tensor, rows: Tensor) -> float:
    """Return what Y has in the one direction that is orthogonal to all rows, squared."""
    axis = torch.ones(rows.shape[1], dtype=rows.dtype, device=rows.device)
    # Twice, since the first leaves rounding as large as what it takes away.
    for _ in range(2):
        axis = axis - rows.T @ (rows @ axis)
        axis = axis / torch.linalg.vector_norm(axis)
    return float((coordinates @ axis).square().sum())
