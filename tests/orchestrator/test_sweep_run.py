"""A sweep as a function: what it tells each trial, and what it returns."""

from dataclasses import replace

import pytest
import torch
from planted_store import write_run
from small_run import make_run

from orchestrator.ledger.recovery import Action, MeasureAction
from orchestrator.ledger.sweep_account import Limits, Listener, Plan, SweepResult
from orchestrator.sweep_run import (
    _account_for_the_rest,
    _note,
    _unsound,
    plan_sweep,
    run_sweep,
)
from sweeps.declaration.expand import Sweep, read_sweep
from sweeps.spec import Optimizer, measurements_of
from sweeps.store.store import Store
from workers.train import train

PAPER = list(read_sweep("sweeps/library/paper.yaml").runs)
DEMO = list(read_sweep("sweeps/library/demo.yaml").runs)


@pytest.fixture
def store(tmp_path):
    store = Store.at(str(tmp_path / "store"))
    store.identify()
    return store


def test_a_failed_measurement_is_a_failure_beside_runs_that_all_have_a_result(store):
    (one,) = measurements_of([make_run()], ["propagation"])
    result, running = SweepResult("s", 0, {"a": "finished"}), set()
    _note(result, running, one.work_id, "started", {})
    _note(result, running, one.work_id, "ended", {"status": "failed", "error": "RuntimeError: no"})
    assert (result.ended, result.measured) == ({"a": "finished"}, {one.work_id: "failed"})
    assert (result.exit_code, result.errors) == (1, {one.work_id: "RuntimeError: no"})
    stopped = SweepResult("s", 0)
    action = MeasureAction(one, "measure", "new")
    plan = Plan(Sweep("s", "", "", (one.run,)), store, [], measures=[action])
    _account_for_the_rest(plan, {one.work_id}, stopped)
    assert (stopped.measured, stopped.ended) == ({one.work_id: "cancelled"}, {})
    _account_for_the_rest(plan, set(), other := SweepResult("s", 0))
    assert other.measured == {one.work_id: "not started"}


class Heard(Listener):
    """Writes down what it is told."""

    def __init__(self):
        self.said = []

    def planned(self, plan):
        self.said.append(("planned", len(plan.to_run)))

    def starting(self, _, room):
        self.said.append(("starting", room.size))

    def event(self, run_id, kind, _):
        self.said.append((kind, run_id))


def test_a_sweep_returns_what_became_of_its_runs_and_tells_its_listener(store, capsys):
    runs = (make_run(), make_run(optimizer=Optimizer(learning_rate=1e18), steps=50))
    sweep, heard = Sweep("two", "", "name: two", runs), Heard()
    first = run_sweep(sweep, store, limits=Limits(most=1), listener=heard)
    assert first.ended == {runs[0].run_id: "finished", runs[1].run_id: "diverged"}
    assert (first.exit_code, first.skipped, first.unsound) == (0, 0, {})
    assert heard.said[0] == ("planned", 2)
    assert heard.said[1][0] == "starting"
    assert len(first.grid) == 3, "a row a run and a measurement"
    assert {("started", run.run_id) for run in runs} <= set(heard.said)
    (propagation,) = sweep.to_measure
    assert first.measured == {propagation.work_id: "finished"}
    assert ("ended", propagation.work_id) in heard.said
    assert capsys.readouterr().out == ""

    (part, *_) = store.run(runs[0].run_id).parts("layers")
    part.unlink()
    again = run_sweep(sweep, store, limits=Limits(most=1))
    assert (again.ended, again.measured, again.skipped, again.exit_code) == ({}, {}, 2, 1)
    assert again.unsound == {runs[0].run_id: f"layers/{part.name} is missing"}


