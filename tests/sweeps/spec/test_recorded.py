"""Which steps leave rows, and how many steps each stands for."""

from hypothesis import given
from hypothesis import strategies as st

from sweeps.spec.training.recorded import RecordedSteps


def test_the_first_every_kth_and_what_is_said_besides():
    recorded = RecordedSteps(20, 6, [0, 10, 20])
    assert recorded.until(20) == [1, 6, 10, 12, 18, 20]
    assert recorded.until(11) == [1, 6, 10]
    assert [step for step in range(30) if step in recorded] == recorded.until(30)
    assert not recorded.all


def test_every_step_is_recorded_where_k_is_one_or_the_others_fill_up():
    assert RecordedSteps(20, 1, [20]).all
    assert RecordedSteps(4, 3, [2, 4]).all
    assert not RecordedSteps(5, 3, [2, 5]).all


@given(st.integers(1, 60), st.integers(1, 60), st.lists(st.integers(0, 70)))
def test_the_steps_that_rows_stand_for_are_all_steps_once(steps, every, besides):
    recorded = RecordedSteps(steps, every, besides)
    for last in range(1, steps + 1):
        rows = sorted({*recorded.until(last), last})  # a run may end with any
        assert sum(map(recorded.covered, rows)) == last
        assert all(recorded.covered(step) >= 1 for step in rows)
    assert recorded.all == all(step in recorded for step in range(1, steps + 1))
