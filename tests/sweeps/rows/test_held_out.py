"""Which rows are held out."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sweeps.errors import UserError
from sweeps.rows.held_out import rows_of


@given(st.integers(20, 3000), st.floats(0.1, 0.9))
def test_every_row_is_on_one_side_and_the_share_is_kept(count, fraction):
    trained = list(rows_of(range(count), fraction, held_out=False))
    held_out = list(rows_of(range(count), fraction, held_out=True))
    assert sorted([*trained, *held_out]) == list(range(count))
    assert trained == sorted(trained)
    assert held_out == sorted(held_out)
    assert abs(len(held_out) - fraction * count) <= 1


def test_more_rows_do_not_change_what_became_of_those_before():
    few = list(rows_of(range(500), 0.03, held_out=True))
    more = rows_of(itertools.count(), 0.03, held_out=True)
    assert list(itertools.islice(more, len(few))) == few
    assert list(itertools.islice(more, 9000))[-1] < 9100 / 0.03  # beyond what is drawn at once


def test_rows_are_drawn_and_not_counted_off():
    steps = [b - a for a, b in itertools.pairwise(rows_of(range(4000), 0.1, held_out=True))]
    assert len(set(steps)) > 10
    assert max(steps) < 20


@pytest.mark.parametrize(
    ("count", "fraction", "what"), [(1, 0.01, "held out"), (1, 0.99, "to train on")]
)
def test_a_side_without_rows_is_refused(count, fraction, what):
    for held_out in (True, False):
        with pytest.raises(UserError, match=f"of {count} rows leaves none {what}"):
            list(rows_of(range(count), fraction, held_out=held_out))
