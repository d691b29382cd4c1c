"""The nuclear norm of a matrix by its polar factor, and that by products of matrices alone.

‖M‖_* = tr(UMᵀ), U the orthonormal polar factor of M (r, c), r ≤ c. A polynomial p of odd powers
turns all singular values of M towards 1 and leaves its singular vectors as they are:
p(M) = (aI + bMMᵀ + c(MMᵀ)²)M. Of such polynomials one after another, each the best of fifth degree
for where the one before has left the singular values, those between ``LEAST`` and 1 end within a
rounding of 1 (after Amsel, Persson, Musco and Gower 2025, "The Polar Express"; that each is the
best, `tests/workers/spectra/test_polar_products.py` checks by its alternating errors). Smaller ones
do not all arrive, and count for less than float64 resolves of the sum.

Ninety products are many times the work of a reduction to bidiagonal form. A CPU is slower by them;
an accelerator, which does such reductions at a hundredth of its rate, is faster.

What a rounding E of U does to the sum is of second order where E is a turn, since U is what makes
tr(UMᵀ) largest; where E stretches it is seen, as UUᵀ − I, and taken into account. That both are
little is checked.
"""

from __future__ import annotations

import torch
from torch import Tensor

LEAST = 1e-17
"""Singular values from here on are turned to 1, those of norm 1 being the largest."""

TO_TWO = (8.509885302586277, -25.26430419083091, 18.75356789973964)
"""Takes singular values up to 1 as far as 2, as the next ones want them."""

STEADY = (4.2569524675309625, -3.161146009442235, 0.5868901008783143)
"""Multiplies small ones by 4.26, and keeps those up to 2 there."""

STEADY_TIMES = 20

TO_ONE = (
    (4.254467351350816, -3.158691035446546, 0.5864015989638023),
    (4.244848498675954, -3.1517064765002663, 0.5855117870868994),
    (4.205381805974722, -3.1243562261300646, 0.5823921990443345),
    (4.047162163855043, -3.0140279145898003, 0.5698111736641617),
    (3.516387385278926, -2.6345625677630915, 0.5266175732883982),
    (2.5029145054712876, -1.845149390804164, 0.43802984674332),
    (1.9201351716129524, -1.2992853698295872, 0.37996166527283426),
    (1.875030032637388, -1.2500333691913557, 0.3750033369340377),
    (1.875, -1.25, 0.375),
)
"""The best on [l, 2 − l] for ever larger l, until all are 1."""

POLYNOMIALS = (TO_TWO, *(STEADY,) * STEADY_TIMES, *TO_ONE)

STRETCH = 1e-14
"""Largest share of the norm that U may have been off by before that was taken into account."""

TURN = 1e-9
"""Largest departure of UMᵀ from symmetry, the square of which is rounding."""


def nuclear_norm_by_products(matrix: Tensor) -> float | None:
    """Return ‖M‖_* of M (r, c), r ≤ c, ‖M‖_F ≤ 1, with an error of about 1e-15; None where it may
    be larger."""
    factor = polar_factor(matrix)
    stretched = factor @ factor.T
    stretched.diagonal().sub_(1.0)
    symmetric = factor @ matrix.T
    amiss = 0.5 * (stretched * symmetric).sum()
    turned = torch.linalg.matrix_norm(symmetric - symmetric.T)
    norm, stretch, turn = torch.stack([symmetric.trace(), amiss, turned]).tolist()
    # A comparison with NaN is false.
    known = abs(stretch) <= STRETCH and turn <= TURN
    return float(norm - stretch) if known else None


def polar_factor(matrix: Tensor) -> Tensor:
    """Return the polar factor (r, c) of M, ‖M‖₂ ≤ 1, but for directions that M hardly has."""
    factor = matrix
    for a, b, c in POLYNOMIALS:
        gram = factor @ factor.T
        # b·G + c·G², times what it is of, and a times that.
        mixed = torch.addmm(gram, gram, gram, beta=b, alpha=c)
        factor = torch.addmm(factor, mixed, factor, beta=a)
    return factor
