"""Quantities of a profile against numpy and scipy, and what they must obey."""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from sweeps.statistics.quantities import quantities

SHARES = ("slope_normalised", "centre_of_mass", "concentration_last_quarter", "width_beyond_slope")
FROM_FOUR = ("theil_sen", "slope_dfbeta", "spearman")
LENGTHS = range(1, 25)

changes = st.lists(st.floats(1e-3, 1.4), min_size=1, max_size=24)
signed = st.lists(st.floats(-1, 1, allow_subnormal=False), min_size=1, max_size=24)


def of(profile: Sequence[float], floor: float = 0.0) -> dict[str, float]:
    found = quantities(np.array([profile], float), floor)
    return {name: float(values[0]) for name, values in found.items()}


def slow(profile: Sequence[float]) -> dict[str, float]:
    """The definitions, written out block by block."""
    d, count = list(profile), len(profile)
    x = [i / count for i in range(1, count + 1)]
    mean, total = sum(d) / count, sum(d)
    got = dict.fromkeys(of(profile), math.nan)
    if count >= 2:
        got["slope"] = stats.linregress(x, d).slope
    if min(d) >= 0 and total > 0:
        shares = [each / total for each in d]
        got["width"] = float(np.exp(stats.entropy(shares))) / count
        got["centre_of_mass"] = sum(p * (i - 0.5) / count for i, p in enumerate(shares, 1))
        got["concentration_last_quarter"] = sum(
            p * min(1, max(0, i - 0.75 * count)) for i, p in enumerate(shares, 1)
        )
        got["slope_normalised"] = got["slope"] / mean
        straight = 1 - got["slope_normalised"] ** 2 * (1 - 1 / count**2) / 24
        got["width_beyond_slope"] = got["width"] - straight
    if count >= 4:
        pairs = [(d[j] - d[i]) / (x[j] - x[i]) for i, j in itertools.combinations(range(count), 2)]
        got["theil_sen"] = float(np.median(pairs))
        got["slope_dfbeta"] = max(
            abs(stats.linregress(np.delete(x, j), np.delete(d, j)).slope - got["slope"])
            for j in range(count)
        )
        levels = [sum(b < a - 1e-9 for b in d) for a in d]
        if len(set(levels)) > 1:
            got["spearman"] = stats.spearmanr(x, levels).statistic
    return got


def assert_as_slow(profile: Sequence[float]) -> None:
    got, expected = of(profile), slow(profile)
    assert got.keys() == expected.keys()
    for name, value in expected.items():
        assert got[name] == pytest.approx(value, rel=1e-8, abs=1e-10, nan_ok=True), name


@given(changes)
def test_quantities_agree_with_numpy_and_scipy(profile: list[float]) -> None:
    assert_as_slow(profile)


@given(signed)
def test_profiles_that_change_sign_have_slopes_and_no_shares(profile: list[float]) -> None:
    rounded = [round(each, 6) for each in profile]  # no chain of near ties
    assert_as_slow(rounded)
    if min(rounded) < 0:
        got = of(rounded)
        assert all(math.isnan(got[name]) for name in (*SHARES, "width"))


@pytest.mark.parametrize("count", LENGTHS)
def test_every_number_of_blocks(count: int) -> None:
    generator = np.random.default_rng(count)
    for profile in generator.uniform(0.01, 1.4, (5, count)):
        assert_as_slow(profile.tolist())


@pytest.mark.parametrize("count", LENGTHS)
@pytest.mark.parametrize("level", [1e-5, 0.1, 1 / 3, 1.3])
def test_a_flat_profile_is_in_the_middle_at_every_number_of_blocks(
    count: int, level: float
) -> None:
    generator = np.random.default_rng(count)
    noise = level * generator.uniform(-4e-16, 4e-16, count)
    for profile in ([level] * count, (level + noise).tolist()):
        flat = of(profile)
        assert flat["centre_of_mass"] == pytest.approx(0.5, abs=1e-12)
        assert flat["concentration_last_quarter"] == pytest.approx(0.25, abs=1e-12)
        assert flat["width"] == pytest.approx(1, abs=1e-12)
        assert math.isnan(flat["spearman"])
        if count > 1:
            assert flat["slope"] == pytest.approx(0, abs=1e-14)
            assert flat["width_beyond_slope"] == pytest.approx(0, abs=1e-12)
        assert math.isnan(flat["slope"]) == (count == 1)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_few_blocks_have_no_quantity_of_ranks_or_of_leaving_one_out(count: int) -> None:
    got = of([0.1 * i for i in range(1, count + 1)])
    assert all(math.isnan(got[name]) for name in FROM_FOUR)
    assert not any(math.isnan(of([0.1, 0.2, 0.3, 0.5])[name]) for name in FROM_FOUR)


