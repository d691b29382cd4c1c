"""The simulator's own part: processes that come up one after another. The rest is the policy's."""

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.policy.next_start import Line, Waiting
from orchestrator.policy.occupancy import Demand, Occupancy
from orchestrator.policy.simulation import StartUp, simulate, starts


def test_runs_start_as_processes_come_up():
    runs = [Waiting(f"{k}", Demand(), 10.0) for k in range(5)]
    done = simulate(runs, [("n", 5)], start_up=StartUp(first=3.0, each=2.0, at_once=2))
    assert [s.starts for s in done.stretches] == [3.0, 3.0, 5.0, 5.0, 7.0]
    assert done.makespan == 17.0


def test_a_process_that_has_carried_out_a_run_takes_the_next_at_once():
    runs = [Waiting(f"{k}", Demand(), 1.0) for k in range(4)]
    done = simulate(runs, [("n", 4)], start_up=StartUp(first=3.0, each=100.0, at_once=1))
    assert [s.starts for s in done.stretches] == [3.0, 4.0, 5.0, 6.0]


def test_processes_that_are_there_take_runs_at_once():
    runs = [Waiting(f"{k}", Demand(), 9.0) for k in range(3)]
    done = simulate(runs, [("n", 4)], start_up=StartUp(3.0, 2.0, 1, {"n": 2}))
    assert [s.starts for s in done.stretches] == [0.0, 0.0, 3.0]


def test_processes_begin_to_come_up_when_the_simulation_begins():
    runs = [Waiting(f"{k}", Demand(), 1.0) for k in range(2)]
    found = starts(Occupancy([("n", 4)]), Line(runs), now=70.0, start_up=StartUp(3.0, 2.0, 1))
    assert [begins for begins, _ in found] == [73.0, 74.0]


def test_each_node_brings_up_its_own():
    runs = [Waiting(f"{k}", Demand(), 9.0) for k in range(2)]
    done = simulate(runs, [("a", 1), ("b", 1)], start_up=StartUp(first=2.0, each=50.0, at_once=1))
    assert [s.starts for s in done.stretches] == [2.0, 2.0]


def test_it_goes_on_from_a_cluster_that_is_busy_and_leaves_no_trace_on_a_copy():
    cluster = Occupancy([("n", 2)])
    cluster.occupy("there", Demand(), cluster.nodes["n"][:1], 107.0)
    runs = [Waiting("a", Demand(gpus=2), 5.0), Waiting("b", Demand(), 3.0)]
    found = starts(cluster.copy(), Line(runs), now=100.0, pace=2.0)
    assert [(begins, start.run.run_id) for begins, start in found] == [(100.0, "b"), (107.0, "a")]
    assert (list(cluster.placed), cluster.free_whole) == (["there"], {"n": 1})


@given(
    st.floats(0, 10),
    st.floats(0.1, 10),
    st.integers(1, 4),
    st.floats(0, 100, allow_subnormal=False),
)
def test_the_next_ones_are_up_when_it_says(first, each, at_once, now):
    start_up = start_up = StartUp(first, each, at_once)
    then = start_up.next(now)
    assert start_up.up("n", then) == start_up.up("n", now) + at_once
    assert start_up.up("n", then - each / 2) <= start_up.up("n", now)
