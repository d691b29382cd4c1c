"""Each tracker, a real one: every run once, every step once, however often it is told."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from planted_store import run_spec, save_sweep, write_run
from shown_runs import by_run, in_mlflow, in_tensorboard, in_wandb

from orchestrator.tracking.feed import export
from orchestrator.tracking.kinds import make_trackers
from sweeps.declaration.entries.track import TRACKERS, Track
from sweeps.declaration.settings import settings_of
from sweeps.files.whole_files import remove_folder, write_json
from sweeps.store.store import Store

ROOT = Path(__file__).resolve().parents[3]
TOLD_AND_KILLED = str(Path(__file__).with_name("told_and_killed.py"))
STEPS = 12
LOSSES = [(step, pytest.approx(3.0 / step)) for step in range(1, STEPS + 1)]
PROFILE = [0.1, 0.3, 0.5]


class Told:
    """A store of three runs and one tracker that is told of them."""

    def __init__(self, kind, folder, mlflow_uri):
        self.kind, self.folder, self.uri = kind, folder, mlflow_uri
        self.store = Store.at(str(folder / "store"))
        self.runs = [
            run_spec("opt", "clm", control, seed, steps=STEPS, probe_every=4, part_steps=4)
            for control, seed in (("layer_clip", 3), ("standard", 3), ("standard", 5))
        ]
        self.name = f"depth-{folder.name}"
        self.sweep = save_sweep(self.store, self.name, self.runs)
        track = {
            "wandb": {"mode": "offline", "project": "p", "tags": ["pilot"]},
            "mlflow": {"uri": mlflow_uri, "tags": {"team": "probing"}},
            "tensorboard": {},
        }
        self.track = Track.model_validate({kind: track[kind]})

    def tell(self):
        """Export with a tracker that was just made, as a driver that starts does."""
        (tracker,) = make_trackers(self.track, self.sweep, self.store)
        return export(tracker, self.sweep, self.store)

    def shown(self):
        if self.kind == "mlflow":
            return by_run(in_mlflow(self.uri, self.name))
        if self.kind == "wandb":
            return by_run(in_wandb(self.store.root / "wandb"))
        return by_run(in_tensorboard(self.store.root / "tensorboard" / self.name))


@pytest.fixture(params=TRACKERS)
def told(request, tmp_path):
    uri = request.getfixturevalue("mlflow_uri") if request.param == "mlflow" else ""
    return Told(request.param, tmp_path, uri)


def begin(told, run, step):
    """Leave a run as an attempt that was killed after the checkpoint of a step does."""
    folder = write_run(told.store, run, PROFILE, status=None, stop=step)
    write_json(folder.checkpoint_path(step) / "manifest.json", {"files": {}, "parts": {}})


def test_a_run_is_shown_with_all_that_the_store_has_of_it(told):
    run = told.runs[0]
    write_run(told.store, run, PROFILE)
    assert str(told.tell()) == "1 run, 2 not begun"
    shown = told.shown()[run.run_id]
    for word in (run.run_id, "opt", "clm", "layer_clip", "seed 3"):
        assert word in shown.name
    assert shown.losses == LOSSES
    assert shown.status == "finished"
    assert shown.numbers["slope"] == pytest.approx(0.6, abs=1e-5)
    assert shown.numbers["final_loss"] == pytest.approx(3.0 / STEPS)
    assert shown.table_rows == 3 * 4, "three probe steps, the embedding and three blocks"
    assert shown.picture.startswith(b"\x89PNG") or b"<svg" in shown.picture
    said = {one.name: one.value(run) for one in settings_of()}
    assert set(shown.parameters) == {name for name, value in said.items() if value is not None}
    assert float(shown.parameters["max_norm"]) == 0.1


def test_telling_twice_doubles_nothing(told):
    for run in told.runs:
        write_run(told.store, run, PROFILE)
    told.tell()
    before = told.shown()
    assert str(told.tell()) == "0 runs, 3 there already"
    assert told.shown() == before
    assert set(before) == {run.run_id for run in told.runs}


def test_a_run_that_goes_on_is_the_same_run_with_each_step_once(told):
    run = told.runs[1]
    begin(told, run, 4)
    told.tell()
    begin(told, run, 8)
    told.tell()
    assert told.shown()[run.run_id].losses == LOSSES[:8]
    assert told.shown()[run.run_id].status == "unfinished"
    write_run(told.store, run, PROFILE)
    told.tell()
    shown = told.shown()[run.run_id]
    assert (shown.losses, shown.status) == (LOSSES, "finished")


def test_a_run_that_resumes_behind_what_was_logged_doubles_nothing(told):
    run = told.runs[2]
    begin(told, run, 8)
    told.tell()
    folder = told.store.run(run.run_id)
    remove_folder(folder.path / "checkpoints")
    for part in folder.parts("steps"):
        if folder.last_step_of(part) > 4:
            part.unlink()
    begin(told, run, 4)
    told.tell()
    assert told.shown()[run.run_id].losses == LOSSES[:8] or told.kind == "wandb"
    write_run(told.store, run, PROFILE)
    told.tell()
    assert told.shown()[run.run_id].losses == LOSSES


def test_the_end_of_a_run_that_was_told_by_half_is_told_whole(told, monkeypatch):
    run = told.runs[0]
    write_run(told.store, run, PROFILE)
    from orchestrator.tracking import run_rows

    def no_picture(*_):
        raise OSError("killed here")

    monkeypatch.setattr(run_rows, "profile_picture", no_picture)
    with pytest.raises(Exception, match="killed here"):
        told.tell()
    monkeypatch.undo()
    assert str(told.tell()) == "1 run, 2 not begun"
    shown = told.shown()[run.run_id]
    assert (shown.losses, shown.status, bool(shown.picture)) == (LOSSES, "finished", True)


@pytest.mark.parametrize(
    "told",
    [name if name == "mlflow" else pytest.param(name, marks=pytest.mark.slow) for name in TRACKERS],
    indirect=True,
)
def test_drivers_that_are_killed_while_they_tell_leave_each_step_once(told):
    runs = [run_spec("pythia", seed=seed, steps=240, part_steps=40) for seed in (11, 12, 13)]
    for run in runs:
        write_run(told.store, run, PROFILE)
    sweep = replace(save_sweep(told.store, told.name, runs), track=told.track)
    told.store.save_sweep(sweep)
    # A client of W&B leaves word of its own service to processes that it starts.
    known = {name: x for name, x in os.environ.items() if not name.startswith("WANDB_SERVICE")}
    subprocess.run(
        [sys.executable, TOLD_AND_KILLED, told.store.location, told.name, told.kind],
        check=True,
        env={**known, "PYTHONPATH": str(ROOT)},
        timeout=200,
    )
    shown = told.shown()
    assert set(shown) == {run.run_id for run in runs}
    for run in shown.values():
        assert [step for step, _ in run.losses] == list(range(1, 241))
        assert (run.status, bool(run.picture), run.table_rows) == ("finished", True, 24 * 4)


def test_a_store_that_was_moved_has_the_same_runs(told):
    write_run(told.store, told.runs[0], PROFILE)
    told.tell()
    moved = told.folder / "elsewhere"
    told.store.root.rename(moved)
    told.store = Store.at(str(moved))
    assert str(told.tell()) == "0 runs, 1 there already, 2 not begun"


def test_a_sweep_of_the_same_name_in_another_store_has_runs_of_its_own(told):
    write_run(told.store, told.runs[0], PROFILE)
    told.tell()
    folder = told.store.root / "tensorboard"
    other = Told(told.kind, told.folder / "other", told.uri)
    other.name = told.name
    other.sweep = save_sweep(other.store, told.name, other.runs)
    write_run(other.store, other.runs[0], PROFILE)
    if told.kind == "tensorboard":
        other.track = Track.model_validate({"tensorboard": {"folder": str(folder)}})
    assert str(other.tell()) == "1 run, 2 not begun"


def test_a_run_under_a_new_name_is_the_same_run(told):
    run = told.runs[1]
    begin(told, run, 4)
    told.tell()
    renamed = run.model_copy(update={"model": run.model.model_copy(update={"name": "mine"})})
    assert renamed.run_id == run.run_id
    told.sweep = replace(told.sweep, runs=(renamed,))
    write_run(told.store, renamed, PROFILE)
    told.tell()
    assert told.shown()[run.run_id].losses == LOSSES


def test_no_secret_of_the_environment_is_in_the_store(told, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "0123456789abcdef" * 3)
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "0123456789abcdef" * 3)
    write_run(told.store, told.runs[0], PROFILE)
    told.tell()
    assert told.shown()
    files = [path for path in told.store.root.rglob("*") if path.is_file()]
    assert files
    assert not [path for path in files if b"0123456789abcdef0123" in path.read_bytes()]
    assert json.loads((told.store.sweep_folder(told.name) / "tracking.json").read_text())
