"""When runs start on clusters that others use, too, that grow, or that a user limits. No Ray."""

from dataclasses import replace

import pytest
from small_run import make_run

from orchestrator.ledger.sweep_account import Limits
from orchestrator.policy.next_start import Waiting
from orchestrator.policy.occupancy import UNITS, Demand
from orchestrator.sizing.estimates import NOTHING_MEASURED
from orchestrator.tuning.requests import Requests, Works
from sweeps.sources.catalog import CATALOG
from sweeps.spec import Execution, HubModel, ModelSpec, RunSpec
from tests.simulated.cluster import SimulatedRay, node
from tests.simulated.sweep import Fate, PlainRequests, SimulatedSweep


def alike(count, seconds=50.0, gpus=1, name=""):
    return [Waiting(f"{name}{k:03}", Demand.of(gpus), seconds + k) for k in range(count)]


def starts(sweep, run_id):
    return [moment for moment, who, _ in sweep.tries if who == run_id]


# ------------------------------------------------------------------------------ beside others
def test_beside_a_tenant_the_rest_works_on_and_the_whole_node_run_starts_when_it_leaves():
    ray = SimulatedRay({"n": 8})
    tenant = ray.hold(4)
    runs = [Waiting("wide", Demand(gpus=8), 500.0), *alike(30, 30.0)]
    sweep = SimulatedSweep(ray, runs)
    assert sweep.admission.books.line.heads()[0].run_id == "wide"
    ray.run(150)
    before = [who for _, who, _ in sweep.tries]
    assert len(before) >= 12
    assert "wide" not in before
    assert sweep.placed() == 4
    ray.give_back(tenant)
    ray.run(3000)
    assert set(sweep.ended.values()) == {"finished"}
    assert len(sweep.ended) == 31
    # As soon as those that ran then have ended: no other overtakes it.
    assert starts(sweep, "wide")[0] < 150 + 80
    assert any(text.startswith("waiting: wide waits for 8 GPUs: others hold 4 of 8")
               for text in sweep.notices)  # fmt: skip


def test_a_tenant_that_holds_all_is_waited_for_and_that_is_said():
    ray = SimulatedRay({"n": 2})
    tenant = ray.hold(2)
    sweep = SimulatedSweep(ray, alike(3))
    ray.run(60)
    assert sweep.tries == []
    assert sweep.notices == ["waiting: 002 waits for a GPU: others hold 2 of 2"]
    assert sweep.held() == 1, "one is asked for, so that Ray knows"
    ray.give_back(tenant)
    ray.run(1000)
    assert len(sweep.ended) == 3


@pytest.mark.parametrize("later", [0, 100])
def test_two_sweeps_share_a_cluster_and_neither_starves(later):
    ray = SimulatedRay({"a": 4, "b": 4})
    first = SimulatedSweep(ray, alike(60))
    ray.run(later)
    second = SimulatedSweep(ray, alike(60))
    shared = {first.group: [], second.group: []}
    for _ in range(20):
        ray.run(ray.now + 30)
        for sweep in (first, second):
            shared[sweep.group].append(sweep.placed())
    means = [sum(held[4:]) / len(held[4:]) for held in shared.values()]
    assert min(means) > 2.5, "of 8 GPUs, half each"
    ray.run(5000)
    assert len(first.ended) == len(second.ended) == 60


def test_a_sweep_that_is_alone_again_takes_all_there_is():
    ray = SimulatedRay({"n": 8})
    SimulatedSweep(ray, alike(4, 20.0))
    long = SimulatedSweep(ray, alike(40, 40.0))
    ray.run(150)
    assert long.placed() == 8


# ------------------------------------------------------------------------------ nodes that come
def test_from_no_node_runs_are_asked_for_as_may_come_gangs_included():
    ray = SimulatedRay({}, brings=(3, 4))
    runs = [Waiting("gang", Demand(gpus=4), 90.0), *alike(20)]
    sweep = SimulatedSweep(ray, runs, largest=4)
    ray.run(30)
    assert sweep.held() == 12
    assert sweep.tries == []
    ray.run(2000)
    assert set(sweep.ended.values()) == {"finished"}
    assert len(sweep.ended) == 21
    assert len(sweep.touched) == 3, "each node that came was used"
    assert sweep.most_held <= 12


