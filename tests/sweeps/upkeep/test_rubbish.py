"""What can go of a store's runs, over a local folder and over an S3-compatible server alike."""

import os
import time
from dataclasses import replace

import pytest
from planted_store import run_spec, save_sweep, write_run

from sweeps.attempts.attempt import Attempt
from sweeps.files.trees import files_below
from sweeps.files.whole_files import is_local, read_json, write_json, write_text
from sweeps.store.store import Store
from sweeps.upkeep.rubbish import CHECKPOINTS, PARTS, STRAYS, TEMPORARIES, rubbish_of_runs, strays

OLD = time.time() - 90


@pytest.fixture(params=["folder", "s3"])
def store(request, tmp_path):
    if request.param == "folder":
        return Store.at(str(tmp_path / "store"))
    return Store.at(request.getfixturevalue("s3_url"))


def write_old(path, text="x" * 100):
    write_text(path, text)
    if is_local(path):
        os.utime(path, (OLD, OLD))


def checkpoint(folder, name, *, whole=True):
    write_old(folder.path / "checkpoints" / name / "layer-0000.safetensors")
    if whole:
        write_json(folder.path / "checkpoints" / name / "manifest.json", {"files": {}, "parts": {}})


def found(store):
    return sorted((item.what, item.where.partition("/")[2]) for item in rubbish_of_runs(store))


def test_an_ended_run_keeps_its_records_logs_and_what_done_lists(store):
    folder = write_run(store, run_spec("opt", "mlm", seed=7), [0.3, 0.1])
    write_text(folder.log_path(1), "{}")
    before = set(files_below(folder.path))
    assert found(store) == []
    write_text(folder.path / "steps" / "part-000000-000002.a1-0badcafe.parquet", "of a crash")
    checkpoint(folder, "step-000002")
    checkpoint(folder, "step-000003.a1-0badcafe", whole=False)
    items = rubbish_of_runs(store)
    assert found(store) == [
        (CHECKPOINTS, "checkpoints/step-000002"),
        (CHECKPOINTS, "checkpoints/step-000003.a1-0badcafe"),
        (PARTS, "steps/part-000000-000002.a1-0badcafe.parquet"),
    ]
    assert sum(item.bytes for item in items) > 200
    assert all(item.remove() for item in items)
    assert set(files_below(folder.path)) == before
    assert found(store) == []


def test_the_weights_that_a_run_was_to_keep_stay(store):
    run = run_spec("opt", "mlm", seed=8)
    keeps = run.execution.model_copy(update={"keep": "final"})
    folder = write_run(store, run.model_copy(update={"execution": keeps}), [0.3, 0.1])
    for name in ("step-000999", "step-001000.a2-00000000"):
        checkpoint(folder, name)
    checkpoint(folder, "step-002000", whole=False)
    assert found(store) == [
        (CHECKPOINTS, "checkpoints/step-000999"),
        (CHECKPOINTS, "checkpoints/step-002000"),
    ]


def test_of_a_run_that_may_go_on_only_what_a_writer_left_aside_goes(store):
    folder = write_run(store, run_spec("opt", "mlm", seed=9), [0.3, 0.1], status=None)
    record = read_json(folder.attempt_path(1))
    write_json(folder.attempt_path(1), {**record, "cause": "lost"})
    write_text(folder.path / "steps" / "part-000000-000002.a1-0badcafe.parquet", "not listed")
    checkpoint(folder, "step-000002")
    checkpoint(folder, "step-000004", whole=False)
    write_old(folder.path / "steps" / ".part-000000-000002.parquet.77-00ff00ff00ff00ff.tmp")
    write_old(folder.path / "checkpoints" / ".step-000006.77-00ff00ff00ff00ff" / "layer")
    write_text(folder.path / "attempts" / ".1.json~7", "a version of a record")
    assert found(store) == [
        (TEMPORARIES, "checkpoints/.step-000006.77-00ff00ff00ff00ff"),
        (TEMPORARIES, "checkpoints/step-000004"),
        (TEMPORARIES, "steps/.part-000000-000002.parquet.77-00ff00ff00ff00ff.tmp"),
    ]


def test_what_a_writer_touched_just_now_stays(tmp_path):
    store = Store.at(str(tmp_path))
    folder = write_run(store, run_spec(seed=1), [0.3, 0.1])
    write_text(folder.path / "steps" / ".part.1-00ff00ff00ff00ff.tmp", "being written")
    write_text(folder.path / "steps" / ".nfs0000000001", "open somewhere")
    assert found(store) == []


def test_a_run_that_somebody_is_at_keeps_everything(store):
    living, dead = run_spec("opt", "mlm", seed=1), run_spec("opt", "mlm", seed=2)
    for run in (living, dead):
        checkpoint(write_run(store, run, [0.3, 0.1]), "step-000002")
    with Attempt(store.run(living.run_id)):
        assert {item.where.split("/")[0] for item in rubbish_of_runs(store)} == {dead.run_id}


def test_a_run_that_begins_after_it_was_looked_at_keeps_everything(store):
    run = run_spec("opt", "mlm", seed=3)
    folder = write_run(store, run, [0.3, 0.1])
    checkpoint(folder, "step-000002")
    (item,) = rubbish_of_runs(store)
    with Attempt(folder):
        assert not item.remove()
    assert len(folder.checkpoint_steps()) == 1


def test_a_run_that_got_another_result_meanwhile_keeps_everything(store):
    folder = write_run(store, run_spec("opt", "mlm", seed=4), [0.3, 0.1])
    write_text(folder.path / "steps" / "part-000000-000002.a1-0badcafe.parquet", "of a crash")
    (item,) = rubbish_of_runs(store)
    write_json(folder.path / "DONE.json", {**read_json(folder.path / "DONE.json"), "step": 1})
    assert not item.remove()


def test_measurements_are_looked_at_like_runs(store):
    folder = store.work("propagation-0123456789ab")
    write_json(folder.path / "DONE.json", {"status": "finished", "step": 0, "parts": {}})
    write_text(folder.path / "steps" / "part-000000-000002.parquet", "of nobody")
    assert found(store) == [(PARTS, "steps/part-000000-000002.parquet")]


def test_runs_of_no_version_go_whole_and_others_stay(store):
    named, stray = run_spec("opt", "mlm", seed=5), run_spec("opt", "mlm", seed=6)
    for run in (named, stray):
        write_run(store, run, [0.3, 0.1])
    save_sweep(store, "study", [named])
    store.save_sweep(replace(store.load_sweep("study"), runs=()))
    (item,) = strays(store)
    assert (item.what, item.where) == (STRAYS, stray.run_id)
    assert item.remove()
    assert [folder.run_id for folder in store.runs()] == [named.run_id]