@pytest.mark.parametrize("profile", [[0.3], [0.0], [0.0, 0.0], [-0.1, 0.2, 0.0]])
def test_what_is_not_defined_is_said_without_a_warning(profile: list[float]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert any(math.isnan(value) for value in of(profile).values())


def test_a_mean_at_the_floor_has_no_shares() -> None:
    profile = [1e-7, 2e-7, 3e-7, 4e-7]
    assert all(math.isnan(of(profile, 1e-6)[name]) for name in SHARES)
    assert of(profile, 1e-6)["slope"] == pytest.approx(4e-7)
    assert not any(math.isnan(of(profile, 1e-8)[name]) for name in SHARES)
    unchanged = of([0.0] * 5)
    assert unchanged["slope"] == 0
    assert all(math.isnan(unchanged[name]) for name in (*SHARES, "width", "spearman"))


@pytest.mark.parametrize("profile", [(-0.02, -0.01, 0.01, 0.005), (-0.001, 0.0, 0.0011)])
def test_a_mean_near_zero_divides_nothing(profile: tuple[float, ...]) -> None:
    assert of(profile)["slope"] > 0
    assert math.isnan(of(profile)["slope_normalised"])


def test_known_profiles() -> None:
    last = of([0.0, 0.0, 0.0, 1.0])
    assert (last["width"], last["centre_of_mass"]) == (pytest.approx(0.25), 0.875)
    assert last["concentration_last_quarter"] == 1.0
    straight = of([0.1 + 0.3 * i / 6 for i in range(1, 7)])
    assert straight["slope"] == straight["theil_sen"] == pytest.approx(0.3)
    assert straight["slope_dfbeta"] == pytest.approx(0, abs=1e-14)
    assert straight["spearman"] == pytest.approx(1)
    one_odd = of([0.1, 0.2, 0.3, 0.4, 0.5, 3.0])
    assert one_odd["theil_sen"] == pytest.approx(0.6)
    assert one_odd["slope"] > 2
    assert one_odd["slope_dfbeta"] == pytest.approx(one_odd["slope"] - 0.6)


@given(st.lists(st.floats(0.4, 0.6), min_size=6, max_size=24), st.floats(-0.1, 0.1))
def test_the_width_of_a_nearly_straight_profile_says_nothing_but_its_slope(
    noise: list[float], tilt: float
) -> None:
    count = len(noise)
    straight = [1 + tilt * (i / count - 0.5) for i in range(1, count + 1)]
    assert abs(of(straight)["width_beyond_slope"]) < 1e-4


@given(changes, st.floats(0.01, 100))
def test_scaling_a_profile_scales_only_its_slopes(profile: list[float], factor: float) -> None:
    before, after = of(profile), of([factor * d for d in profile])
    for name in ("slope", "theil_sen", "slope_dfbeta"):
        assert after[name] == pytest.approx(
            factor * before[name], rel=1e-6, abs=1e-9 * factor, nan_ok=True
        )
    for name in (*SHARES, "width"):
        assert after[name] == pytest.approx(before[name], rel=1e-6, abs=1e-8, nan_ok=True)


@given(changes)
def test_reversing_a_profile_mirrors_it(profile: list[float]) -> None:
    before, after = of(profile), of(profile[::-1])
    for name in ("slope", "theil_sen", "slope_normalised"):
        assert after[name] == pytest.approx(-before[name], rel=1e-6, abs=1e-9, nan_ok=True)
    assert after["centre_of_mass"] == pytest.approx(1 - before["centre_of_mass"], abs=1e-9)
    for name in ("width", "slope_dfbeta"):
        assert after[name] == pytest.approx(before[name], rel=1e-6, abs=1e-9, nan_ok=True)


def test_many_profiles_at_once_are_each_as_if_alone() -> None:
    profiles = np.random.default_rng(0).uniform(-0.2, 1, (40, 7))
    together = quantities(profiles)
    for k, profile in enumerate(profiles):
        for name, value in of(profile.tolist()).items():
            assert together[name][k] == pytest.approx(value, rel=1e-12, abs=1e-15, nan_ok=True)
