"""What can be compared at all: matrices of enough rows, whose values are finite."""

from __future__ import annotations

import torch
from torch import Tensor

MINIMUM_ROWS = 4
"""HSIC₁ is an average over quadruples of rows: at n = 3 it is 0/0 for every input."""


class Incomparable(ValueError):
    """A state that has no distance to anything: not finite, or the same in every row."""


def check_input(x: Tensor, label: str) -> None:
    """Raise ValueError or Incomparable for what has no distance to anything."""
    if x.ndim != 2:
        raise ValueError(
            f"{label}: expected a matrix (rows, features), got shape {tuple(x.shape)}; "
            "select the probe rows first, one row per token"
        )
    n, d = x.shape
    if n < MINIMUM_ROWS or d < 1:
        raise ValueError(
            f"{label}: {n} rows of {d} features; the debiased CKA needs at least {MINIMUM_ROWS} "
            "rows and one feature: use more probe tokens"
        )
    # A sum is finite only if all of its terms are, and costs a tenth of looking at each.
    if bool(x.sum(dtype=torch.float64).isfinite()):
        return
    finite = torch.isfinite(x)
    if not bool(finite.all()):
        row, column = torch.nonzero(~finite)[0].tolist()
        raise Incomparable(
            f"{label}: {int((~finite).sum())} of {x.numel()} values are not finite, the first at "
            f"row {row}, feature {column}; run the probe forward in float32, and if it already is, "
            "the model has diverged"
        )
