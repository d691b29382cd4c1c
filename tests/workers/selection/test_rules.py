"""Which candidates each rule chooses, of norms, losses and lengths that are said."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sweeps import spec
from sweeps.errors import UserError
from workers.selection.registry import build_selection
from workers.selection.selection_rule import Candidates, checked_choice

RULES = {
    "random": spec.Random(),
    "length_matched": spec.LengthMatched(),
    "low": spec.Low(),
    "moderate": spec.Moderate(),
    "high": spec.High(),
}


def candidates(norms, losses=None, lengths=None):
    norms = np.asarray(norms, dtype=float)
    losses = np.ones_like(norms) if losses is None else np.asarray(losses, dtype=float)
    lengths = np.full(len(norms), 9) if lengths is None else np.asarray(lengths)
    return Candidates(norms, losses, lengths)


def choose(selection, known, count, seed=0):
    rule = build_selection(selection)
    made = rule.choose(known, count, np.random.default_rng([seed, 3]))
    return checked_choice(rule, made, len(known), count).tolist()


def test_low_moderate_and_high_are_ends_and_middle_of_the_norms():
    known = candidates([5.0, 1.0, 9.0, 4.0, 2.0, 8.0, 3.0, 7.0, 6.0])
    assert choose(spec.Low(), known, 2) == [1, 4]
    assert choose(spec.High(), known, 2) == [2, 5]
    assert choose(spec.Moderate(), known, 3) == [0, 3, 8]


def test_candidates_are_those_with_a_loss_near_the_mean_unless_all_are_wanted():
    losses = [1.0, 1.1, 0.9, 1.0, 1.05, 4.0]
    known = candidates([1, 2, 3, 4, 5, 99], losses)
    assert choose(spec.High(), known, 2) == [3, 4]
    assert choose(spec.High(loss_within=None), known, 2) == [4, 5]
    assert choose(spec.High(loss_within=3.0), known, 2) == [4, 5]
    known = candidates([1, 2, 3, 4, 5, 0], losses)
    assert choose(spec.Low(), known, 1) == [0]
    assert choose(spec.Low(loss_within=None), known, 1) == [5]
    # The median is that of the candidates alone: 3 of 1 to 5, not 3.5 of 1 to 5 and 99.
    assert choose(spec.Moderate(), candidates([1, 2.9, 3.3, 4, 5, 99], losses), 1) == [2]


def test_where_too_few_have_a_loss_near_the_mean_the_nearest_beyond_are_candidates():
    # A mean of 5.7 and a deviation of 4.5: 4 alone is within half of it, then 9.9, then a 10.
    known = candidates([1, 2, 3, 4, 5, 6], [0.0, 10.0, 0.1, 9.9, 4.0, 10.0])
    assert choose(spec.High(loss_within=0.5), known, 1) == [4]
    assert choose(spec.High(loss_within=0.5), known, 3) == [1, 3, 4]


def test_what_has_no_loss_or_no_finite_gradient_comes_last():
    known = candidates([np.inf, 2, np.nan, 4, 5], [1.0, 1.0, 1.0, np.nan, 1.0])
    assert choose(spec.High(), known, 2) == [1, 4]
    assert len(choose(spec.High(), known, 4)) == 4
    nothing = candidates([np.nan] * 4, [np.nan] * 4)
    for selection in RULES.values():
        assert len(choose(selection, nothing, 2)) == 2


def test_length_matched_has_the_lengths_of_high_and_none_of_its_examples():
    norms = [9, 8, 7, 1, 1, 1, 1, 1, 1, 1]
    lengths = [3, 40, 12, 100, 12, 3, 41, 90, 3, 80]
    seen = set()
    for seed in range(20):
        chosen = choose(spec.LengthMatched(), candidates(norms, None, lengths), 3, seed)
        assert not set(chosen) & {0, 1, 2}
        assert sorted(np.asarray(lengths)[chosen]) == [3, 12, 41]
        seen.add(tuple(chosen))
    assert seen == {(4, 5, 6), (4, 6, 8)}, "of equally long ones any"


def test_random_takes_any_and_asks_for_no_gradient():
    assert not build_selection(spec.Random()).needs_gradients
    known = candidates([np.nan] * 10, [np.nan] * 10)
    counts = np.zeros(10)
    for seed in range(400):
        counts[choose(spec.Random(), known, 2, seed)] += 1
    assert counts.min() > 45  # 80 expected, with a deviation of 8
    assert counts.max() < 120
    assert build_selection(spec.All()) is None


@given(
    st.lists(
        st.tuples(
            st.floats(0, 1e6) | st.just(float("nan")),
            st.floats(0, 50) | st.just(float("nan")),
            st.integers(0, 200),
        ),
        min_size=2,
        max_size=30,
    ),
    st.integers(0, 99),
    st.sampled_from(sorted(RULES)),
)
def test_each_rule_chooses_as_many_as_it_is_asked_each_once(rows, seed, name):
    known = candidates(*zip(*rows, strict=True))
    count = max(1, len(rows) // 2)
    chosen = choose(RULES[name], known, count, seed)
    assert chosen == choose(RULES[name], known, count, seed)
    assert len(set(chosen)) == count


@pytest.mark.parametrize("wrong", [[0, 0], [0], [0, 9], [0.5, 1.0], None, [-1, 2]])
def test_another_choice_than_was_asked_for_is_refused(wrong):
    with pytest.raises(UserError, match=r"High: choose returns .* 2 different numbers from 0 to 3"):
        checked_choice(build_selection(spec.High()), wrong, 4, 2)
