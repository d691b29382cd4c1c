"""Pairs of matrices to compare, and the metrics of a pair by their definitions, slowly.

Tolerances: see tests/workers/probes/test_similarity.py.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import settings
from hypothesis import strategies as st
from torch import Tensor

from workers.probes.similarity import (
    Change,
)

TIGHT = 1e-12
LOOSE = 1e-9

properties = settings(max_examples=60, deadline=None)
seeds = st.integers(min_value=0, max_value=2**32 - 1)
rows = st.integers(min_value=5, max_value=24)
features = st.integers(min_value=1, max_value=24)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def gaussian(n: int, d: int, generator: torch.Generator) -> Tensor:
    return torch.randn(n, d, dtype=torch.float64, generator=generator)


def rotation(d: int, generator: torch.Generator) -> Tensor:
    q: Tensor = torch.linalg.qr(gaussian(d, d, generator)).Q
    return q


def centred_orthonormal(n: int, k: int, generator: torch.Generator) -> Tensor:
    """(n, k) orthonormal columns, each of mean zero; needs k < n."""
    draws = gaussian(n, k, generator)
    q: Tensor = torch.linalg.qr(draws - draws.mean(dim=0)).Q
    return q


def correlated_pair(n: int, d: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Two (n, d) matrices that share half of their variance, with uneven features and offsets."""
    x = gaussian(n, d, generator) * torch.logspace(0, -2, d, dtype=torch.float64) + 3.0
    y = x @ rotation(d, generator) + gaussian(n, d, generator) * x.std()
    return x, y


def slow_change(x: Tensor, y: Tensor) -> Change:
    """The definitions, written out with d×d and n×n matrices in numpy."""
    a, b = x.numpy(), y.numpy()
    n = len(a)
    a_c, b_c = a - a.mean(axis=0), b - b.mean(axis=0)
    a_1, b_1 = a_c / np.linalg.norm(a_c), b_c / np.linalg.norm(b_c)
    nuclear = np.linalg.svd(a_1.T @ b_1)[1].sum()
    cka = np.linalg.norm(a_1.T @ b_1) ** 2 / (
        np.linalg.norm(a_1.T @ a_1) * np.linalg.norm(b_1.T @ b_1)
    )

    def hsic(k: np.ndarray, l_: np.ndarray) -> float:
        """Song et al. (2012), equation 5, on kernels that were never centred."""
        k, l_ = k - np.diag(np.diag(k)), l_ - np.diag(np.diag(l_))
        one = np.ones(n)
        middle = (one @ k @ one) * (one @ l_ @ one) / ((n - 1) * (n - 2))
        total = np.trace(k @ l_) + middle - 2 / (n - 2) * (one @ k @ l_ @ one)
        return float(total / (n * (n - 3)))

    k, l_ = a @ a.T, b @ b.T
    shares = np.linalg.svd(b_1, compute_uv=False) ** 2
    shares = shares[shares > 0]
    directions, lengths, _ = np.linalg.svd(a_1, full_matrices=False)
    leading = directions[:, : rank(lengths**2, 0.95)]
    return Change(
        procrustes=float(np.sqrt(max(0.0, 2 - 2 * nuclear))),
        cka_distance=float(1 - cka),
        cka_distance_debiased=1 - hsic(k, l_) / math.sqrt(hsic(k, k) * hsic(l_, l_)),
        mean_shift=float(
            np.linalg.norm(b.mean(axis=0) - a.mean(axis=0)) / np.linalg.norm(a_c) * np.sqrt(n)
        ),
        scale_log_ratio=float(np.log(np.linalg.norm(b_c) / np.linalg.norm(a_c))),
        effective_rank=float(np.exp(-(shares * np.log(shares)).sum())),
        rank_95=float(rank(shares, 0.95)),
        rank_99=float(rank(shares, 0.99)),
        subspace_overlap=float(np.linalg.norm(leading.T @ b_1) ** 2),
    )


def rank(energies: np.ndarray, fidelity: float) -> int:
    """The smallest number of the energies, descending, that hold a share of them."""
    held = 0.0
    for number, energy in enumerate(energies, start=1):
        held += energy / energies.sum()
        if held >= fidelity - 1e-9:
            return number
    return len(energies)


def assert_same_distances(one: Change, other: Change) -> None:
    """Equal procrustes, CKA and debiased CKA; d² because its error, not d's, is constant."""
    assert one.procrustes**2 == pytest.approx(other.procrustes**2, abs=TIGHT)
    assert one.cka_distance == pytest.approx(other.cka_distance, abs=TIGHT)
    assert one.cka_distance_debiased == pytest.approx(other.cka_distance_debiased, abs=LOOSE)


EXTENDED = float(np.finfo(np.longdouble).eps)
"""About 1e-19 on x86; where it is float64's own there is no extended precision."""


def exact_distance(x: Tensor, y: Tensor) -> float:
    """Return the Procrustes distance of X and Y (n, d) as they lie in memory.

    A pair that is made to have a known distance has it only within the rounding of its making,
    which 2 − 2·nuc enlarges. Here nuc = ‖XᵀY‖_* is summed in extended precision: with singular
    vectors pᵢ, qᵢ in float64, which are off by e ≈ 1e-15, Σ (Xpᵢ)·(Yqᵢ) is off by what their
    lengths are, which is taken off, and by e² of the sum. Of thousands of features it takes
    minutes: numpy has no fast product for such numbers.
    """
    units = [_extended_unit(one) for one in (x, y)]
    first, second = (torch.from_numpy(unit.astype(np.float64)) for unit in units)
    vectors = _singular_vectors(first, second)
    along = [
        unit @ turned.astype(np.longdouble) for unit, turned in zip(units, vectors, strict=True)
    ]
    overlaps = (along[0] * along[1]).sum(axis=0)
    lengths = sum((turned.astype(np.longdouble) ** 2).sum(axis=0) - 1 for turned in vectors)
    nuclear = (overlaps - overlaps * lengths / 2).sum()
    return float(np.sqrt(2 - 2 * nuclear))


def _extended_unit(x: Tensor) -> np.ndarray:
    wide = x.numpy().astype(np.longdouble)
    wide = wide - wide.sum(axis=0) / len(wide)
    unit: np.ndarray = wide / np.sqrt((wide * wide).sum())
    return unit


def _singular_vectors(x: Tensor, y: Tensor) -> list[np.ndarray]:
    """Return those of XᵀY (d, k), of its two sides, from coordinates in the two spaces of rows."""
    (axes_x, left), (axes_y, right) = torch.linalg.qr(x.T), torch.linalg.qr(y.T)
    u, _, vh = torch.linalg.svd(left @ right.T)
    return [(axes_x @ u).numpy(), (axes_y @ vh.T).numpy()]
