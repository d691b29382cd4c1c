"""The nuclear norm ‖M‖_* of a core M = XᵀY, for a third of the time of its singular values.

Singular values need a reduction to bidiagonal form, half of which is matrix times vector; those of
a symmetric matrix need half of that work, on half of the memory. But the eigenvalues λ = σ² of MMᵀ
have an absolute error of about 1e-16·‖M‖², which drowns every σ below 1e-8 and moves their sum by
up to 1e-7. Not so where MMᵀ is *graded*: in the principal axes of X row i of M is as long as X
along axis i is large, and with rows ascending the reduction of the upper triangle works from the
largest down, so that each λ keeps digits of its own (Barlow and Demmel 1990 on such matrices).

That is no theorem for every M, so each result is checked: Σ ln λ, the number that suffers first
and most, must be 2·ln|det M|, of M itself. A uniform absolute error e of the λ, small next to all
of them, shifts it by e·Σ 1/λ and the sum of σ by e·Σ 1/(2σ): the first is seen, the second follows.
Where the first is no longer small, or the second could exceed ``ACCEPTED``, M has its singular
values computed after all.
"""

from __future__ import annotations

import torch
from torch import Tensor

ACCEPTED = 8e-15
"""Largest estimated error of ‖M‖_*, for matrices X and Y of norm 1: a few roundings of float64."""

APART = 0.1
"""Largest difference of Σ ln λ and 2·ln|det M| for which λ is known but for a small error."""

NEGLIGIBLE = 1e-15
"""A row of M below this is rounding; leaving it out moves ‖M‖_* by no more than its length."""

BLOCK = 256


def nuclear_norm(graded: Tensor) -> float:
    """Return the sum of the singular values of (X·A)ᵀY (k, k), ‖X‖ = ‖Y‖ = 1.

    A (k, k) are orthonormal columns along which X is ever larger, as `torch.linalg.eigh` of XᵀX
    returns them; any others are as right and slower. The absolute error is about 1e-15.
    """
    found = _by_eigenvalues(graded)
    return float(torch.linalg.svdvals(graded).sum()) if found is None else found


def _by_eigenvalues(graded: Tensor) -> float | None:
    """Return ‖M‖_* from MMᵀ; None where its error may be too large."""
    lengths = torch.linalg.vector_norm(graded, dim=1)
    kept = (lengths > NEGLIGIBLE).nonzero().flatten()
    left_out = NEGLIGIBLE * (len(lengths) - len(kept))
    rows = graded[kept] if left_out else graded
    squares = torch.linalg.eigvalsh(upper_product(rows.T), UPLO="U")
    if not len(squares) or float(squares[0]) <= 0.0:
        return None
    values = squares.sqrt()
    apart = abs(float(squares.log().sum()) - 2.0 * _log_volume(rows))
    error = apart * float(values.reciprocal().sum() / squares.reciprocal().sum()) / 2.0
    # A comparison with NaN is false.
    known = apart <= APART and error + left_out <= ACCEPTED
    return float(values.sum()) if known else None


def _log_volume(rows: Tensor) -> float:
    """Return Σ ln σ of a matrix (r, k), r ≤ k, of full rank: ln|det| where it is square."""
    if rows.shape[0] == rows.shape[1]:
        return float(torch.linalg.slogdet(rows.T).logabsdet)
    return float(torch.geqrf(rows.T)[0].diagonal().abs().log().sum())


def upper_product(a: Tensor) -> Tensor:
    """Return the upper triangle of aᵀa, a (n, k); what is below it is anything.

    It is made of block rows, for two thirds of the work of the whole.
    """
    k = a.shape[1]
    if k <= BLOCK:
        return a.T @ a
    product = a.new_zeros(k, k)
    for start in range(0, k, BLOCK):
        end = min(start + BLOCK, k)
        torch.mm(a[:, start:end].T, a[:, start:], out=product[start:end, start:])
    return product