def test_a_gang_over_several_nodes_to_come_starts_once_all_of_them_are_there():
    ray = SimulatedRay({}, brings=(2, 4))
    sweep = SimulatedSweep(ray, [Waiting("gang", Demand(gpus=6), 30.0)], largest=4)
    ray.run(500)
    assert sweep.ended == {"gang": "finished"}
    assert len(sweep.tries[0][2]) == 2


def test_what_was_asked_for_a_node_to_come_is_taken_to_be_where_it_says():
    """Ray has it on a node there is, and the books have its place for another run."""
    ray = SimulatedRay({"n": 1}, brings=(1, 1), bring_seconds=10_000)
    sweep = SimulatedSweep(ray, alike(3, 20.0))
    ray.run(2)
    assert sweep.held() == 2
    ray.run(200)
    assert len(sweep.ended) == 3
    assert sweep.most_held == 2
    assert sweep.admission.books.cluster.placed == {}


def while_a_node_joins_and_the_first_leaves():
    """Return a sweep that was carried out meanwhile."""
    ray = SimulatedRay({"n": 1})
    sweep = SimulatedSweep(ray, alike(8))
    ray.at(10, lambda: ray.join("late", 3))
    ray.at(40, lambda: ray.leave("n"))
    ray.run(1000)
    assert len(sweep.ended) == 8
    return sweep


def test_a_node_that_joins_is_used_and_one_that_leaves_gives_its_runs_to_others():
    sweep = while_a_node_joins_and_the_first_leaves()
    assert {kind for _, _, kind, _ in sweep.events} >= {"lost"}
    assert len(set(sweep.touched["late"])) == 8
    assert len(sweep.touched["n"]) == 1


def test_sizes_are_fitted_to_the_nodes_when_these_change_and_only_then(monkeypatch):
    fitted = []

    def fit(_, here, __):
        fitted.append(sorted(node.name for node in here))

    monkeypatch.setattr(PlainRequests, "fit", fit)
    while_a_node_joins_and_the_first_leaves()
    assert fitted[-2:] == [["late", "n"], ["late"]]
    assert len(fitted) <= 3


def test_a_gang_that_no_node_has_room_for_is_waited_for_and_that_is_said():
    ray = SimulatedRay({"n": 4})
    sweep = SimulatedSweep(ray, [Waiting("gang", Demand(gpus=6), 90.0), *alike(6, 20.0)])
    ray.run(300)
    assert len(sweep.ended) == 6
    assert sweep.notices == ["waiting: gang waits for 6 GPUs: the nodes there are have 4"]
    ray.join("late", 8)
    ray.run(600)
    assert sweep.ended["gang"] == "finished"


def test_no_node_and_nodes_to_come_are_said_once_that_lasts():
    ray = SimulatedRay({})
    none = SimulatedSweep(ray, alike(1))
    ray.run(8)
    assert none.notices == []
    ray.run(20)
    assert none.notices == ["waiting: no node is there yet"]
    ray = SimulatedRay({"n": 1}, brings=(1, 1), bring_seconds=500)
    some = SimulatedSweep(ray, alike(9, 400.0))
    ray.run(100)
    assert some.notices == ["waiting: 1 run waits for nodes to come"]


# ------------------------------------------------------------------------------ limits
def test_most_runs_side_by_side():
    ray = SimulatedRay({"n": 8})
    sweep = SimulatedSweep(ray, alike(9), limits=Limits(most=3))
    ray.run(1000)
    assert (len(sweep.ended), sweep.most_side_by_side) == (9, 3)


def test_most_gpus_count_shares_and_gangs_and_what_is_asked_of_nodes_to_come():
    ray = SimulatedRay({"n": 2}, brings=(4, 2), bring_seconds=20.0)
    runs = [*alike(4, gpus=2, name="wide"), *alike(12, gpus=0.5)]
    sweep = SimulatedSweep(ray, runs, limits=Limits(most_gpus=4), largest=2)
    ray.run(2000)
    assert (len(sweep.ended), sweep.most_held) == (16, 4)


def ended_one_after_another(leave_seconds):
    """Return the Ray and the moments of starts of four runs on at most two GPUs of one's own."""
    ray = SimulatedRay({}, brings=(4, 1), bring_seconds=20.0, leave_seconds=leave_seconds)
    sweep = SimulatedSweep(ray, alike(4, 30.0), limits=Limits(most_gpus=2))
    ray.run(300)
    assert len(sweep.ended) == 4
    return ray, sorted(moment for moment, *_ in sweep.tries)


