"""The nuclear norm by products alone, as an accelerator has it, against singular values.

Run on a CPU, where it is slower and the same; on a GPU it is a check of ``tests/gpu``.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from state_pairs import (
    TIGHT,
    assert_same_distances,
    correlated_pair,
    exact_distance,
    gaussian,
    properties,
    rotation,
    seeded,
    seeds,
)
from torch import Tensor

from workers.probes import similarity
from workers.probes.similarity import Reference, compare, current_of
from workers.spectra import nuclear_norm, polar_products
from workers.spectra.polar_products import LEAST, POLYNOMIALS, nuclear_norm_by_products

# Singular values have an absolute error of about 1e-15, too.
AGREES = 1e-14


def applied(values: np.ndarray, polynomials: object = POLYNOMIALS) -> np.ndarray:
    for a, b, c in polynomials:  # type: ignore[attr-defined]
        squares = values * values
        values = values * (a + squares * (b + squares * c))
    return values


def test_all_singular_values_that_count_end_at_one_within_rounding() -> None:
    values = np.concatenate([np.geomspace(LEAST, 1, 20001), np.linspace(1e-4, 1, 5001)])
    assert np.abs(applied(values) - 1).max() <= 4 * np.finfo(float).eps
    smaller = applied(np.geomspace(1e-30, LEAST, 1001))
    assert smaller.min() > 0
    assert smaller.max() <= 1 + 4 * np.finfo(float).eps


def test_each_polynomial_is_the_best_of_its_degree_for_what_the_one_before_has_left() -> None:
    """The error of the best one has its largest size at four points, of alternating signs
    (Chebyshev); intervals begin at no less than 1e-4, or steps would overshoot for nothing."""
    low, high = LEAST, 1.0
    for polynomial in POLYNOMIALS[:-2]:
        a, b, c = polynomial
        first = max(low, 1e-4)
        root = math.sqrt(9 * b * b - 20 * a * c)
        turns = [math.sqrt((-3 * b + sign * root) / (10 * c)) for sign in (-1, 1)]
        if polynomial == polar_products.STEADY:  # the best for all that it keeps below 2
            high = max(high, 2 - a * first)
        errors = 1 - applied(np.array([first, *turns, high]), [polynomial])
        assert errors * [1, -1, 1, -1] == pytest.approx([errors[0]] * 4, rel=1e-3, abs=1e-4)
        # The next has to serve what lies below the interval, too.
        low = min(float(applied(np.array([low]), [polynomial])[0]), 1 - errors[0])
        high = 1 + errors[0]
    assert 0.99 < low < 1  # the last two converge by their order


def unit(matrix: Tensor) -> Tensor:
    return matrix / torch.linalg.matrix_norm(matrix)


@properties
@given(seeds)
def test_it_is_the_sum_of_singular_values_of_any_fall(seed: int) -> None:
    drawn = seeded(seed)
    rows = int(torch.randint(1, 40, (), generator=drawn))
    columns = rows + int(torch.randint(0, 20, (), generator=drawn))
    fall = torch.logspace(0, -float(torch.rand((), generator=drawn)) * 16, rows).double()
    turned = rotation(rows, drawn) * fall @ gaussian(rows, columns, drawn)
    matrix = unit(turned)
    found = nuclear_norm_by_products(matrix)
    assert found == pytest.approx(float(torch.linalg.svdvals(matrix).sum()), abs=AGREES)


@pytest.mark.parametrize("kind", ["nought", "of rank one", "half of the rank", "a zero row"])
def test_what_lacks_directions_is_as_exact(kind: str) -> None:
    matrix = gaussian(12, 20, seeded(3))
    if kind == "nought":
        matrix.zero_()
    elif kind == "of rank one":
        matrix = matrix[:, :1] @ matrix[:1]
    elif kind == "half of the rank":
        matrix = matrix[:, :6] @ gaussian(6, 20, seeded(4))
    else:
        matrix[5] = 0.0
    scaled = matrix if kind == "nought" else unit(matrix)
    found = nuclear_norm_by_products(scaled)
    assert found == pytest.approx(float(torch.linalg.svdvals(scaled).sum()), abs=AGREES)


@pytest.mark.parametrize("spoilt", ["stretched", "turned", "not finite"])
def test_a_factor_that_is_none_is_noticed(spoilt: str, monkeypatch: pytest.MonkeyPatch) -> None:
    matrix = unit(gaussian(12, 12, seeded(5)))
    right = polar_products.polar_factor(matrix)
    amiss = {
        "stretched": right * (1 + 1e-12),
        "turned": rotation(12, seeded(6)) @ right,
        "not finite": right * math.nan,
    }
    monkeypatch.setattr(polar_products, "polar_factor", lambda _: amiss[spoilt])
    assert nuclear_norm_by_products(matrix) is None
    assert nuclear_norm.nuclear_norm(matrix) == pytest.approx(
        float(torch.linalg.svdvals(matrix).sum()), abs=AGREES
    )


@pytest.fixture
def on_an_accelerator(monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """Take the way of an accelerator, and return what singular values are computed of."""
    taken: list[Tensor] = []
    svdvals = torch.linalg.svdvals
    for module in (nuclear_norm, similarity):
        monkeypatch.setattr(module, "prefers_products", lambda _: True)
    monkeypatch.setattr(torch.linalg, "svdvals", lambda m: taken.append(m) or svdvals(m))
    return taken


@pytest.mark.parametrize(("n", "d"), [(120, 48), (48, 120), (5, 24), (24, 24)])
def test_metrics_of_an_accelerator_are_those_of_a_cpu(
    n: int, d: int, request: pytest.FixtureRequest
) -> None:
    x, y = correlated_pair(n, d, seeded(n))
    on_a_cpu = compare(x, y)
    taken = request.getfixturevalue("on_an_accelerator")
    there = compare(x, y)
    assert not taken
    assert_same_distances(there, on_a_cpu)
    assert there.subspace_overlap == pytest.approx(on_a_cpu.subspace_overlap, abs=TIGHT)
    assert there.effective_rank == pytest.approx(on_a_cpu.effective_rank, rel=TIGHT)
    assert compare(x, x).procrustes == 0.0


@pytest.mark.usefixtures("on_an_accelerator")
@pytest.mark.parametrize("noise", [0.0, 1e-7, 1e-4])
def test_a_distance_is_exact_where_spectra_fall_into_noise(noise: float) -> None:
    """As hidden states do that are computed in float32 or less."""
    lengths = torch.logspace(0, -4, 30, dtype=torch.float64)
    x = gaussian(100, 30, seeded(7)) * lengths @ gaussian(30, 40, seeded(8))
    y = x + 0.05 * gaussian(100, 30, seeded(9)) * lengths @ gaussian(30, 40, seeded(10))
    x, y = (m + noise * gaussian(100, 40, seeded(k)) for k, m in enumerate((x, y), 11))
    reference = Reference.of(x)
    found = similarity.procrustes_distance(
        reference, current_of(y), reference.principal.T @ current_of(y).coordinates
    )
    assert found == pytest.approx(exact_distance(x, y), rel=TIGHT)
