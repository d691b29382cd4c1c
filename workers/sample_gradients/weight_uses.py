"""What one weight gives to the gradient of each of B examples, and the squares of its norms.

A weight W (r, c) that T tokens of an example meet has the gradient Σ_t R_t ⊗ C_t, with R (B, T, r)
and C (B, T, c): of a linear map y = W x these are the gradients of y and the x. Its squared norm is
Σ_ts (R_t·R_s)(C_t·C_s), the Gram trick (Goodfellow 2015, arXiv 1510.01799; Li et al. 2022,
arXiv 2110.05679), for which no example's gradient is made. Where an example has so many tokens that
the two Gram matrices would be larger than the gradient is, that is made instead, for a few examples
at a time (Bu et al. 2022, arXiv 2205.10683).

A weight may be met several times, as one that embeds and predicts: what it is given in all of the
calls is added up before the norm is taken.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

# Numbers that are made at once, at most, beside what a single example needs.
AT_ONCE = 1 << 24


@dataclass
class WeightUses:
    """What a weight was given in a forward and a backward pass of B examples.

    Attributes:
        shape: of the weight.
        awaited: how many of its uses the backward pass has still to come to.
        products: pairs R, C as above, one a use.
        lookups: pairs of numbers of rows (B, T) and gradients of these rows (B, T, c), one a use.
        whole: gradients (B, *shape) of uses of which there is nothing smaller.
    """

    shape: tuple[int, ...]
    awaited: int = 0
    products: list[tuple[Tensor, Tensor]] = field(default_factory=list)
    lookups: list[tuple[Tensor, Tensor]] = field(default_factory=list)
    whole: Tensor | None = None

    def add_whole(self, gradients: Tensor) -> None:
        """Add gradients (B, *shape)."""
        self.whole = gradients if self.whole is None else self.whole + gradients

    def squares(self) -> Tensor | None:
        """Return the squared norms, (B,) float64, and let go of what they are made of; None where
        there was no use."""
        products, lookups, whole = self._joined()
        self.products, self.lookups, self.whole = [], [], None
        if whole is not None:
            for part in (*products, *lookups):
                whole = whole + self._made(*part)
            return _squares(whole)
        found = None
        if products:
            found = _squares_of_products(*products[0])
        if lookups:
            rows, gradients = lookups[0]
            own = _squares_of_lookups(rows, gradients)
            found = own if found is None else found + own
        if products and lookups:
            assert found is not None
            found = found + 2 * _meeting(*products[0], *lookups[0])
        return None if found is None else found.clamp(min=0)

    def _joined(
        self,
    ) -> tuple[list[tuple[Tensor, Tensor]], list[tuple[Tensor, Tensor]], Tensor | None]:
        """Return the uses of a kind as one, over the tokens of all of them."""
        both = []
        for uses in (self.products, self.lookups):
            sides = [torch.cat(side, dim=1) for side in zip(*uses, strict=True)]
            both.append([(sides[0], sides[1])] if sides else [])
        return both[0], both[1], self.whole

    def _made(self, rows: Tensor, columns: Tensor) -> Tensor:
        """Return the gradients (B, *shape) of a pair of products or of lookups."""
        if rows.is_floating_point():
            return torch.einsum("btr,btc->brc", rows, columns)
        found = columns.new_zeros((len(rows), *self.shape))
        return found.scatter_add_(1, rows.unsqueeze(-1).expand_as(columns), columns)


def _squares_of_products(rows: Tensor, columns: Tensor) -> Tensor:
    """Return ‖Σ_t R_t ⊗ C_t‖², (B,), of R (B, T, r) and C (B, T, c)."""
    _, tokens, r = rows.shape
    c = columns.shape[2]
    if tokens == 1:
        return _squares(rows) * _squares(columns)
    if tokens * (r + c) <= r * c:
        parts = _parts(rows, columns, 2 * tokens * tokens)
        return torch.cat([_sums(_gram(a) * _gram(b)) for a, b in parts])
    parts = _parts(rows, columns, r * c)
    return torch.cat([_squares(a.mT @ b) for a, b in parts])


def _squares_of_lookups(rows: Tensor, gradients: Tensor) -> Tensor:
    """Return ‖Σ_t e(row_t) ⊗ D_t‖², (B,): tokens that look up one row add up in it."""
    same = rows.unsqueeze(2) == rows.unsqueeze(1)
    return _sums(_gram(gradients) * same)


def _meeting(rows: Tensor, columns: Tensor, looked_up: Tensor, gradients: Tensor) -> Tensor:
    """Return ⟨Σ_t R_t ⊗ C_t, Σ_s e(row_s) ⊗ D_s⟩, (B,) = Σ_ts R_t[row_s] (C_t·D_s)."""
    numbers = looked_up.unsqueeze(1).expand(-1, rows.shape[1], -1)
    return _sums(rows.gather(2, numbers) * (columns @ gradients.mT))


def _gram(vectors: Tensor) -> Tensor:
    return vectors @ vectors.mT


def _squares(values: Tensor) -> Tensor:
    """Return the squared norms over all but the first axis, in float64."""
    norms: Tensor = torch.linalg.vector_norm(values.flatten(1), dim=1)
    return norms.double().square()


def _sums(values: Tensor) -> Tensor:
    """Return the sum over all but the first axis, in float64."""
    return values.flatten(1).sum(1, dtype=torch.float64)


def _parts(one: Tensor, other: Tensor, numbers: int) -> zip[tuple[Tensor, Tensor]]:
    """Cut two tensors along the examples, of each of which so many ``numbers`` will be made."""
    size = max(1, AT_ONCE // numbers)
    return zip(torch.split(one, size), torch.split(other, size), strict=True)
