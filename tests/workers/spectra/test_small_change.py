"""The distance of what is near, against pairs whose distance is known without a cancellation.

X = U·diag(a) and Y = (X + R)·Q, where XᵀR is symmetric and small next to XᵀX: then Xᵀ(X + R) is
symmetric and positive, Q is the best turn, and the distance is ‖R‖.
"""

import math

import pytest
import torch
from state_pairs import centred_orthonormal, exact_distance, gaussian, rotation, seeded

from workers.spectra.small_change import small_distance


def pair(n, k, size, falls, turned=True):
    """Return P, its energies, Y and ‖R‖; energies fall by ``falls`` powers of ten."""
    generator = seeded(n + k)
    u = centred_orthonormal(n, k, generator)
    a = torch.logspace(-falls / 2, 0, k, dtype=torch.float64)
    a = a / a.norm()
    drawn = gaussian(k, k, generator)
    symmetric = (drawn + drawn.T) * a[:, None] * a
    symmetric *= torch.minimum(a[:, None], a) / torch.maximum(a[:, None], a)
    residual = u @ (size * symmetric / a[:, None])
    x = u * a
    y = x + residual
    assert float(torch.linalg.eigvalsh(x.T @ y)[0]) > 0
    return x, a.square(), y @ rotation(k, generator) if turned else y, float(residual.norm())


def distance(x, energies, y):
    return small_distance(x, energies, y, x.T @ y)


@pytest.mark.parametrize("falls", [0, 4, 8])
@pytest.mark.parametrize("size", [1e-8, 1e-6, 1e-5, 4e-5])
@pytest.mark.parametrize(("n", "k"), [(60, 40), (200, 64)])
def test_is_exact_to_rounding(n, k, size, falls):
    x, energies, y, truth = pair(n, k, size, falls)
    assert distance(x, energies, y) == pytest.approx(truth, abs=2e-15)


@pytest.mark.parametrize("share", [0.001, 0.003])
def test_is_exact_where_rows_are_as_far_from_orthogonal_as_is_taken(share):
    """Of what is not tiny but has rows of one length, as after a norm without weights."""
    x, energies, y, _ = pair(12, 3, 0.0, 1)
    y = y + share * gaussian(12, 3, seeded(3)) * x.std()
    y = y - y.mean(dim=0)
    y = y / y.norm()
    truth = exact_distance(x, y)
    assert 0.5 * share < truth
    assert distance(x, energies, y) == pytest.approx(truth, abs=1e-14)


@pytest.mark.parametrize("short", [3e-7, 1e-6])
def test_axes_that_are_off_by_rounding_do_not_turn_the_long_ones(short):
    """Energies near 1e-13 are known to a thousandth, and their axes are off by as much."""
    for seed in range(20):
        generator = seeded(seed)
        x = centred_orthonormal(20, 2, generator) * torch.tensor([1.0, short], dtype=torch.float64)
        x = x @ rotation(2, generator)
        energies, axes = torch.linalg.eigh(x.T @ x)
        found = distance(x @ axes, energies, x @ rotation(2, generator))
        assert found is None or found < 1e-12


@pytest.mark.parametrize("energy", [0.0, 1e-33])
def test_one_direction_of_rounding_is_left_out_and_what_lies_there_counts(energy):
    """Rows that are centred have one; a state may have grown into it."""
    x, energies, y, truth = pair(60, 40, 1e-6, 4, turned=False)
    turn = rotation(41, seeded(7))
    wide_x = torch.cat([math.sqrt(energy) * torch.ones(60, 1, dtype=torch.float64), x], dim=1)
    span = torch.linalg.qr(x).Q
    beside = gaussian(60, 1, seeded(8))
    beside = 3e-6 * torch.nn.functional.normalize(beside - span @ (span.T @ beside), dim=0)
    wide_y = torch.cat([beside, y], dim=1) @ turn
    energies = torch.cat([torch.tensor([energy], dtype=torch.float64), energies])
    assert distance(wide_x, energies, wide_y) == pytest.approx(math.hypot(truth, 3e-6), abs=2e-15)


def test_what_was_nearly_nothing_in_the_direction_left_out_is_compared_too():
    """Its energy may come out as rounding, and below it, while its length is 1e-8."""
    x, energies, y, truth = pair(60, 40, 1e-6, 4, turned=False)
    along = gaussian(60, 1, seeded(8))
    span = torch.linalg.qr(x).Q
    along = 1e-8 * torch.nn.functional.normalize(along - span @ (span.T @ along), dim=0)
    energies = torch.cat([torch.tensor([-1e-17], dtype=torch.float64), energies])
    for sign in (1.0, -1.0):
        turned = torch.cat([sign * along, y], dim=1) @ rotation(41, seeded(7))
        found = distance(torch.cat([along, x], dim=1), energies, turned)
        assert found == pytest.approx(truth, abs=2e-15)


def test_a_feature_twice_leaves_out_a_direction_orthogonal_to_the_sum_of_all():
    generator = seeded(5)
    x = centred_orthonormal(60, 12, generator)[:, [0, 0, *range(2, 12)]]
    y = x + 1e-6 * gaussian(60, 12, generator)[:, [0, 0, *range(2, 12)]]
    x, y = (one - one.mean(dim=0) for one in (x, y))
    x, y = (one / one.norm() for one in (x, y))
    energies, axes = torch.linalg.eigh(x.T @ x)
    energies[0] = -1e-18  # as it comes out for one of two
    for order in (list(range(12)), [1, 0, *range(2, 12)], [5, *range(1, 5), 0, *range(6, 12)]):
        found = distance(x @ axes, energies, y[:, order])
        assert found == pytest.approx(exact_distance(x, y), abs=5e-14)


def test_two_such_directions_are_too_many():
    x, energies, y, _ = pair(60, 40, 1e-6, 4)
    wide_x, wide_y = (torch.nn.functional.pad(one, (2, 0)) for one in (x, y))
    assert distance(wide_x, torch.nn.functional.pad(energies, (2, 0)), wide_y) is None


def test_what_is_far_has_none():
    x, energies, y, _ = pair(60, 40, 1e-6, 4)
    assert distance(x, energies, gaussian(60, 40, seeded(1)) / 50) is None
    assert distance(x, energies, y * 1.01) is None
    y[3, 3] = math.nan
    assert distance(x, energies, y) is None


@pytest.mark.parametrize("energy", [0.0, 1e-30, 1e-17])
def test_the_direction_that_centred_rows_lack_is_left_out_whatever_its_energy_is_said_to_be(energy):
    """Where rows are no more than features; a GPU's eigenvalues have an error of 1e-17."""
    generator = seeded(5)
    n = 24
    u = torch.cat([torch.full((n, 1), n**-0.5), centred_orthonormal(n, n - 1, generator)], dim=1)
    a = torch.cat([torch.zeros(1), torch.linspace(0.1, 1, n - 1)]).double()
    a = a / a.norm()
    x = u * a
    drawn = gaussian(n, n, generator)
    y = x + 1e-6 * (u * a) @ (drawn + drawn.T)
    y = (y - y.mean(dim=0)) @ rotation(n, generator)
    y = y / y.norm()
    energies = a.square()
    energies[0] = energy
    found = distance(x, energies, y)
    assert found == pytest.approx(exact_distance(x, y), abs=1e-14)
