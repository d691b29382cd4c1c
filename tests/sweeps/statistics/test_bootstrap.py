"""The seed bootstrap against the plain one, and against scipy's."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from sweeps.statistics.bootstrap import RESAMPLES, mean_intervals, quantiles, resamples


@pytest.mark.parametrize("n", [2, 3, 5, 9])
def test_distinct_resamples_give_the_interval_of_all_ten_thousand(n: int) -> None:
    values = np.random.default_rng(n).normal(size=(n, 4))
    drawn = resamples(n)
    assert drawn.times.sum() == RESAMPLES
    np.testing.assert_allclose(drawn.weights.sum(axis=1), 1)
    every = np.repeat(drawn.weights @ values, drawn.times, axis=0)
    low, high = mean_intervals(values)
    np.testing.assert_allclose(low, np.quantile(every, 0.025, axis=0, method="inverted_cdf"))
    np.testing.assert_allclose(high, np.quantile(every, 0.975, axis=0, method="inverted_cdf"))


def test_the_interval_agrees_with_scipy() -> None:
    values = np.random.default_rng(1).normal(size=8)
    theirs = stats.bootstrap(
        (values,), np.mean, n_resamples=10_000, method="percentile", rng=0
    ).confidence_interval
    low, high = mean_intervals(values[:, None])
    # Two draws of 10,000 differ by Monte Carlo error, about 2 % of the interval.
    assert low[0] == pytest.approx(theirs.low, abs=0.05)
    assert high[0] == pytest.approx(theirs.high, abs=0.05)


def test_the_interval_does_not_depend_on_the_order_of_calls() -> None:
    values = np.array([[0.1], [0.4], [0.2]])
    first = mean_intervals(values)
    mean_intervals(np.zeros((7, 1)))
    resamples.cache_clear()
    assert mean_intervals(values) == first


def test_one_seed_has_no_interval() -> None:
    low, high = mean_intervals(np.array([[0.5, 0.7]]))
    assert np.isnan(low).all()
    assert np.isnan(high).all()


@given(st.lists(st.floats(-5, 5), min_size=2, max_size=6))
def test_the_interval_lies_within_the_values_and_holds_their_mean(values: list[float]) -> None:
    low, high = mean_intervals(np.array(values)[:, None])
    assert min(values) - 1e-9 <= low[0] <= np.mean(values) + 1e-9
    assert np.mean(values) - 1e-9 <= high[0] <= max(values) + 1e-9


def test_undefined_resamples_do_not_count() -> None:
    samples = np.array([[1.0], [np.nan], [3.0], [2.0]])
    low, high = quantiles(samples)
    assert (low[0], high[0]) == (1.0, 3.0)
