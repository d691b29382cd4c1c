"""A whole sweep through the command line: run, run again, lose a run, interrupt, fail."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import polars as pl
import pytest

from sweeps.store.schema import TABLES
from sweeps.store.store import Store

DEPTHSWEEP = str(Path(sys.executable).with_name("depthsweep"))
SWEEP = """
name: small
models:
  a: {standin: gpt2, layers: 2, width: 32, vocabulary: 400, pretrain_steps: 5}
  b: {standin: opt, layers: 3, width: 32, vocabulary: 400, pretrain_steps: 5}
objectives:
  clm: {data: {builtin: python-source}}
probe: {data: {builtin: python-docs}, rows: 32, sequence_length: 16, every: 4}
defaults: {steps: 8, batch_size: 4, sequence_length: 16, learning_rate: 1e-3,
  part_steps: 3, checkpoint_share: 1}
blocks:
  - name: all
    grid: {model: [a, b], objective: [clm], control: [standard, equal_step], seed: [0]}
"""
# Two runs that take seconds, so that something can happen to them.
LONG = (
    SWEEP.replace("steps: 8", "steps: 120")
    .replace("every: 4", "every: 60")
    .replace("model: [a, b]", "model: [a]")
)


def depthsweep(*arguments, cwd):
    return subprocess.run(
        [DEPTHSWEEP, *arguments], capture_output=True, text=True, cwd=cwd, timeout=300
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a sweep that has been run to its end."""
    folder = tmp_path_factory.mktemp("sweep")
    (folder / "small.yaml").write_text(SWEEP, encoding="utf-8")
    shown = depthsweep("run", "small.yaml", cwd=folder)
    assert shown.returncode == 0, shown.stdout + shown.stderr
    assert "small: 4 finished" in shown.stdout
    return folder


def rows_of(folder, run_id):
    run = Store(folder / "store").run(run_id)
    return {
        table: pl.concat([pl.DataFrame(), *map(pl.read_parquet, run.parts(table))], how="diagonal")
        for table in TABLES
    }


def run_ids(folder):
    return [run.run_id for run in Store(folder / "store").runs()]


def test_every_run_finished_with_its_profiles(folder):
    status = json.loads(depthsweep("status", "small", "--json", cwd=folder).stdout)
    assert [run["state"] for run in status["small"]] == ["finished"] * 4
    for run_id in run_ids(folder):
        profiles = rows_of(folder, run_id)["profiles"]
        assert profiles["step"].unique().sort().to_list() == [4, 8]


def test_running_again_does_nothing_and_says_why(folder):
    before = {path: path.stat().st_mtime_ns for path in (folder / "store/runs").rglob("*")}
    shown = depthsweep("run", "small.yaml", cwd=folder)
    assert shown.returncode == 0
    assert "4 already finished: skipped" in shown.stdout
    assert "nothing to do" in shown.stdout
    assert {path: path.stat().st_mtime_ns for path in (folder / "store/runs").rglob("*")} == before


@pytest.mark.slow
def test_a_lost_run_runs_again_alone_with_identical_rows(folder):
    lost = run_ids(folder)[1]
    rows = rows_of(folder, lost)
    kept = {path: path.stat().st_mtime_ns for path in (folder / "store/runs").rglob("*.parquet")}
    assert depthsweep("forget", lost, cwd=folder).stdout == f"forgot run {lost}\n"
    shown = depthsweep("run", "small.yaml", cwd=folder)
    assert "3 already finished: skipped" in shown.stdout
    assert "1 to run" in shown.stdout
    again = rows_of(folder, lost)
    assert all(again[table].equals(rows[table]) for table in TABLES)
    for path, written in kept.items():
        if lost not in str(path):
            assert path.stat().st_mtime_ns == written


@pytest.mark.slow
def test_a_result_is_computed_again_when_asked_with_identical_rows(folder):
    again = run_ids(folder)[2]
    rows = rows_of(folder, again)
    refused = depthsweep("resume", "small", "--force", cwd=folder)
    assert (refused.returncode, "say which" in refused.stderr) == (2, True)
    shown = depthsweep("resume", "small", "--only", again, "--force", cwd=folder)
    assert "1 finished, run again as asked" in shown.stdout
    assert all(rows_of(folder, again)[table].equals(rows[table]) for table in TABLES)
    causes = [attempt["cause"] for attempt in Store(folder / "store").run(again).attempts()]
    assert causes == ["finished", "finished"]


@pytest.mark.slow
def test_an_edited_sweep_runs_what_is_new_and_says_what_changed(folder, tmp_path):
    shutil.copytree(folder / "store", tmp_path / "store")
    text = SWEEP.replace("model: [a, b]", "model: [a]").replace("seed: [0]", "seed: [0, 1]")
    (tmp_path / "small.yaml").write_text(text, encoding="utf-8")
    shown = depthsweep("run", "small.yaml", cwd=tmp_path)
    assert "2 runs as before, 0 changed, 2 added, 2 no longer in it" in shown.stdout
    assert "small: 2 finished, 2 skipped" in shown.stdout


