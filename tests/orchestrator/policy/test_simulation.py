"""The simulator's own part: what a start costs, where it goes on from."""

import pytest

from orchestrator.policy.next_start import Line, Waiting
from orchestrator.policy.occupancy import Demand, Occupancy
from orchestrator.policy.simulation import simulate, starts


def test_each_run_holds_its_gpus_while_its_process_starts():
    runs = [Waiting(f"{k}", Demand(), 10.0) for k in range(5)]
    done = simulate(runs, [("n", 2)], start_seconds=3.0)
    assert [s.starts for s in done.stretches] == [0.0, 0.0, 13.0, 13.0, 26.0]
    assert done.makespan == 39.0
    assert done.ratio == 39.0 / 30.0, "what starts cost is above the bound"


def test_a_run_overtakes_only_where_it_ends_in_time_its_start_included():
    runs = [
        Waiting("wide", Demand(gpus=2), 50.0),
        Waiting("first", Demand(), 30.0, opens=True),
        Waiting("brief", Demand(), 29.0),
    ]
    for seconds, begins in ((0.0, 0.0), (4.0, 0.0)):
        done = simulate(runs, [("n", 2)], start_seconds=seconds)
        began = {s.run.run_id: s.starts for s in done.stretches}
        assert began["brief"] == begins
        assert began["wide"] == 30.0 + seconds


def test_more_gpus_than_there_are_are_refused():
    with pytest.raises(ValueError, match="more than the 4 GPUs"):
        simulate([Waiting("a", Demand(gpus=5), 1.0)], [("n", 2), ("m", 2)])


def test_it_goes_on_from_a_cluster_that_is_busy_and_leaves_no_trace_on_a_copy():
    cluster = Occupancy([("n", 2)])
    cluster.occupy("there", Demand(), cluster.nodes["n"][:1], 107.0)
    runs = [Waiting("a", Demand(gpus=2), 5.0), Waiting("b", Demand(), 3.0)]
    found = starts(cluster.copy(), Line(runs), now=100.0, pace=2.0)
    assert [(begins, start.run.run_id) for begins, start in found] == [(100.0, "b"), (107.0, "a")]
    assert (list(cluster.placed), cluster.free_whole) == (["there"], {"n": 1})
