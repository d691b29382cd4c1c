"""The nuclear norm ‖M‖_* of a core M = PᵀY, for a third of the time of its singular values.

An accelerator has it by products alone (``polar_products``); what follows is of a CPU. Singular
values need a reduction to bidiagonal form, half of which is matrix times vector; those of
a symmetric matrix need half of that work, on half of the memory. But the eigenvalues λ = σ² of MMᵀ
have an absolute error of about 1e-16·‖M‖², which drowns every σ below 1e-8 and moves their sum by
up to 1e-7. Not so where MMᵀ is *graded*: where P are the rows of X in its principal axes, row i of
M is as long as X along axis i is large, and with rows ascending the reduction of the upper triangle
works from the largest down, so that each λ keeps digits of its own (Barlow and Demmel 1990 on such
matrices).

That is no theorem for every M, so each result is checked: Σ ln λ, the number that suffers first
and most, must be 2·ln|det M|, of M itself. A uniform absolute error e of the λ, small next to all
of them, shifts it by e·Σ 1/λ and the sum of σ by e·Σ 1/(2σ): the first is seen, the second follows.
Where the first is no longer small, or the second could exceed ``ACCEPTED``, M has its singular
values computed after all.

Of fewer rows than features MMᵀ = PᵀLP needs the row products L = YYᵀ alone, which are half of the
work of a QR factorisation of Y at twice its rate. L has rounding of its own, which no determinant
of it can show, so that its part of the error is estimated: with H = (MMᵀ)^½ a rounding ΔL moves
‖M‖_* by ½·⟨ΔL, PH⁻¹Pᵀ⟩, and ‖PH⁻¹Pᵀ‖²_F ≤ tr(PPᵀ·L⁻¹), as tr(ABAB) ≤ tr(A²B²).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from workers.spectra.polar_products import nuclear_norm_by_products

ACCEPTED = 8e-15
"""Largest estimated error of ‖M‖_*, for matrices X and Y of norm 1: a few roundings of float64."""

APART = 0.1
"""Largest difference of Σ ln λ and 2·ln|det M| for which λ is known but for a small error."""

NEGLIGIBLE = 1e-15
"""A row of M below this is rounding; leaving it out moves ‖M‖_* by no more than its length."""

DRAWS = 16
"""Random vectors by which a trace is estimated, within a third of it."""

BLOCK = 256


def nuclear_norm(graded: Tensor) -> float:
    """Return the sum of the singular values of M = PᵀY (k, k), ‖P‖ = ‖Y‖ = 1.

    The columns of P (n, k) are orthogonal and ever longer, as X times what `torch.linalg.eigh` of
    XᵀX returns; any others are as right and slower. The absolute error is about 1e-15.
    """
    by = nuclear_norm_by_products if prefers_products(graded) else _by_eigenvalues
    found = by(graded)
    return float(torch.linalg.svdvals(graded).sum()) if found is None else found


def prefers_products(matrix: Tensor) -> bool:
    """Whether a matrix is where products are a hundred times as fast as reductions."""
    return matrix.device.type != "cpu"


def _by_eigenvalues(graded: Tensor) -> float | None:
    """Return ‖M‖_* from MMᵀ; None where its error may be too large."""
    lengths = torch.linalg.vector_norm(graded, dim=1)
    kept = (lengths > NEGLIGIBLE).nonzero().flatten()
    left_out = NEGLIGIBLE * (len(lengths) - len(kept))
    rows = graded[kept] if left_out else graded
    if not len(rows):
        return None
    return _checked(upper_product(rows.T), 2.0 * _log_volume(rows), left_out)


def nuclear_norm_of_rows(
    principal: Tensor, products: Tensor, squares: Tensor, features: int
) -> float | None:
    """Return ‖PᵀY‖_* of rows that are fewer than their features; None where it may be off.

    Args:
        principal: P (n, n − 1), of orthogonal columns, ever longer. Rows that are centred have one
            direction less than they are; a column of rounding that was left out counts as an error.
        products: L = YYᵀ (n, n), whole.
        squares: PᵀLP (n − 1, n − 1), its upper triangle.
        features: how many products an element of L is the sum of.
    """
    lengths = principal.square().sum(dim=0).sqrt()
    if len(lengths) == 0 or not float(lengths[0]) > 0.0:
        return None
    # What all rows have in common is in neither matrix: with it L has an inverse.
    factors, pivots, _ = torch.linalg.lu_factor_ex((products + 1.0 / len(products)).T)
    signs = torch.randint(
        2, (len(lengths), DRAWS), generator=torch.Generator().manual_seed(0), dtype=principal.dtype
    )
    drawn = principal @ (2.0 * signs.to(principal.device) - 1.0)
    trace = float((drawn * torch.linalg.lu_solve(factors, pivots, drawn)).sum()) / DRAWS
    if not trace > 0.0:
        return None
    # An element of L is a sum of so many terms: its rounding grows like a random walk.
    rounding = 0.5 * math.sqrt(features) * torch.finfo(principal.dtype).eps
    own = 0.5 * rounding * float(products.diagonal().max()) * math.sqrt(trace)
    volume = float(factors.diagonal().abs().log().sum()) + 2.0 * float(lengths.log().sum())
    return _checked(squares, volume, own + NEGLIGIBLE)


def _checked(squares: Tensor, log_volume: float, other: float) -> float | None:
    """Return Σ√λ of MMᵀ (r, r), its upper triangle; None where its error may be too large.

    ``log_volume`` is what Σ ln λ has to be, ``other`` what is known of the error beside that of λ.
    """
    found = torch.linalg.eigvalsh(squares, UPLO="U")
    if not float(found[0]) > 0.0:
        return None
    values = found.sqrt()
    apart = abs(float(found.log().sum()) - log_volume)
    error = apart * float(values.reciprocal().sum() / found.reciprocal().sum()) / 2.0
    # A comparison with NaN is false.
    known = apart <= APART and error + other <= ACCEPTED
    return float(values.sum()) if known else None


def _log_volume(rows: Tensor) -> float:
    """Return Σ ln σ of a matrix (r, k), r ≤ k, of full rank: ln|det| where it is square."""
    if rows.shape[0] == rows.shape[1]:
        return float(torch.linalg.slogdet(rows.T).logabsdet)
    return float(torch.geqrf(rows.T)[0].diagonal().abs().log().sum())


def upper_product(a: Tensor, b: Tensor | None = None) -> Tensor:
    """Return the upper triangle of a symmetric aᵀb, a and b (n, k), b being a where it is left out;
    what is below it is anything.

    It is made of block rows, for little more than half of the work of the whole, and lies in memory
    column by column, as LAPACK wants it.
    """
    b, k = a if b is None else b, a.shape[1]
    product = a.new_zeros(k, k)
    for start in range(0, k, BLOCK):
        end = min(start + BLOCK, k)
        torch.mm(a[:, start:end].T, b[:, :end], out=product[start:end, :end])
    return product.T


def symmetric_product(a: Tensor) -> Tensor:
    """Return aᵀa (k, k), a (n, k), for little more than half of the work of a product."""
    product = upper_product(a)
    for start in range(0, len(product), BLOCK):
        end = start + BLOCK
        product[end:, start:end] = product[start:end, end:].T
    return product
