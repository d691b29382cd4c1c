"""Reductions against numpy and scipy."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from sweeps.statistics.reductions import (
    condition_weights,
    gap,
    permutation_p,
    seed_resamples,
    spearman,
    variance_explained,
)

numbers = st.integers(-5, 5).map(float)


@given(st.lists(st.tuples(numbers, numbers), min_size=3, max_size=12))
def test_rank_correlation_agrees_with_scipy_ties_included(pairs: list[tuple[float, float]]) -> None:
    x, y = (np.array(side) for side in zip(*pairs, strict=True))
    got = spearman(x, y)[0]
    if np.unique(x).size < 2 or np.unique(y).size < 2:
        assert np.isnan(got)
    else:
        assert got == pytest.approx(stats.spearmanr(x, y).statistic, abs=1e-12)


def test_weights_count_a_condition_as_often_as_it_was_drawn() -> None:
    generator = np.random.default_rng(0)
    x, y = generator.normal(size=(2, 8))
    weights = condition_weights(8)[:50]
    for row, got in zip(weights, spearman(x, y, weights), strict=True):
        at = np.repeat(np.arange(8), row.astype(int))
        assert got == pytest.approx(stats.spearmanr(x[at], y[at]).statistic, abs=1e-12)


def test_variance_explained_is_the_adjusted_r_squared_of_one_way_means() -> None:
    generator = np.random.default_rng(1)
    groups = ["a", "a", "b", "b", "b", "c", "c", "c"]
    values = generator.normal(size=8)
    members = [values[np.array(groups) == name] for name in "abc"]
    within = sum(((m - m.mean()) ** 2).sum() for m in members)
    total = ((values - values.mean()) ** 2).sum()
    expected = 1 - (within / 5) / (total / 7)
    assert variance_explained(values[None], groups)[0] == pytest.approx(expected)
    assert np.isnan(variance_explained(values[None], list("abcdefgh"))[0])


def test_the_permutation_test_finds_planted_groups_and_not_noise() -> None:
    generator = np.random.default_rng(2)
    groups = ["a"] * 6 + ["b"] * 6
    planted = np.array([0.0] * 6 + [3.0] * 6) + generator.normal(0, 0.1, 12)
    assert permutation_p(planted, groups) < 0.01
    # Against the F test of the same groups, which a permutation test approaches.
    noise = generator.normal(size=12)
    expected = stats.f_oneway(noise[:6], noise[6:]).pvalue
    assert permutation_p(noise, groups) == pytest.approx(expected, abs=0.05)


def test_the_gap_is_between_group_means() -> None:
    means = np.array([[1.0, 3.0, 10.0], [0.0, 0.0, 0.0]])
    assert gap(means, ["a", "a", "b"]).tolist() == [8.0, 0.0]


def test_seeds_are_resampled_within_their_condition() -> None:
    values = [np.array([1.0, 3.0]), np.array([5.0, 5.0, 5.0])]
    samples = seed_resamples(values)
    assert samples.shape == (10_000, 2)
    assert set(samples[:, 0]) == {1.0, 2.0, 3.0}
    assert (samples[:, 1] == 5.0).all()
    assert samples[:, 0].mean() == pytest.approx(2.0, abs=0.03)
