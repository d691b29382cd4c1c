"""Linear CKA, biased and debiased, from what is known of two representations of norm 1."""

from __future__ import annotations

import math

from torch import Tensor

ROUNDING = 1e-12
"""A quantity this small next to the terms it was subtracted from is float64 rounding."""


def hsic(cross: float, energy_x: Tensor, energy_y: Tensor) -> float:
    """HSIC₁ up to 1/(n(n−3)): ‖XᵀY‖²_F − n/(n−2)·Σkᵢlᵢ + tr K·tr L/((n−1)(n−2)).

    k and l, the row energies (n,), are the diagonals of K = XXᵀ and L = YYᵀ, whose traces are 1.
    """
    n = energy_x.shape[0]
    return cross - n / (n - 2) * float(energy_x @ energy_y) + 1.0 / ((n - 1) * (n - 2))


def self_hsic(gram_norm: float, row_energy: Tensor) -> float:
    """HSIC₁(X, X) from ‖XᵀX‖_F and the row energies (n,), NaN if it is rounding noise."""
    found = hsic(gram_norm**2, row_energy, row_energy)
    return math.nan if found <= ROUNDING * gram_norm**2 else found


def cka_distance(cross: float, gram_norm_x: float, gram_norm_y: float) -> float:
    """1 − ‖XᵀY‖²_F / (‖XᵀX‖_F ‖YᵀY‖_F), ``cross`` being the numerator."""
    return min(1.0, max(0.0, 1.0 - cross / (gram_norm_x * gram_norm_y)))


def debiased_cka_distance(hsic_xy: float, self_hsic_x: float, self_hsic_y: float) -> float:
    """1 − HSIC₁(X,Y) / √(HSIC₁(X,X)·HSIC₁(Y,Y)); NaN where a self-HSIC₁ is."""
    # max in this order keeps NaN
    return max(1.0 - hsic_xy / math.sqrt(self_hsic_x * self_hsic_y), 0.0)