@pytest.mark.slow
def test_a_fresh_process_without_ray_gives_the_rows_of_a_warm_one(folder, tmp_path):
    for run_id in run_ids(folder):
        spec = folder / "store/runs" / run_id / "run.json"
        subprocess.run(
            [sys.executable, "-m", "workers", str(spec), "--store", str(tmp_path / "store")],
            check=True,
            capture_output=True,
        )
        warm, fresh = rows_of(folder, run_id), rows_of(tmp_path, run_id)
        assert all(warm[table].equals(fresh[table]) for table in TABLES)


def begun(folder, tmp_path):
    """Return a sweep's process, in a group of its own, and a run of it that has steps."""
    (tmp_path / "small.yaml").write_text(LONG, encoding="utf-8")
    shutil.copytree(folder / "store/cache", tmp_path / "store/cache")
    process = subprocess.Popen(
        [DEPTHSWEEP, "run", "small.yaml"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    part = wait_for(lambda: next(tmp_path.glob("store/runs/*/steps/part-*"), None))
    return process, Store(tmp_path / "store").run(part.parent.parent.name)


def interrupted(process, number):
    """Send a signal to the group of a sweep; return its exit code and words."""
    os.killpg(process.pid, number)
    said, _ = process.communicate(timeout=120)
    assert "Traceback" not in said
    return process.returncode, said


def wait_for(found, seconds=120):
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if value := found():
            return value
        time.sleep(0.1)
    raise AssertionError("it did not happen in time")


@pytest.mark.slow
def test_a_sweep_whose_ray_is_terminated_with_it_leaves_at_once_and_the_same_command_finishes(
    folder, tmp_path
):
    """As `timeout` and service managers do; Ray would be waited for for a minute."""
    code, said = interrupted(begun(folder, tmp_path)[0], signal.SIGTERM)
    assert code == 143, said
    assert "interrupted, and Ray with it: finished runs are kept" in said
    assert "Failed to connect" not in said
    assert depthsweep("resume", "small", cwd=tmp_path).returncode == 0


def killed_once(run):
    """Kill a run's process, and wait until another one is at it."""
    os.kill(run.attempts()[-1]["pid"], signal.SIGKILL)
    wait_for(lambda: len(run.attempts()) == 2)


@pytest.mark.slow
def test_a_sweep_whose_worker_is_killed_ends_by_itself(folder, tmp_path):
    process, killed = begun(folder, tmp_path)
    killed_once(killed)
    said, _ = process.communicate(timeout=200)
    assert process.returncode == 0, said
    assert f"lost      {killed.run_id}" in said
    assert "small: 2 finished" in said
    assert [attempt["cause"] for attempt in killed.attempts()] == ["lost", "finished"]


def test_a_killed_worker_and_an_interrupt_lose_nothing_and_the_same_command_finishes(
    folder, tmp_path
):
    process, killed = begun(folder, tmp_path)
    killed_once(killed)
    code, said = interrupted(process, signal.SIGINT)  # as a terminal does
    assert code == 130, said
    assert f"lost      {killed.run_id}" in said
    assert "interrupted: finished runs are kept" in said
    causes = [
        attempt["cause"] for run in Store(tmp_path / "store").runs() for attempt in run.attempts()
    ]
    assert "cancelled" in causes
    assert set(causes) <= {"lost", "cancelled", "finished"}
    planned = depthsweep("resume", "small", "--dry-run", cwd=tmp_path).stdout
    assert "cancelled, continues from" in planned
    shown = depthsweep("resume", "small", cwd=tmp_path)
    assert shown.returncode == 0
    assert "cancelled, continues from" in shown.stdout
    causes = [attempt["cause"] for attempt in killed.attempts()]
    assert (causes[0], causes[-1]) == ("lost", "finished")
    subprocess.run(
        [sys.executable, "-m", "workers", "run.json", "--store", str(tmp_path / "alone")],
        check=True,
        capture_output=True,
        cwd=killed.path,
        env={**os.environ, "PYTHONPATH": os.getcwd()},
    )
    for table in TABLES:
        alone = [p.read_bytes() for p in Store(tmp_path / "alone").run(killed.run_id).parts(table)]
        assert [path.read_bytes() for path in killed.parts(table)] == alone


@pytest.mark.slow
def test_a_run_that_fails_leaves_the_others_and_says_what_to_read(folder, tmp_path):
    rows = tmp_path / "few.jsonl"
    rows.write_text(json.dumps({"text": "too short"}) + "\n")
    text = SWEEP.replace(
        "objectives:", "objectives:\n  tiny: {kind: clm, data: {file: few.jsonl}}"
    ).replace(
        "model: [a, b], objective: [clm], control: [standard, equal_step]",
        "model: [a], objective: [clm, tiny], control: [standard]",
    )
    (tmp_path / "small.yaml").write_text(text, encoding="utf-8")
    shutil.copytree(folder / "store/cache", tmp_path / "store/cache")
    shown = depthsweep("run", "small.yaml", cwd=tmp_path)
    assert shown.returncode == 2, "what stands in the way is the user's to mend"
    assert "small: 1 failed, 1 finished" in shown.stdout
    assert "less than one sequence of 16" in shown.stdout
    status = depthsweep("status", "small", cwd=tmp_path).stdout
    assert "1 finished, 1 failed" in status
    assert "lower sequence_length" in " ".join(status.split())
