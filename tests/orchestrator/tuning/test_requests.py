"""What runs ask for on the nodes there are, and what an attempt teaches: no Ray is started."""

import pytest
from small_run import make_run

from orchestrator.policy.occupancy import UNITS, Demand
from orchestrator.sizing.estimates import NOTHING_MEASURED
from orchestrator.sizing.memory import GIB
from orchestrator.sizing.placement import Node, with_half_the_micro_batch
from orchestrator.tuning.requests import Requests, Works, _within, demand_of_request
from sweeps.errors import UserError
from sweeps.spec import EqualStep, Execution, HubModel, Measurement, ModelSpec, RunSpec

SMALL, LARGE = 24, 80


def node(name, gib, gpus=4, cpus=16, memory=400.0):
    return Node(name, cpus, gpus, float(cpus), float(gpus), memory * GIB, gib and gib * GIB)


def a_run(hub="openai-community/gpt2", seed=0, **fields):
    source = HubModel(hub=hub, revision="0" * 40, pretraining="clm")
    settings = {"steps": 90, "batch_size": 16, "sequence_length": 128, **fields}
    return make_run(model=ModelSpec(name=hub.split("/")[-1], source=source), seed=seed, **settings)


BIG = "facebook/opt-1.3b"  # whole on a large GPU, in two on small ones
HUGE = "EleutherAI/pythia-6.9b"


def requests_of(*runs, measurements=(), **fields):
    return Requests(Works(runs, measurements, "s3://b/x", "f00", NOTHING_MEASURED, **fields))


def fitted(runs, *nodes, to_come=(), **fields):
    """Return the requests, and for the first run its request and how the policy sees it."""
    requests = requests_of(*runs, **fields)
    waiting = requests.fit(nodes, to_come)
    first = runs[0].run_id
    return requests, requests[first], waiting[first]


# ------------------------------------------------------------------------------------- sizes
def test_a_request_says_the_run_its_store_and_what_each_process_holds():
    run = a_run()
    _, request, waiting = fitted([run], node("n", LARGE))
    assert RunSpec.model_validate_json(request.spec).run_id == request.run_id == run.run_id
    assert (request.store, request.store_id) == ("s3://b/x", "f00")
    assert (request.holds["GPU"], request.holds["CPU"], request.threads) == (1.0, 4, 4)
    assert request.holds["memory"] > 0.1 * GIB
    assert (request.ranks, request.spread, request.fresh) == (1, False, True)
    assert waiting.demand == demand_of_request(request) == Demand()


