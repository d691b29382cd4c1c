"""The nuclear norm by eigenvalues, against singular values: where it is as good, and where not.

Singular values have an absolute error of about 1e-15 here; agreement is asked for within 2e-14,
which is 1e-14 in nuc twice over and what `compare` needs for its 1e-12 in d².
"""

from __future__ import annotations

import pytest
import torch
from state_pairs import correlated_pair, gaussian, rotation, seeded
from torch import Tensor

from workers.probes.similarity import Reference, compare, current_of
from workers.spectra import nuclear_norm as under_test
from workers.spectra.nuclear_norm import (
    nuclear_norm,
    nuclear_norm_of_rows,
    symmetric_product,
    upper_product,
)

AGREES = 2e-14


def graded_of(x: Tensor, y: Tensor) -> Tensor:
    reference = Reference.of(x)
    assert reference.principal is not None
    return reference.principal.T @ current_of(y).coordinates


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


def by_rows(x: Tensor, y: Tensor) -> float | None:
    """The norm by products of rows alone, of states with fewer rows than features."""
    principal = Reference.of(x).principal
    assert principal is not None
    principal = principal[:, 1:]
    centred = y - y.mean(dim=0)
    unit = centred / torch.linalg.matrix_norm(centred)
    products = unit @ unit.T
    squares = upper_product(principal, products @ principal)
    return nuclear_norm_of_rows(principal, products, squares, y.shape[1])


@pytest.mark.parametrize(("n", "d"), [(24, 300), (64, 96), (300, 1000)])
@pytest.mark.parametrize("power", [0.0, 0.5, 1.0, 1.5])
@pytest.mark.parametrize("change", [1e-3, 0.1, 1.0])
def test_products_of_rows_are_enough_where_both_spectra_fall_alike(
    n: int, d: int, power: float, change: float
) -> None:
    x = falling(n, d, power, 15)
    y = x + change * falling(n, d, power, 17)
    assert by_rows(x, y) == pytest.approx(singular_values(graded_of(x, y)), abs=AGREES)


@pytest.mark.parametrize("fall", [2.0, 3.0, 4.0, 6.0, 9.0])
@pytest.mark.parametrize("kept", [0.0, 1.0])
def test_where_rounding_of_rows_would_show_they_are_not_enough(fall: float, kept: float) -> None:
    """The state's own products hide what of it is below 1e-8: none, or as right as the rest."""
    x = falling(60, 200, 0.5, 19)
    y = kept * x * 1e-3 + falling(60, 200, fall, 21)
    found = by_rows(x, y)
    exact = singular_values(graded_of(x, y))
    assert found is None or found == pytest.approx(exact, abs=AGREES)
    assert 2 - compare(x, y).procrustes ** 2 == pytest.approx(2 * exact, abs=2 * AGREES)


def test_rows_that_say_the_same_twice_are_not_enough() -> None:
    x = gaussian(40, 90, seeded(23))
    y = gaussian(40, 90, seeded(24))
    y[20:] = y[:20]
    assert by_rows(x, y) is None
    x[20:] = x[:20]
    assert by_rows(x, gaussian(40, 90, seeded(25))) is None


def test_a_wide_state_that_has_changed_is_not_factorised(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = correlated_pair(60, 200, seeded(26))
    reference = Reference.of(x)
    expected = compare(reference, y)

    def refuse(*_: object) -> None:
        raise AssertionError("a QR factorisation was computed")

    monkeypatch.setattr(torch, "geqrf", refuse)
    assert compare(reference, y) == expected
    with pytest.raises(AssertionError, match="a QR"):
        compare(reference, x)


@pytest.mark.parametrize("k", [3, 255, 256, 257, 700])
def test_the_upper_triangle_is_that_of_the_product(k: int) -> None:
    a = gaussian(40, k, seeded(14))
    b = gaussian(40, 40, seeded(16))
    b = (b @ b.T) @ a / 40
    torch.testing.assert_close(upper_product(a).triu(), (a.T @ a).triu(), rtol=0, atol=1e-12)
    torch.testing.assert_close(upper_product(a, b).triu(), (a.T @ b).triu(), rtol=0, atol=1e-12)
    torch.testing.assert_close(symmetric_product(a), a.T @ a, rtol=0, atol=1e-12)
