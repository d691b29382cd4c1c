"""Verdicts: what comes before a finding, in order, and the error rates of the findings."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from sweeps.findings.verdicts import (
    DELTA,
    FINDINGS,
    LEVELS,
    STATES,
    VERDICTS,
    Circumstances,
    Pair,
    judge,
)
from sweeps.statistics.intervals import mean_of

KNOWN = Circumstances(pairs=5, dose=2.0)


def pair(kept: float, n: int = 5, cv: float = 0.02, seed: int = 0, sign: float = 1.0) -> Pair:
    shared, own, other = np.random.default_rng(seed).standard_normal((3, n)) * cv / np.sqrt(2)
    return Pair(sign * (kept + shared + own), sign * (1 + shared + other))


@pytest.mark.parametrize(
    ("kept", "verdict"),
    [(1.0, "persists"), (0.5, "persists"), (0.0, "collapses"), (-0.8, "reverses")],
)
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_a_clear_effect_is_found_along_the_sign_of_the_reference(kept, verdict, sign):
    found = judge(pair(kept, sign=sign), KNOWN)
    assert found.verdict == verdict
    assert found.along.value == pytest.approx(kept, abs=0.05)
    assert found.reference.value > 0
    assert found.retained.value == pytest.approx(kept, abs=0.05)


def test_a_wide_interval_is_no_collapse():
    noisy = Pair(np.array([0.4, -0.5, 0.3, -0.1]), np.array([1.0, 1.1, 0.9, 1.0]))
    assert mean_of(noisy.controlled).interval[0] < 0
    assert judge(noisy, KNOWN).verdict == "inconclusive"


UNDER_EVERYTHING = Circumstances(
    pairs=2,
    diverged=1,
    saturated=0.5,
    pretraining=(5.0, 0.01, 5.1),
    loss_change=(mean_of(np.array([-0.1, 0.1, 0.0])), mean_of(np.array([-1.0, -1.1, -0.9]))),
    dose=1.2,
)


def test_states_of_knowledge_come_first_and_in_order():
    nothing = Pair(np.array([0.1, -0.1, 0.2]), np.array([0.1, -0.1, 0.02]))
    few = Pair(nothing.controlled[:2], nothing.reference[:2])
    met = [judge(few, UNDER_EVERYTHING).verdict]
    known = UNDER_EVERYTHING
    for change in (
        {"diverged": 0},
        {"saturated": 0.49},
        {"pretraining": (4.8, 0.04, 5.1)},
        {"loss_change": ()},
        {"dose": 1.5},
    ):
        met.append(judge(nothing, known).verdict)
        known = replace(known, **change)
    met.append(judge(nothing, known).verdict)
    assert met == list(STATES)
    assert judge(pair(0.5), known).verdict == "persists"


def test_without_a_dose_nobody_has_looked_whether_there_was_anything_to_take_away():
    assert judge(pair(0.5), Circumstances(pairs=5)).verdict == "insufficient"
    assert judge(pair(0.5), Circumstances(pairs=5, dose=1.6)).verdict == "persists"


def test_rounding_is_no_slope():
    assert judge(pair(0.5), replace(KNOWN, rounding=True)).verdict == "no_reference"


def test_a_state_has_no_p_values_and_no_other_verdict_under_another_delta():
    found = judge(pair(0.5), replace(KNOWN, dose=1.1))
    assert found.verdict == "idle"
    assert found.p == {}
    assert found.sensitivity == ("idle", "idle")


def test_both_arms_must_have_learned():
    fell, rose = mean_of(np.array([-1.0, -1.1, -0.9])), mean_of(np.array([0.1, 0.2, 0.1]))
    assert judge(pair(0.5), replace(KNOWN, loss_change=(fell, fell))).verdict == "persists"
    for changes in ((fell, rose), (rose, fell)):
        assert judge(pair(0.5), replace(KNOWN, loss_change=changes)).verdict == "untrained"


def test_no_matched_seed_is_insufficient():
    found = judge(Pair(np.array([]), np.array([])), KNOWN)
    assert found.verdict == "insufficient"
    assert np.isnan(found.along.value)


slopes = st.lists(
    st.tuples(st.floats(-2, 2), st.floats(0.5, 2)), min_size=3, max_size=8, unique=True
)


@given(slopes)
def test_p_values_are_those_of_scipy(values):
    c, r = map(np.array, zip(*values, strict=True))
    found = judge(Pair(c, r), KNOWN)
    if not found.p or min(np.ptp(c - DELTA * r), np.ptp(c + DELTA * r)) < 1e-6:
        return
    below, above = c - DELTA * r, c + DELTA * r
    test = stats.ttest_1samp
    assert found.p["persists"] == pytest.approx(test(below, 0, alternative="greater").pvalue)
    assert found.p["reverses"] == pytest.approx(test(above, 0, alternative="less").pvalue)
    near = max(
        test(below, 0, alternative="less").pvalue, test(above, 0, alternative="greater").pvalue
    )
    assert found.p["collapses"] == pytest.approx(near)


@given(slopes)
def test_at_most_one_finding_is_shown(values):
    c, r = map(np.array, zip(*values, strict=True))
    found = judge(Pair(c, r), KNOWN)
    shown = [finding for finding in FINDINGS if found.p and found.p[finding] < LEVELS[finding]]
    assert found.verdict in VERDICTS
    assert shown == ([found.verdict] if found.verdict in FINDINGS else [])


def test_error_of_the_rows_can_undo_a_finding():
    clear = pair(0.5, n=3)
    rows = np.random.default_rng(1).standard_normal(16) * 0.1
    widened = replace(clear, deleted=(rows, -rows))
    assert judge(clear, KNOWN).verdict == "persists"
    assert judge(widened, KNOWN).verdict == "inconclusive"
    assert judge(widened, KNOWN).along.rows


def rates(kept: float, cv: float, n: int, times: int = 2_000) -> dict[str, float]:
    found = Counter(judge(pair(kept, n, cv, seed), KNOWN).verdict for seed in range(times))
    return {verdict: found[verdict] / times for verdict in VERDICTS}


BOUNDARIES = [
    (0.05, 3),
    *(pytest.param(*rest, marks=pytest.mark.slow) for rest in ((0.1, 5), (0.2, 5), (0.3, 10))),
]


@pytest.mark.parametrize(("cv", "n"), BOUNDARIES)
def test_at_its_boundary_a_finding_is_made_as_often_as_it_may_be(cv, n):
    assert rates(DELTA, cv, n)["persists"] <= 0.035
    assert rates(DELTA, cv, n)["collapses"] <= 0.06
    assert rates(-DELTA, cv, n)["reverses"] <= 0.035
    assert rates(-DELTA, cv, n)["collapses"] <= 0.06


@pytest.mark.parametrize(
    ("cv", "n", "collapses", "persists"), [(0.1, 3, 0.72, 0.69), (0.2, 10, 0.93, 0.97)]
)
def test_what_is_there_is_found_as_often_as_was_reckoned(cv, n, collapses, persists):
    assert rates(0.0, cv, n)["collapses"] == pytest.approx(collapses, abs=0.04)
    assert rates(0.5, cv, n)["persists"] == pytest.approx(persists, abs=0.04)


def test_nothing_but_noise_is_hardly_ever_a_finding():
    generator = np.random.default_rng(3)
    verdicts = Counter(
        judge(Pair(*generator.standard_normal((2, 4))), KNOWN).verdict for _ in range(2_000)
    )
    assert sum(verdicts[finding] for finding in FINDINGS) / 2_000 <= 0.03
    assert verdicts["no_reference"] / 2_000 >= 0.9