def test_runs_that_are_many_share_gpus_and_what_is_beside_them():
    runs = [a_run(seed=seed) for seed in range(40)]
    _, request, waiting = fitted(runs, node("n", LARGE), runs_per_gpu=2)
    assert (request.holds["GPU"], request.holds["CPU"], request.threads) == (0.5, 2.0, 2)
    assert waiting.demand == demand_of_request(request) == Demand(UNITS // 2)


@pytest.mark.parametrize(
    ("sizes", "ranks", "barred"),
    [
        ((SMALL,), 2, set()),
        ((LARGE,), 1, set()),
        ((SMALL, LARGE), 1, {"n0"}),
        ((SMALL, LARGE, SMALL), 1, {"n0", "n2"}),
    ],
)
def test_with_gpus_of_two_sizes_a_run_is_cut_for_those_it_needs_fewest_of(sizes, ranks, barred):
    nodes = [node(f"n{k}", gib) for k, gib in enumerate(sizes)]
    _, request, waiting = fitted([a_run(BIG)], *nodes)
    assert (request.ranks, request.spread) == (ranks, False)
    assert waiting.barred == barred
    assert waiting.demand.gpus == ranks
    assert RunSpec.model_validate_json(request.spec).execution.processes == ranks


def test_a_run_that_fits_everywhere_may_go_everywhere():
    _, _, waiting = fitted([a_run()], node("s", SMALL), node("l", LARGE))
    assert waiting.barred == set()


def test_a_gang_is_spread_only_where_no_node_is_large_enough():
    wide, narrow = (
        [node(f"n{k}", LARGE, gpus=4) for k in range(2)],
        [node(f"n{k}", LARGE, gpus=2, cpus=8) for k in range(4)],
    )
    assert [fitted([a_run(HUGE)], *nodes)[1].spread for nodes in (wide, narrow)] == [False, True]
    assert {fitted([a_run(HUGE)], *nodes)[1].ranks for nodes in (wide, narrow)} == {4}


@pytest.mark.parametrize("most", [1, 2, 3])
def test_no_run_is_cut_for_more_gpus_than_it_may_hold(most):
    nodes = [node("s", SMALL), node("l", LARGE)]
    for hub in (BIG, HUGE):
        _, request, _ = fitted([a_run(hub)], *nodes, most_gpus=most)
        assert request.ranks <= most
    fixed = a_run(execution=Execution(processes=4, engine="deepspeed", zero_stage=2))
    with pytest.raises(UserError):
        fitted([fixed], *nodes, most_gpus=most)


def test_without_gpus_each_run_holds_a_cpu_and_may_follow_another_in_its_process():
    _, request, waiting = fitted([a_run(), a_run(BIG)], node("n", None, gpus=0))
    assert (request.holds, request.threads, request.fresh) == ({"CPU": 1.0}, 1, False)
    assert waiting.demand == Demand()


def test_a_measurement_holds_a_gpu_and_is_made_by_its_own_body():
    one = Measurement(kind="propagation", run=a_run())
    requests = requests_of(measurements=[one])
    waiting = requests.fit([node("n", LARGE)])
    request = requests[one.work_id]
    assert set(waiting) == {one.work_id}
    assert request.body == "workers.rank_run:measure_rank"
    assert Measurement.model_validate_json(request.spec) == one
    assert request.holds["GPU"] == 1.0
    assert requests.with_less_memory(requests[one.work_id]) is None


# ------------------------------------------------------------------------------------- nodes
def test_nodes_that_are_the_same_as_before_change_nothing():
    requests = requests_of(a_run())
    assert requests.fit([node("n", LARGE)]) is not None
    busy = Node("n", 16, 4, 0.0, 0.0, 400 * GIB, LARGE * GIB)
    assert requests.fit([busy]) is None
    assert requests.fit([busy, node("m", LARGE)]) is not None


def test_a_node_that_joins_with_fewer_cpus_a_gpu_has_all_hold_fewer():
    run = a_run()
    requests, request, _ = fitted([run], node("n", LARGE))
    assert request.holds["CPU"] == 4
    requests.fit([node("n", LARGE), node("m", LARGE, cpus=8)])
    assert (requests[run.run_id].holds["CPU"], requests[run.run_id].threads) == (2, 2)
    requests.fit([node("n", LARGE)])
    assert requests[run.run_id].holds["CPU"] == 4


def test_a_larger_node_that_joins_has_a_gang_cut_anew():
    run = a_run(BIG)
    requests, request, _ = fitted([run], node("s", SMALL))
    assert request.ranks == 2
    waiting = requests.fit([node("s", SMALL), node("l", LARGE)])
    assert requests[run.run_id].ranks == 1
    assert waiting[run.run_id].barred == {"s"}


def test_what_may_come_is_counted_on():
    _, request, waiting = fitted([a_run(BIG)], node("s", SMALL), to_come=[node("l 0", LARGE)])
    assert (request.ranks, "s" in waiting.barred) == (1, True)


def test_nodes_to_come_of_gpus_that_nobody_describes_are_not_taken_to_be_large():
    unknown = node("u 0", None)
    _, request, waiting = fitted([a_run(BIG)], node("s", SMALL), to_come=[unknown])
    assert (request.ranks, waiting.demand.gpus) == (2, 2)


def test_a_run_keeps_off_nodes_whose_memory_does_not_suffice():
    nodes = [node("low", LARGE, memory=30), node("high", LARGE)]
    _, request, waiting = fitted([a_run(HUGE)], *nodes)
    assert request.ranks * request.holds["memory"] > 30 * GIB
    assert waiting.barred == {"low"}
    with pytest.raises(UserError, match="GiB of a machine's memory"):
        fitted([a_run(HUGE)], nodes[0])


def test_memory_is_not_asked_for_where_a_node_does_not_say_what_it_has():
    _, request, waiting = fitted(
        [a_run(HUGE)], node("n", LARGE), to_come=[node("m", LARGE, memory=0)]
    )
    assert request.holds["memory"] == 0
    assert waiting.barred == set()


# ---------------------------------------------------------------------------- out of memory
def micro_batch(request):
    return RunSpec.model_validate_json(request.spec).micro_batch_size


def test_the_end_of_a_gpus_memory_halves_the_micro_batch_of_all_runs_of_the_shape():
    runs = [a_run(seed=0), a_run(seed=1, control=EqualStep()), a_run(sequence_length=64)]
    requests, *_ = fitted(runs, node("n", LARGE))
    retried = requests.with_less_memory(requests[runs[0].run_id])
    assert micro_batch(retried) == 8
    taught = [requests.taught(requests[run.run_id]) for run in runs]
    assert [micro_batch(one) for one in taught] == [8, 8, 16]
    assert [RunSpec.model_validate_json(one.spec).run_id for one in taught] == [
        run.run_id for run in runs
    ]


def lessons(runs, *nodes, **fields):
    """Return what the first run is told each time that it met the end of a GPU's memory."""
    requests, *_ = fitted(runs, *nodes, **fields)
    found, request = [], requests[runs[0].run_id]
    while (request := requests.with_less_memory(request)) is not None:
        found.append((micro_batch(request), request.holds["GPU"]))
        assert len(found) < 20
    return requests, found


def test_then_it_gets_a_gpu_of_its_own_and_then_nothing():
    runs = [a_run(seed=seed) for seed in range(40)]
    requests, found = lessons(runs, node("n", LARGE), runs_per_gpu=2)
    assert found == [(8, 0.5), (4, 0.5), (2, 0.5), (1, 0.5), (1, 1.0)]
    other = requests.taught(requests[runs[7].run_id])
    assert (micro_batch(other), other.holds["GPU"], other.holds["CPU"]) == (1, 1.0, 4)
    assert (other.threads, demand_of_request(other)) == (4, Demand())


def test_one_that_had_one_sequence_at_a_time_gets_a_gpu_of_its_own_at_once():
    execution = Execution(micro_batch_size=1)
    runs = [a_run(seed=seed, execution=execution) for seed in range(40)]
    assert lessons(runs, node("n", LARGE), runs_per_gpu=2)[1] == [(1, 1.0)]


def test_one_that_had_a_gpu_of_its_own_fails_in_the_end():
    assert lessons([a_run()], node("n", LARGE))[1] == [(8, 1.0), (4, 1.0), (2, 1.0), (1, 1.0)]


def test_what_was_learnt_is_kept_when_nodes_change():
    run = a_run()
    requests, *_ = fitted([run], node("n", LARGE))
    requests.with_less_memory(requests[run.run_id])
    requests.fit([node("n", LARGE), node("m", LARGE)])
    assert micro_batch(requests.taught(requests[run.run_id])) == 8


@pytest.mark.parametrize(
    ("batch", "micro", "processes", "half"),
    [
        *[(16, None, 1, 8), (16, 2, 1, 1), (16, 1, 1, None)],
        *[(9, None, 1, 3), (7, None, 1, 1), (12, 4, 3, 2), (24, None, 2, 6), (30, None, 2, 5)],
    ],
)
def test_a_smaller_micro_batch_divides_the_batch_and_keeps_the_run(batch, micro, processes, half):
    execution = {"micro_batch_size": micro}
    if processes > 1:
        execution |= {"processes": processes, "engine": "deepspeed", "zero_stage": 2}
    run = a_run(batch_size=batch, execution=Execution(**execution))
    found = with_half_the_micro_batch(run.model_dump_json())
    smaller = found and RunSpec.model_validate_json(found)
    assert (smaller and smaller.micro_batch_size) == half
    assert smaller is None or smaller.run_id == run.run_id


def test_runs_that_meet_the_end_of_memory_side_by_side_learn_one_lesson():
    runs = [a_run(seed=seed) for seed in range(6)]
    requests, *_ = fitted(runs, node("n", LARGE))
    started = [requests[run.run_id] for run in runs]
    assert [micro_batch(requests.with_less_memory(one)) for one in started] == [8] * 6


def test_what_was_sized_for_gpus_is_as_it_was_where_those_leave_or_one_run_fits_nowhere():
    wide = a_run(seed=1, execution=Execution(engine="deepspeed", processes=4, zero_stage=2))
    runs = [a_run(), wide]
    head = Node("head", 2, 0, 2.0, 0.0, 400.0 * GIB)
    requests, request, _ = fitted(runs, node("n", LARGE), head)
    assert requests.fit([head]) is None
    with pytest.raises(UserError):
        requests.fit([node("m", LARGE, gpus=1), head])
    assert requests[runs[0].run_id] == request
    assert requests.placement.gpus


def test_gpus_without_cpus_are_named_and_lower_nobodys_share():
    bare = node("bare", LARGE, cpus=0)
    with pytest.raises(UserError, match="offer no CPUs"):
        fitted([a_run()], bare)
    _, request, _ = fitted([a_run()], bare, node("n", LARGE))
    assert request.holds["CPU"] == 4


@pytest.mark.parametrize(
    ("most", "counted"),
    [(None, {80: 4, 24: 8}), (6, {80: 4, 24: 2}), (3, {80: 3, 24: 0}), (99, {80: 4, 24: 8})],
)
def test_of_gpus_that_are_more_than_may_be_held_the_largest_count(most, counted):
    assert _within({24: 8, 80: 4}, most) == counted


def test_gpus_of_no_known_size_are_the_smallest():
    assert _within({None: 2, 24: 2}, 3) == {24: 2, None: 1}
