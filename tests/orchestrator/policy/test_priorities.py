"""Weights of demands: those that the simulator likes best."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.policy.next_start import NO_WEIGHTS, Line, Waiting
from orchestrator.policy.occupancy import Demand, Occupancy
from orchestrator.policy.priorities import Weights, weights_for
from orchestrator.policy.simulation import simulate, starts

EIGHT = [("n", 8)]


def mixed(seed, runs=60):
    draw = random.Random(seed)
    sizes = [0.25, 0.25, 0.5, 0.5, 1, 1, 2, 4]
    return [
        Waiting(f"{k:02}", Demand.of(draw.choice(sizes)), draw.uniform(3, 30)) for k in range(runs)
    ]


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([0.0, 3.0, 20.0]))
def test_no_sweep_ends_later_than_with_the_usual_weights(seed, start_seconds):
    runs = mixed(seed, runs=20)
    usual = simulate(runs, EIGHT, start_seconds=start_seconds)
    weights = weights_for(runs, EIGHT, start_seconds)
    assert simulate(runs, EIGHT, weights, start_seconds).makespan <= usual.makespan


def test_mixed_sweeps_come_nearer_to_their_bound():
    ratios = []
    for seed in range(4):
        runs = mixed(seed)
        ratios.append(simulate(runs, EIGHT, weights_for(runs, EIGHT)).ratio)
    assert sum(ratios) / 4 < 1.03


def test_the_same_runs_get_the_same_weights():
    assert weights_for(mixed(1), EIGHT) == weights_for(mixed(1), EIGHT)


def test_the_rest_of_a_sweep_is_weighed_anew_from_where_it_is():
    """On a cluster that is busy, with runs that take twice as long as was estimated."""
    cluster = Occupancy(EIGHT)
    cluster.occupy("there", Demand(gpus=4), cluster.nodes["n"][:4], 140.0)
    runs = mixed(3, runs=30)

    def end(weights):
        found = starts(cluster.copy(), Line(runs, weights), 100.0, 2.0)
        return max(begins + 2.0 * start.run.seconds for begins, start in found)

    weights = Weights(run.demand for run in runs)
    weights.improve(cluster, runs, 100.0, 2.0)
    assert end(weights.best) < end(NO_WEIGHTS)
    before = end(weights.best)
    weights.improve(cluster, runs, 100.0, 2.0)
    assert end(weights.best) <= before
    assert list(cluster.placed) == ["there"]


@pytest.mark.parametrize(
    "runs",
    [
        [Waiting(f"{k:05}", Demand(gpus=1 + k % 2), 1.0) for k in range(24_000)],
        [Waiting(f"{k}", Demand(), 1.0 + k) for k in range(9)],
        [],
    ],
    ids=["large", "alike", "none"],
)
def test_sweeps_with_nothing_to_gain_keep_the_usual_weights(runs):
    assert weights_for(runs, EIGHT) is NO_WEIGHTS