def test_a_result_that_was_just_reported_is_read_whole(store):
    run = make_run()
    list(train(run, store, torch.device("cpu")))
    plan = Plan(Sweep("one", "", "", (run,)), store, [])
    result = SweepResult("one", 0, {run.run_id: "finished"})
    assert _unsound(plan, result) == {}
    (part, *_) = store.run(run.run_id).parts("steps")
    content = bytearray(part.read_bytes())
    content[len(content) // 2] ^= 1
    part.write_bytes(content)
    assert "does not match its checksum" in _unsound(plan, result)[run.run_id]
    (store.run(run.run_id).path / "DONE.json").unlink()
    assert "DONE.json is missing" in _unsound(plan, result)[run.run_id]


@pytest.mark.parametrize(
    ("ended", "mistakes", "code"),
    [
        ({"a": "finished", "b": "diverged"}, set(), 0),
        ({"a": "failed", "b": "finished"}, {"a"}, 2),
        ({"a": "failed", "b": "failed"}, {"a"}, 1),
        ({"a": "cancelled"}, set(), 0),
    ],
)
def test_a_mistake_of_the_users_is_told_from_a_failure(ended, mistakes, code):
    assert SweepResult("s", 0, ended, mistakes=mistakes).exit_code == code
    assert SweepResult("s", 0, ended, mistakes=mistakes, unsound={"b": "x"}).exit_code == 1
    assert SweepResult("s", 0, ended, mistakes=mistakes, interrupted=143).exit_code == 143


def test_a_run_that_finished_as_it_was_told_to_stop_is_said_to_have_finished(store):
    done, stopped, never = make_run(seed=0), make_run(seed=1), make_run(seed=2)
    list(train(done, store, torch.device("cpu")))
    actions = [Action(run, "run", "new") for run in (done, stopped, never)]
    plan, result = (
        Plan(Sweep("s", "", "", (done, stopped, never)), store, actions),
        SweepResult("s", 0),
    )
    _account_for_the_rest(plan, {done.run_id, stopped.run_id}, result)
    assert list(result.ended.values()) == ["finished", "cancelled", "not started"]
    assert result.kept == {stopped.run_id: 0}


def test_a_part_of_an_earlier_result_that_was_harmed_is_named(store):
    run = make_run()
    list(train(run, store, torch.device("cpu")))
    plan = Plan(Sweep("one", "", "", (run,)), store, [])
    (part, *_) = store.run(run.run_id).parts("profiles")
    content = bytearray(part.read_bytes())
    content[len(content) // 2] ^= 1
    part.write_bytes(content)
    said = _unsound(plan, SweepResult("one", 1))
    assert said == {run.run_id: f"profiles/{part.name} does not match its checksum"}


@pytest.mark.parametrize("kind", ["folder", "s3"])
@pytest.mark.parametrize("ended", [{}, "finished"])
def test_a_result_whose_record_of_the_run_is_lost_is_named(kind, ended, tmp_path, request):
    """As a server that was killed lost it: readers then have the rows and not whose they are."""
    place = request.getfixturevalue("s3_url") if kind == "s3" else str(tmp_path / "store")
    store, run = Store.at(place), make_run()
    folder = write_run(store, run, [0.3, 0.2])
    plan = Plan(Sweep("one", "", "", (run,)), store, [])
    result = SweepResult("one", 0, {run.run_id: ended} if ended else {})
    assert "run.json" not in str(_unsound(plan, result))
    (folder.path / "run.json").unlink()
    assert _unsound(plan, result) == {run.run_id: "run.json is missing or cannot be read"}


def test_what_was_asked_of_a_sweep_later_stands_where_its_file_leaves_it_open(store):
    """``distance`` was interrupted, and ``run`` given the same file again."""
    run = make_run()
    asked = Sweep("s", "", "", (run,), ("propagation", "objective_distance"))
    store.save_sweep(asked)
    left_open = Sweep("s", "", "", (run,), ("propagation",), usual=True)
    said = replace(left_open, usual=False)
    assert plan_sweep(left_open, store).sweep.measurements == asked.measurements
    assert plan_sweep(said, store).sweep.measurements == ("propagation",)
