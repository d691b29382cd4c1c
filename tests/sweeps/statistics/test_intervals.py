"""Intervals have the error rates they state; formulas agree with scipy and with slow references."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from sweeps.statistics.intervals import (
    Mean,
    ends_of,
    mean_intervals,
    mean_of,
    moments,
    ratio_of,
    row_variance,
)

SIMULATED = 20_000


def noise(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape)


@given(st.lists(st.floats(-100, 100), min_size=2, max_size=12))
def test_without_rows_it_is_the_t_interval_of_scipy(values):
    sample = np.array(values)
    low, high = mean_of(sample).interval
    if (spread := np.ptp(sample)) < 1e-9:  # scipy's own digits are lost
        assert low == pytest.approx(high, rel=1e-6, abs=30 * spread)
        return
    expected = stats.t.interval(0.95, len(sample) - 1, sample.mean(), stats.sem(sample))
    assert (low, high) == pytest.approx(expected, rel=1e-9, abs=1e-9)
    above = stats.ttest_1samp(sample, 0, alternative="greater").pvalue
    assert mean_of(sample).p_above() == pytest.approx(above, abs=1e-12)
    assert mean_of(sample).p_below() == pytest.approx(1 - above, abs=1e-12)


def test_a_bound_is_where_its_p_value_is_the_level():
    mean = mean_of(np.array([1.0, 1.3, 0.7, 1.1]))
    shifted = Mean(mean.value - mean.bound(0.025), mean.error, mean.freedom)
    assert shifted.p_above() == pytest.approx(0.025)


def test_one_seed_has_no_interval():
    low, high = mean_intervals(np.ones((1, 3)))
    assert np.isnan(low).all()
    assert np.isnan(high).all()
    assert np.isnan(mean_of(np.array([2.0])).interval).all()


def test_columns_are_treated_alike_and_apart():
    values, deleted = noise(1, 5, 3), 0.1 * noise(2, 16, 3)
    low, high = mean_intervals(values, deleted)
    for k in range(3):
        assert mean_of(values[:, k], deleted[:, k]).interval == pytest.approx((low[k], high[k]))


def test_row_variance_is_the_jackknifes():
    deleted = noise(3, 16, 2)
    slow = [15 / 16 * sum((x - column.mean()) ** 2 for x in column) for column in deleted.T]
    assert row_variance(deleted) == pytest.approx(slow)


def test_degrees_of_freedom_are_weighed_by_what_the_error_consists_of():
    values, deleted = noise(4, 4, 1), 0.3 * noise(5, 16, 1)
    between, rows = values.var(ddof=1) / 4, row_variance(deleted)[0]
    _, total, freedom = moments(values, deleted)
    assert total[0] == pytest.approx(between + rows)
    assert 1 / freedom[0] == pytest.approx((between / 3 + rows / 15) / (between + rows))


def test_a_group_that_was_not_deleted_adds_nothing():
    values = noise(6, 4, 2)
    deleted = np.column_stack([np.full(16, np.nan), noise(7, 16)])
    alone = mean_intervals(values)
    low, high = mean_intervals(values, deleted)
    assert (low[0], high[0]) == pytest.approx((alone[0][0], alone[1][0]))
    assert high[1] - low[1] != pytest.approx(alone[1][1] - alone[0][1])


@pytest.mark.parametrize("n", [3, 5, 10])
def test_the_interval_over_seeds_covers_the_truth_as_often_as_it_says(n):
    low, high = mean_intervals(1 + 0.1 * noise(n, n, SIMULATED))
    assert 0.93 <= np.mean((low <= 1) & (high >= 1)) <= 0.97


@pytest.mark.parametrize("n", [3, 5, 10])
@pytest.mark.parametrize("row_share", [0.1, 0.3, 1.0, 1.5, 3.0])
def test_with_the_error_of_the_rows_it_does_so_too(n, row_share):
    """Each run's slope has its seed's error and one of the rows, which all runs share."""
    seeds = noise(n, n, SIMULATED)
    groups = row_share * np.sqrt(16 / n) * noise(n + 50, 16, SIMULATED)
    values = seeds + groups.mean(axis=0)
    deleted = values.mean(axis=0) + (groups.mean(axis=0) - groups) / 15
    low, high = mean_intervals(values, deleted)
    assert 0.93 <= np.mean((low <= 0) & (high >= 0)) <= 0.97
    assert np.mean(low > 0) <= 0.03


def test_the_error_of_the_rows_does_not_fall_with_the_seeds():
    deleted = 0.05 * noise(8, 16, 1)
    errors = [moments(np.tile([[1.0], [1.2]], (k, 1)), deleted)[1][0] for k in (1, 50)]
    assert errors[1] >= row_variance(deleted)[0]
    assert errors[0] > errors[1]


def test_no_spread_is_an_interval_of_one_point():
    low, high = ends_of(np.array([0.3]), np.array([0.0]), np.array([2.0]))
    assert low[0] == high[0] == 0.3


def pairs(seed: int, n: int, kept: float, cv: float) -> tuple[np.ndarray, np.ndarray]:
    """Return controlled and standard slopes (n, k), correlated by a half within a seed."""
    shared, own, other = noise(seed, 3, n, 4_000) * cv / np.sqrt(2)
    return kept + shared + own, 1 + shared + other


@pytest.mark.parametrize("n", [3, 5])
@pytest.mark.parametrize("kept", [0.0, 0.5, 1.0])
def test_fiellers_interval_covers_what_was_kept(n, kept):
    controlled, standard = pairs(n, n, kept, 0.15)
    found = [ratio_of(c, r) for c, r in zip(controlled.T, standard.T, strict=True)]
    covered = [one.unbounded or one.low <= kept <= one.high for one in found]
    assert 0.93 <= np.mean(covered) <= 0.97


def test_fiellers_interval_is_all_ratios_that_the_seeds_do_not_exclude():
    controlled, standard = (each[:, 0] for each in pairs(1, 5, 0.6, 0.2))
    found = ratio_of(controlled, standard)
    for ratio, inside in ((found.low + 1e-6, True), (found.low - 1e-6, False)):
        assert (stats.ttest_1samp(controlled - ratio * standard, 0).pvalue > 0.05) == inside
    for ratio, inside in ((found.high - 1e-6, True), (found.high + 1e-6, False)):
        assert (stats.ttest_1samp(controlled - ratio * standard, 0).pvalue > 0.05) == inside


def test_a_denominator_that_may_be_zero_leaves_the_ratio_unbounded():
    found = ratio_of(np.array([1.0, 1.1, 0.9]), np.array([0.1, -0.1, 0.05]))
    assert found.unbounded
    assert np.isnan(found.low)


def test_rows_widen_a_ratio_only_as_far_as_the_two_sides_differ_in_them():
    controlled, standard = (each[:, 0] for each in pairs(2, 5, 0.5, 0.05))
    rows = 0.02 * noise(9, 16)
    alone = ratio_of(controlled, standard)
    common = ratio_of(controlled, standard, (0.5 * rows, rows))
    apart = ratio_of(controlled, standard, (rows, -rows))
    assert common.high - common.low < 1.3 * (alone.high - alone.low)
    assert apart.unbounded or apart.high - apart.low > 2 * (alone.high - alone.low)


@pytest.mark.parametrize("seed", range(12))
def test_its_ends_are_where_a_test_of_one_ratio_begins_to_reject_it(seed):
    """Whatever the parts of seeds and rows: a verdict makes that test."""
    n = (2, 3, 5)[seed % 3]
    controlled, standard = (each[:, 0] for each in pairs(seed, n, 0.6, 0.1))
    rows = np.array([0.02, 0.002])[seed % 2] * noise(seed, 16)
    deleted = (0.3 * rows + 0.1 * noise(seed + 50, 16) * rows.std(), rows)
    found = ratio_of(controlled, standard, deleted)
    if found.unbounded:
        assert np.isnan(found.low)
        return
    for ratio, inside in (
        (found.low + 1e-9, True),
        (found.low - 1e-9, False),
        (found.high - 1e-9, True),
        (found.high + 1e-9, False),
    ):
        mean = mean_of(controlled - ratio * standard, deleted[0] - ratio * deleted[1])
        low, high = mean.interval
        assert (low <= 0 <= high) == inside
