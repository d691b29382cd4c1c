"""The policy, through the simulator that shares it: what no schedule may do, whatever the runs."""

from collections import defaultdict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.policy.next_start import Line, Waiting, next_start, reservation
from orchestrator.policy.occupancy import UNITS, Demand, Occupancy
from orchestrator.policy.simulation import lower_bound, simulate

NODES = st.lists(st.integers(1, 8), min_size=1, max_size=4).map(
    lambda sizes: [(f"n{k}", size) for k, size in enumerate(sizes)]
)
DEMANDS = st.one_of(
    st.sampled_from([Demand(UNITS // k) for k in (2, 3, 4, 8)]),
    st.integers(1, 6).map(lambda gpus: Demand(gpus=gpus)),
)


@st.composite
def sweeps(draw):
    nodes = draw(NODES)
    total = sum(size for _, size in nodes)
    runs = draw(st.lists(st.tuples(DEMANDS, st.integers(1, 50), st.booleans()), max_size=40))
    return nodes, [
        Waiting(f"{k:02}", demand, float(seconds), opens)
        for k, (demand, seconds, opens) in enumerate(runs)
        if demand.gpus <= total
    ]


@settings(max_examples=200, deadline=None)
@given(sweeps())
def test_every_run_starts_once_and_no_gpu_is_oversubscribed(sweep):
    nodes, runs = sweep
    done = simulate(runs, nodes)
    assert sorted(s.run.run_id for s in done.stretches) == sorted(r.run_id for r in runs)
    sizes = dict(nodes)
    events = []
    for s in done.stretches:
        assert len(set(s.gpus)) == s.run.demand.gpus
        assert all(0 <= index < sizes[node] for node, index in s.gpus)
        if s.run.demand.gpus <= max(sizes.values()):
            assert len({node for node, _ in s.gpus}) == 1
        for gpu in s.gpus:
            events += [(s.starts, 1, gpu, s.run.demand.units)]
            events += [(s.ends, 0, gpu, -s.run.demand.units)]
    held = defaultdict(int)
    for _, _, gpu, units in sorted(events):
        held[gpu] += units
        assert 0 <= held[gpu] <= UNITS


@settings(max_examples=200, deadline=None)
@given(sweeps())
def test_a_reserved_run_starts_no_later_than_first_promised(sweep):
    nodes, runs = sweep
    done = simulate(runs, nodes)
    began = {s.run.run_id: s.starts for s in done.stretches}
    promised = {}
    for s in done.stretches:
        if s.reserved is not None:
            promised.setdefault(s.reserved.run.run_id, s.reserved.starts)
    for run_id, moment in promised.items():
        assert began[run_id] <= moment + 1e-6


@settings(max_examples=200, deadline=None)
@given(sweeps())
def test_no_schedule_beats_the_lower_bound(sweep):
    nodes, runs = sweep
    done = simulate(runs, nodes)
    assert done.makespan >= done.lower_bound - 1e-6
    assert 0 <= done.utilisation <= 1 + 1e-9


@settings(max_examples=200, deadline=None)
@given(sweeps())
def test_gpus_stay_free_only_for_the_reserved_run(sweep):
    """When the policy waits, nothing fits outside what is kept for the first that does not."""
    nodes, runs = sweep
    cluster, line = Occupancy(nodes), Line(runs)
    while (start := next_start(cluster, line, 0.0)) is not None:
        line.remove(start.run)
        cluster.occupy(start.run.run_id, start.run.demand, start.gpus, start.run.seconds)
    heads = line.heads()
    if not heads:
        return
    kept = {id(gpu) for gpu in reservation(cluster, heads[0], 0.0).gpus}
    for run in line:
        free = [
            [g for g in gpus if g.free >= run.demand.units and id(g) not in kept]
            for gpus in cluster.nodes.values()
        ]
        if run.demand.gpus > cluster.largest_node:
            free = [[gpu for gpus in free for gpu in gpus]]
        assert all(len(gpus) < run.demand.gpus for gpus in free)


def test_a_line_keeps_the_order_of_turn_as_runs_come_and_go():
    runs = [Waiting(f"{k}", Demand(), float(k % 7)) for k in range(20)]
    line = Line(runs[::2])
    for run in runs[1::2]:
        line.add(run)
    order = []
    while line.heads():
        order.append(line.heads()[0])
        line.remove(order[-1])
    assert order == sorted(runs, key=lambda run: (run.seconds, run.run_id), reverse=True)


def test_the_next_of_each_demand_is_found_without_those_that_were_asked_for():
    runs = [Waiting(f"{k}", Demand(gpus=1 + k % 2), float(k)) for k in range(6)]
    line = Line(runs)
    assert {run.run_id for run in line.heads()} == {"5", "4"}
    assert {run.run_id for run in line.heads({"5", "4", "2"})} == {"3", "0"}
    assert [run.run_id for run in line.heads({"5", "3", "1"})] == ["4"]


def test_longer_runs_go_first_and_openers_before_all():
    runs = [
        Waiting("short", Demand(), 1.0),
        Waiting("long", Demand(), 9.0),
        Waiting("wide", Demand(gpus=4), 3.0),
        Waiting("opens", Demand(), 0.5, opens=True),
    ]
    order = [s.run.run_id for s in simulate(runs, [("n", 4)]).stretches]
    assert order.index("opens") == 0
    assert order.index("long") < order.index("short")


def test_36_small_runs_do_not_starve_a_whole_node_run_listed_fifth():
    demands = [Demand()] * 4 + [Demand(gpus=4)] + [Demand()] * 32
    runs = [Waiting(f"{k:02}", demand, 10.0) for k, demand in enumerate(demands)]
    order = [s.run.run_id for s in simulate(runs, [("n", 4)]).stretches]
    assert order.index("04") + 1 <= 6


def test_a_short_run_overtakes_where_it_ends_in_time():
    cluster = Occupancy([("n", 2)])
    cluster.occupy("busy", Demand(), cluster.nodes["n"][:1], 10.0)
    wide, brief = Waiting("wide", Demand(gpus=2), 20.0), Waiting("brief", Demand(), 10.0)
    late = Waiting("late", Demand(), 10.5)
    start = next_start(cluster, Line([wide, late, brief]), 0.0)
    assert start.run == brief
    assert (start.reserved.run, start.reserved.starts) == (wide, 10.0)
    assert next_start(cluster, Line([wide, late]), 0.0) is None


def test_a_node_that_leaves_takes_its_runs_and_one_that_joins_is_used():
    cluster = Occupancy([("a", 1), ("b", 2)])
    cluster.occupy("gang", Demand(gpus=3), [*cluster.nodes["a"], *cluster.nodes["b"]], 9.0)
    assert cluster.remove_node("b") == ["gang"]
    cluster.release("gang")
    assert (cluster.gpus, cluster.free_on) == (1, {"a": UNITS})
    run = Waiting("wide", Demand(gpus=3), 1.0)
    assert next_start(cluster, Line([run]), 0.0) is None
    cluster.add_node("c", 4)
    assert {gpu.node for gpu in next_start(cluster, Line([run]), 0.0).gpus} == {"c"}


@pytest.mark.parametrize(
    ("lengths", "gpus", "bound"),
    [([4, 1, 1], 2, 4), ([3, 3, 3], 2, 6), ([5, 4, 3, 3, 3], 3, 6)],
)
def test_the_bound_knows_that_one_of_two_must_follow(lengths, gpus, bound):
    runs = [Waiting(str(k), Demand(), float(s)) for k, s in enumerate(lengths)]
    assert lower_bound(runs, [("n", gpus)]) == bound


def test_the_bound_knows_that_gangs_do_not_share_a_node():
    runs = [Waiting(str(k), Demand(gpus=5), 2.0) for k in range(4)]
    assert lower_bound(runs, [("a", 8), ("b", 8)]) == 4


@pytest.mark.parametrize("wrong", [{"units": 0}, {"units": 5, "gpus": 2}, {"gpus": 0}])
def test_a_demand_is_a_share_of_one_gpu_or_whole_ones(wrong):
    with pytest.raises(ValueError, match="neither a share"):
        Demand(**wrong)
