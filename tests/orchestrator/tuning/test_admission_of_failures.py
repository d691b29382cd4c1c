"""What follows when runs, processes and nodes fail, from the report to the next start. No Ray."""

import pytest

from orchestrator.policy.failures import ALIKE, LOSSES, NODE_FAILURES
from orchestrator.policy.next_start import Waiting
from orchestrator.policy.occupancy import UNITS, Demand
from tests.simulated.cluster import SimulatedRay
from tests.simulated.sweep import Fate, SimulatedSweep


def alike(count, seconds=30.0, demand=Demand()):  # noqa: B008, a frozen value
    return [Waiting(f"{k:03}", demand, seconds + k) for k in range(count)]


def failing_on(*nodes, what="error", text="RuntimeError: ECC of {run}"):
    """Each run fails at once on some nodes."""

    def fate(run, there, attempt):
        del attempt
        if set(there) & set(nodes):
            return Fate(what, 0.5, text.format(run=run.run_id), mute=True)
        return None

    return fate


def kinds(sweep, run_id):
    return [kind for _, who, kind, _ in sweep.events if who == run_id and kind != "progress"]


# ------------------------------------------------------------------------------ a bad node
@pytest.mark.parametrize("what", ["error", "lost", "gone", "store"])
@pytest.mark.parametrize("demand", [Demand(), Demand(UNITS // 4)], ids=["whole", "shares"])
@pytest.mark.parametrize("others", [{"b": 4}, {"b": 1, "c": 8}], ids=["one other", "two others"])
def test_a_node_on_which_each_run_fails_at_once_is_touched_by_few_and_named(what, demand, others):
    ray = SimulatedRay({"a": 4, **others})
    sweep = SimulatedSweep(ray, alike(40, demand=demand), failing_on("a", what=what))
    ray.run(5000)
    assert set(sweep.ended.values()) == {"finished"}
    assert len(sweep.ended) == 40
    assert len(sweep.touched["a"]) <= NODE_FAILURES
    named = [text for text in sweep.notices if text.startswith("node a is set aside: ")]
    assert len(named) == 1
    assert "3 different runs failed there without a success between; last: " in named[0]


def test_a_node_that_goes_bad_later_is_set_aside_too():
    bad = set()
    ray = SimulatedRay({"a": 4, "b": 4})
    sweep = SimulatedSweep(ray, alike(60), lambda run, on, n: failing_on(*bad)(run, on, n))
    ray.at(100, lambda: bad.add("a"))
    ray.run(5000)
    assert set(sweep.ended.values()) == {"finished"}
    assert len(sweep.ended) == 60
    assert list(sweep.admission.failures.aside) == ["a"]
    assert max(moment for moment, _, on in sweep.tries if on == ("a",)) < 200


def test_a_broken_model_does_not_set_the_only_node_aside():
    ray = SimulatedRay({"a": 2})
    sweep = SimulatedSweep(
        ray,
        alike(20),
        lambda run, *_: (
            Fate("error", 1.0, "ValueError: no such layer", True) if run.run_id < "008" else None
        ),
    )
    ray.run(5000)
    assert list(sweep.ended.values()).count("failed") == 8
    assert len(sweep.ended) == 20
    assert not sweep.admission.failures.aside


def test_an_error_that_is_the_same_on_two_nodes_blames_neither():
    ray = SimulatedRay({"a": 1, "b": 1})
    broken = {f"{k:03}" for k in range(0, 20, 2)}
    sweep = SimulatedSweep(
        ray,
        alike(20),
        lambda run, *_: (
            Fate("error", 1.0, "ValueError: no such layer 7", True)
            if run.run_id in broken
            else None
        ),
    )
    ray.run(5000)
    assert {run_id for run_id, end in sweep.ended.items() if end == "failed"} == broken
    assert len(sweep.ended) == 20
    assert not sweep.admission.failures.aside
    for run_id in broken:
        assert len({on for _, who, on in sweep.tries if who == run_id}) == 2, "tried elsewhere"


def test_a_node_that_was_set_aside_for_what_fails_elsewhere_too_is_used_again():
    """The first three runs, all on one node, are of a model that cannot work anywhere."""
    ray = SimulatedRay({"a": 3, "b": 4})
    broken = {"037", "038", "039"}
    sweep = SimulatedSweep(
        ray,
        alike(40),
        lambda run, *_: (
            Fate("error", 1.0, "ValueError: no such layer", True) if run.run_id in broken else None
        ),
    )
    ray.run(5000)
    assert {run_id for run_id, end in sweep.ended.items() if end == "failed"} == broken
    assert not sweep.admission.failures.aside
    assert [text.split(":")[0] for text in sweep.notices] == [
        "node a is set aside",
        "node a is used again",
    ]
    assert len(sweep.touched["a"]) > 10


def test_a_node_that_cannot_use_the_store_gets_no_run_and_is_named():
    ray = SimulatedRay({"a": 4, "b": 4})
    ray.broken["a"] = "it cannot write to the store"
    sweep = SimulatedSweep(ray, alike(10))
    ray.run(1000)
    assert len(sweep.ended) == 10
    assert not sweep.touched["a"]
    assert sweep.notices == ["node a gets no run for now: it cannot write to the store"]


def test_a_node_that_lost_sight_of_the_store_gets_no_run_until_it_sees_it_again():
    ray = SimulatedRay({"a": 1})
    sweep = SimulatedSweep(
        ray,
        alike(2),
        lambda *_: Fate("node", 1.0, "another store") if ray.now < 30 else None,
    )
    ray.run(60)
    assert sweep.notices[0] == "node a gets no run for now: another store"
    assert not sweep.ended
    ray.broken.clear()
    ray.run(500)
    assert set(sweep.ended.values()) == {"finished"}


# ------------------------------------------------------------------------------ the same cause
def test_so_many_failures_with_one_cause_stop_the_sweep():
    ray = SimulatedRay({"a": 2, "b": 2})
    sweep = SimulatedSweep(
        ray, alike(60), lambda run, *_: Fate("error", 1.0, f"KeyError: column {run.run_id}", True)
    )
    ray.run(5000)
    assert len(sweep.ended) in range(ALIKE, ALIKE + 4)
    assert sweep.admission.stopped.startswith(f"the last {ALIKE} runs failed with one cause: KeyE")
    assert sweep.notices[-1] == f"the sweep stops: {sweep.admission.stopped}"


@pytest.mark.parametrize("mixed", ["causes", "a success between"])
def test_failures_that_are_not_all_alike_do_not_stop_it(mixed):
    texts = ["KeyError: column", "ValueError: shape"]

    def fate(run, *_):
        if mixed != "causes" and int(run.run_id) % 10 == 0:
            return None
        which = int(run.run_id) % 2 if mixed == "causes" else 0
        return Fate("error", 1.0, texts[which], True)

    ray = SimulatedRay({"a": 1})
    sweep = SimulatedSweep(ray, alike(40), fate)
    ray.run(5000)
    assert sweep.admission.stopped is None
    assert len(sweep.ended) == 40


# ------------------------------------------------------------------------------ losses
@pytest.mark.parametrize("what", ["gone", "lost"])
def test_a_run_that_is_lost_without_progress_on_nodes_that_stay_is_given_up_once(what):
    ray = SimulatedRay({"a": 1})
    sweep = SimulatedSweep(
        ray,
        alike(3),
        lambda run, *_: (
            Fate(what, 2.0, "killed by signal 9", True) if run.run_id == "002" else None
        ),
    )
    ray.run(1000)
    assert sweep.ended == {"000": "finished", "001": "finished", "002": "failed"}
    assert kinds(sweep, "002") == ["started", "lost"] * (LOSSES - 1) + ["started", "ended"]
    error = next(
        said["error"] for _, who, kind, said in sweep.events if (who, kind) == ("002", "ended")
    )
    assert error == f"lost {LOSSES} times without getting further; last: killed by signal 9"


def test_losses_between_which_it_gets_further_do_not_count():
    ray = SimulatedRay({"a": 1})
    sweep = SimulatedSweep(
        ray,
        [Waiting("a", Demand(), 100.0)],
        lambda *_: Fate("gone", 12.0, "killed") if _[2] < 9 else None,
    )
    ray.run(1000)
    assert sweep.ended == {"a": "finished"}
    assert len(sweep.tries) == 9


def test_steps_that_were_made_before_are_no_progress():
    ray = SimulatedRay({"a": 1})

    def loses_its_checkpoints(run, *_):
        sweep.trials[run.run_id].done = 0.0
        return Fate("gone", 12.0, "killed")

    sweep = SimulatedSweep(ray, [Waiting("a", Demand(), 100.0)], loses_its_checkpoints)
    ray.run(1000)
    assert sweep.ended == {"a": "failed"}
    assert len(sweep.tries) == LOSSES


def test_losses_with_their_nodes_do_not_count():
    ray = SimulatedRay({f"spot {k}": 1 for k in range(7)})
    sweep = SimulatedSweep(ray, [Waiting("a", Demand(), 300.0)], report_seconds=1000.0)

    def takes_its_node_away():
        if sweep.tries and len(ray.free) > 1:
            ray.leave(sweep.tries[-1][2][0])

    for k in range(6):
        ray.at(20 + 20 * k, takes_its_node_away)
    ray.run(2000)
    assert sweep.ended == {"a": "finished"}
    assert len(sweep.tries) == 7


def test_a_preempted_run_goes_on_elsewhere_however_often():
    ray = SimulatedRay({"a": 1, "b": 1})
    sweep = SimulatedSweep(
        ray,
        [Waiting("a", Demand(), 100.0)],
        lambda *_: Fate("preempted", 6.0) if _[2] < 12 else None,
    )
    ray.run(2000)
    assert sweep.ended == {"a": "finished"}
    assert len(sweep.tries) == 12
    assert not sweep.admission.failures.aside
    assert sweep.tries[0][2] != sweep.tries[1][2]


@pytest.mark.parametrize("what", ["error", "gone", "preempted"])
def test_a_run_that_has_failed_on_every_node_starts_on_one_of_them_again(what):
    """Once on each: the node that it is off last is none that it finds no place without."""
    ray = SimulatedRay({"a": 4, "b": 2, "c": 2})
    once = {("a",), ("b",), ("b", "c"), ("c", "b")}

    def fate(run, on, attempt):
        del run, attempt
        if on in once:
            once.discard(on)
            return Fate(what, 1.0, f"wrong on {on}", True)
        return None

    sweep = SimulatedSweep(ray, [Waiting("gang", Demand(gpus=4), 20.0)], fate, largest=4)
    ray.run(500)
    assert sweep.ended == {"gang": "finished"}
    assert {on for _, _, on in sweep.tries} == {("a",)}, "the only one with four GPUs"


def test_a_lost_run_that_waits_for_another_node_takes_its_own_where_that_one_leaves():
    lost = iter([Fate("gone", 2.0, "killed by signal 9")])
    ray = SimulatedRay({"a": 1, "b": 1})
    sweep = SimulatedSweep(
        ray, alike(2, 100.0), lambda _, on, __: next(lost, None) if on == ("a",) else None
    )
    ray.at(30, lambda: ray.leave("b"))
    ray.run(2000)
    assert set(sweep.ended.values()) == {"finished"}
    assert len(sweep.ended) == 2


def test_a_mistake_fails_at_once_and_a_run_that_was_superseded_starts_again():
    ray = SimulatedRay({"a": 1})
    what = {"000": "mistake", "001": "superseded"}
    sweep = SimulatedSweep(
        ray,
        alike(3),
        lambda run, _, n: (
            Fate(what[run.run_id], 1.0, "so") if n == 1 and run.run_id in what else None
        ),
    )
    ray.run(500)
    assert sweep.ended == {"000": "failed", "001": "finished", "002": "finished"}
    assert kinds(sweep, "000") == ["started", "ended"]
    assert kinds(sweep, "001") == ["started", "again", "started", "ended"]


def test_what_fails_while_the_store_is_away_goes_back_into_the_line():
    ray = SimulatedRay({"a": 2})
    away = {"why": "it is not mounted"}
    fates = {what: Fate(what, 1.0, f"{what}: no such file", True) for what in ("mistake", "error")}
    sweep = SimulatedSweep(
        ray,
        alike(2),
        lambda run, *_: fates["mistake" if run.run_id == "000" else "error"] if away else None,
    )
    sweep.admission._store_looked_at = lambda: away.get("why")
    ray.run(20)
    assert not sweep.ended
    away.clear()
    ray.run(500)
    assert set(sweep.ended.values()) == {"finished"}


def test_a_trial_that_says_nothing_for_long_is_to_be_ended_once():
    ray = SimulatedRay({"a": 2})
    sweep = SimulatedSweep(ray, alike(2, 9000.0), lambda *_: Fate("finished", 9000.0, "", True))
    ray.run(100)
    both = ["000", "001"]
    assert sweep.admission.silent(both) == []
    ray.run(2000)
    assert sweep.admission.silent(both) == both
    assert sweep.admission.silent(both) == []
