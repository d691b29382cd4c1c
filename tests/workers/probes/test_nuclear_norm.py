"""The nuclear norm by eigenvalues, against singular values: where it is as good, and where not.

Singular values have an absolute error of about 1e-15 here; agreement is asked for within 2e-14,
which is 1e-14 in nuc twice over and what `compare` needs for its 1e-12 in d².
"""

from __future__ import annotations

import pytest
import torch
from state_pairs import correlated_pair, gaussian, rotation, seeded
from torch import Tensor

from workers.probes import nuclear_norm as under_test
from workers.probes.nuclear_norm import nuclear_norm, upper_product
from workers.probes.similarity import Reference, current_of

AGREES = 2e-14


def graded_of(x: Tensor, y: Tensor) -> Tensor:
    reference = Reference.of(x)
    assert reference.axes is not None
    return reference.axes.T @ (reference.coordinates.T @ current_of(y).coordinates)


def falling(n: int, d: int, power: float, seed: int) -> Tensor:
    """(n, d) features of lengths 1/iᵖ, turned."""
    lengths = torch.arange(1, d + 1, dtype=torch.float64) ** -power
    return gaussian(n, d, seeded(seed)) * lengths @ rotation(d, seeded(seed + 1))


@pytest.fixture
def no_singular_values(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("singular values were computed")

    monkeypatch.setattr(torch.linalg, "svdvals", refuse)


def singular_values(core: Tensor) -> float:
    return float(torch.linalg.svd(core).S.sum())


@pytest.mark.usefixtures("no_singular_values")
@pytest.mark.parametrize(("n", "d"), [(128, 64), (300, 96), (64, 96), (600, 300)])
@pytest.mark.parametrize("power", [0.0, 0.5, 1.0, 1.5])
@pytest.mark.parametrize("change", [1e-4, 0.1, 1.0])
def test_spectra_of_any_fall_need_no_singular_values(
    n: int, d: int, power: float, change: float
) -> None:
    x = falling(n, d, power, 1)
    graded = graded_of(x, x + change * falling(n, d, power, 3))
    assert nuclear_norm(graded) == pytest.approx(singular_values(graded), abs=AGREES)


def test_without_the_order_of_axes_eigenvalues_alone_are_wrong() -> None:
    """What the check is for: axes that grade nothing, spectra that fall."""
    x = falling(300, 96, 2.0, 5)
    core = rotation(96, seeded(8)) @ graded_of(x, x + 0.3 * falling(300, 96, 2.0, 7))
    alone = torch.linalg.eigvalsh(core @ core.T).clamp_min(0).sqrt().sum()
    assert abs(float(alone) - singular_values(core)) > 100 * AGREES
    assert nuclear_norm(core) == pytest.approx(singular_values(core), abs=AGREES)


@pytest.mark.parametrize("kind", ["dead feature", "half of the rank", "graded where x is flat"])
def test_what_has_lost_directions_of_the_reference_is_as_exact(kind: str) -> None:
    x, y = correlated_pair(200, 60, seeded(9))
    if kind == "dead feature":
        y[:, 3] = 1.0
    elif kind == "half of the rank":
        y = y[:, :30] @ gaussian(30, 60, seeded(10))
    else:
        x, y = gaussian(200, 60, seeded(11)), falling(200, 60, 5.0, 12)
    graded = graded_of(x, y)
    assert nuclear_norm(graded) == pytest.approx(singular_values(graded), abs=AGREES)


@pytest.mark.usefixtures("no_singular_values")
def test_directions_that_both_have_lost_are_left_out() -> None:
    x, y = correlated_pair(200, 60, seeded(13))
    x[:, 5] = y[:, 7] = 2.0
    graded = graded_of(x, y)
    assert nuclear_norm(graded) == pytest.approx(singular_values(graded), abs=AGREES)


def test_what_is_not_finite_has_no_nuclear_norm_by_eigenvalues() -> None:
    core = torch.full((4, 4), torch.nan, dtype=torch.float64)
    found: float | None
    try:
        found = under_test._by_eigenvalues(core)
    except RuntimeError:  # torch.linalg.LinAlgError: it did not converge
        found = None
    assert found is None


@pytest.mark.parametrize("k", [3, 255, 256, 257, 700])
def test_the_upper_triangle_is_that_of_the_product(k: int) -> None:
    a = gaussian(40, k, seeded(14))
    torch.testing.assert_close(upper_product(a).triu(), (a.T @ a).triu(), rtol=0, atol=1e-12)