def test_a_place_that_is_being_left_is_waited_for_and_no_other_node_comes_for_the_next_run():
    ray, starts = ended_one_after_another(leave_seconds=5.0)
    assert ray.brought == 2
    _, at_once = ended_one_after_another(leave_seconds=0.0)
    assert all(0 <= late - early <= 7 for late, early in zip(starts, at_once, strict=True))


def test_a_place_that_is_never_left_is_not_waited_for_without_end():
    _, starts = ended_one_after_another(leave_seconds=100.0)
    assert starts[-1] < 300


def test_a_time_budget_stops_the_sweep_and_says_so():
    ray = SimulatedRay({"n": 1})
    sweep = SimulatedSweep(ray, alike(9), limits=Limits(seconds=120))
    ray.run(1000)
    assert sweep.admission.stopped == "the time budget is used up"
    assert sweep.notices == ["the sweep stops: the time budget is used up"]
    assert 120 < ray.now < 125
    assert 1 <= len(sweep.ended) < 9


# ------------------------------------------------------------------------------ the store
def test_while_the_store_is_away_no_run_starts_and_those_that_gave_up_wait_in_line():
    ray = SimulatedRay({"n": 2})
    gives_up = {"003"}

    def fate(run, nodes, attempt):
        del nodes, attempt
        if run.run_id in gives_up:
            gives_up.clear()
            return Fate("store", 20.0, "StoreUnavailable: no route to host")
        return None

    sweep = SimulatedSweep(ray, alike(4), fate)
    ray.at(10, lambda: setattr(sweep, "away", "no route to host"))
    ray.run(300)
    assert len(sweep.tries) == 2, "those that ran when it went"
    assert [kind for _, who, kind, _ in sweep.events if who == "003" and kind != "progress"] == [
        "started",
        "again",
    ]
    assert sweep.notices == ["waiting: no run is started while the store is away: no route to host"]
    sweep.away = None
    ray.run(1000)
    assert set(sweep.ended.values()) == {"finished"}
    assert len(sweep.ended) == 4


# ------------------------------------------------------------------------------ out of memory
@pytest.mark.parametrize("shares", [False, True])
def test_out_of_memory_halves_for_every_run_of_the_shape_then_gives_a_gpu(shares):
    """Two seeds of one shape, and a run of another, which stays as it is."""
    execution = Execution(micro_batch_size=4)
    known = CATALOG["pythia-160m"]
    hub = HubModel(hub=known.hub, revision=known.revision, pretraining="clm")
    shape = {"model": ModelSpec(name="pythia-160m", source=hub), "execution": execution}
    runs = [make_run(seed=seed, **shape) for seed in (1, 2)]
    other = make_run(seed=1, sequence_length=32, **shape)
    works = Works([*runs, other], [], "store", "", NOTHING_MEASURED, 3 if shares else 1)
    requests = Requests(works)
    here = [node("n", [UNITS])]
    waiting = requests.fit(here)
    asked = []

    def fate(run, nodes, attempt):
        del nodes, attempt
        request = requests.taught(requests[run.run_id])
        execution = RunSpec.model_validate_json(request.spec).execution
        asked.append((run.run_id, execution.micro_batch_size, request.holds["GPU"]))
        first = run.run_id == runs[0].run_id and len([a for a in asked if a[0] == run.run_id]) < 4
        return Fate("memory", 1.0, "OutOfMemoryError: 2 GiB") if first else None

    brief = [replace(one, seconds=20.0, opens=False) for one in waiting.values()]
    brief = [replace(one, opens=one.run_id == runs[0].run_id) for one in brief]
    ray = SimulatedRay({"n": 1})
    sweep = SimulatedSweep(ray, brief, fate, Limits(most=1), requests=requests)
    ray.run(50)
    ray.join("late", 1)  # all is sized anew, and what was learnt stays
    ray.run(600)
    assert sweep.most_held <= 1
    share = 0.3333 if shares else 1.0
    of = [[a[1:] for a in asked if a[0] == one.run_id] for one in (*runs, other)]
    first = [(4, share), (2, share), (1, share), *([(1, 1.0)] if shares else [])]
    assert of[0] == [(n, pytest.approx(held, abs=1e-3)) for n, held in first]
    assert of[1] == [(1, 1.0)]
    assert of[2] == [(4, 0.5 if shares else 1.0)], "three runs on two GPUs, by then"
    ends = sweep.ended
    assert ends.pop(runs[0].run_id) == ("finished" if shares else "failed")
    assert set(ends.values()) == {"finished"}
