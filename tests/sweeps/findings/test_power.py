"""Power of the verdicts on a control: the table it was proposed with, and plain simulation."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from sweeps.findings.power import failure_rate_excluded, power, seeds_needed
from sweeps.findings.verdicts import DELTA

# cv, n, and P(persists), P(collapses) where 0, 0.1, 0.25, 0.5 and 1 of the slope is kept: found by
# simulation of seeds when the rule was proposed.
KEPT = (0, 0.1, 0.25, 0.5, 1)
TABLE = [
    (0.05, 3, (0, 1), (0, 0.96), (0.03, 0.05), (0.99, 0), (1, 0)),
    (0.1, 3, (0, 0.72), (0, 0.56), (0.03, 0.05), (0.69, 0), (1, 0)),
    (0.1, 5, (0, 0.99), (0, 0.92), (0.03, 0.05), (0.99, 0), (1, 0)),
    (0.2, 5, (0, 0.50), (0, 0.38), (0.03, 0.05), (0.64, 0), (1, 0)),
    (0.2, 10, (0, 0.93), (0, 0.78), (0.02, 0.05), (0.97, 0), (1, 0)),
    (0.3, 10, (0, 0.54), (0, 0.40), (0.03, 0.05), (0.74, 0), (1, 0)),
]


@pytest.mark.parametrize(("cv", "n", "cells"), [(row[0], row[1], row[2:]) for row in TABLE])
def test_the_operating_characteristics_of_the_rule_come_out(cv, n, cells):
    for kept, (persists, collapses) in zip(KEPT, cells, strict=True):
        assert power("persists", kept, cv, n) == pytest.approx(persists, abs=0.02)
        assert power("collapses", kept, cv, n) == pytest.approx(collapses, abs=0.02)


def simulated(kept, cv, n, correlation, draws=20_000, gate=False):
    """Return both probabilities from slopes of seeds, judged by the rule as it is written."""
    generator = np.random.default_rng(7)
    shared = cv**2 * np.array([[1, correlation], [correlation, 1]])
    slopes = generator.multivariate_normal([1, kept], shared, size=(draws, n))
    r, c = slopes[..., 0], slopes[..., 1]

    def bound(values, level):
        return stats.t.ppf(level, n - 1) * values.std(axis=1, ddof=1) / math.sqrt(n)

    low, high = c - 0.25 * r, c + 0.25 * r
    persists = low.mean(axis=1) - bound(low, 0.975) > 0
    under = low.mean(axis=1) + bound(low, 0.95) < 0
    collapses = under & (high.mean(axis=1) - bound(high, 0.95) > 0)
    known = r.mean(axis=1) - bound(r, 0.975) > 0 if gate else True
    return np.mean(persists & known), np.mean(collapses & known)


@pytest.mark.parametrize(
    ("kept", "cv", "n", "correlation"),
    [
        (0.45, 0.12, 4, 0.5),
        (0.0, 0.25, 7, 0.5),
        (-0.1, 0.15, 6, 0.9),
        (0.7, 0.4, 6, 0.0),
        (0.05, 0.2, 5, -0.5),
        (0.0, 0.1, 3, 0.999),
    ],
)
def test_power_is_what_simulated_seeds_give(kept, cv, n, correlation):
    persists, collapses = simulated(kept, cv, n, correlation)
    # Four standard errors of the slow simulation.
    assert power("persists", kept, cv, n, correlation=correlation) == pytest.approx(
        persists, abs=0.015
    )
    assert power("collapses", kept, cv, n, correlation=correlation) == pytest.approx(
        collapses, abs=0.015
    )


@pytest.mark.parametrize("cv", [0.1, 0.2, 0.35])
def test_with_the_seeds_needed_the_reference_is_almost_never_in_doubt(cv):
    n = max(seeds_needed("persists", 0.5, cv), seeds_needed("collapses", 0.0, cv))
    assert simulated(0.5, cv, n, 0.5, gate=True)[0] >= 0.79
    assert simulated(0.0, cv, n, 0.5, gate=True)[1] >= 0.79


@pytest.mark.parametrize(("verdict", "kept"), [("persists", 0.5), ("collapses", 0.0)])
@pytest.mark.parametrize("cv", [0.03, 0.1, 0.22, 0.3])
def test_the_seeds_needed_are_the_fewest_that_do(verdict, kept, cv):
    n = seeds_needed(verdict, kept, cv, 0.9)
    assert power(verdict, kept, cv, n) >= 0.9
    assert n == 3 or power(verdict, kept, cv, n - 1) < 0.9


def test_below_three_seeds_there_is_no_verdict():
    assert [power("persists", 1.0, 0.001, n) for n in (0, 1, 2)] == [0, 0, 0]
    assert seeds_needed("persists", 1.0, 0.001) == 3


def test_no_number_of_seeds_shows_what_is_not_so_or_lies_too_far_apart():
    assert seeds_needed("persists", 0.2, 0.05) is None
    assert seeds_needed("collapses", 0.3, 0.05) is None
    assert seeds_needed("collapses", 0.0, 2.0) is None
    assert seeds_needed("collapses", 0.0, 0.3, most=14) is None


@pytest.mark.parametrize("cv", [0, 1e-300, 1e-9])
@pytest.mark.parametrize("correlation", [-1, 0.5, 1])
def test_seeds_that_agree_leave_no_doubt(cv, correlation):
    def both(kept):
        return [power(v, kept, cv, 3, correlation=correlation) for v in ("persists", "collapses")]

    assert both(0.5) == [1, 0]
    assert both(0.0) == [0, 1]
    assert both(-0.5) == [0, 0]


def test_unanimous_seeds_exclude_only_frequent_failure():
    assert failure_rate_excluded(3) == pytest.approx(0.63, abs=0.005)
    assert failure_rate_excluded(5) == pytest.approx(0.45, abs=0.005)
    for n in (4, 9):
        assert (1 - failure_rate_excluded(n)) ** n == pytest.approx(0.05)


@pytest.mark.parametrize("cv", [0.005, 0.01, 0.018, 0.035, 0.036, 0.0384, 0.0495, 0.051, 0.1])
def test_power_grows_with_seeds_wherever_the_effect_is_clear(cv):
    """A probability that is no number at one n would send the search for seeds astray."""
    found = [power("persists", 0.5, cv, n) for n in range(3, 51)]
    assert all(0 <= one <= 1 for one in found)
    assert all(b >= a - 1e-9 for a, b in itertools.pairwise(found))
    assert seeds_needed("persists", 0.5, cv) == (4 if cv == 0.1 else 3)


@pytest.mark.parametrize(("n", "cv"), [(3, 0.1), (5, 0.3), (12, 0.4)])
def test_persists_is_the_noncentral_t_of_scipy(n, cv):
    spread = np.sqrt(1 + DELTA**2 - 2 * 0.5 * DELTA)
    centre = np.sqrt(n) * (0.5 - DELTA) / (cv * spread)
    expected = stats.nct.sf(stats.t.ppf(0.975, n - 1), n - 1, centre)
    assert power("persists", 0.5, cv, n) == pytest.approx(expected, abs=1e-4)
