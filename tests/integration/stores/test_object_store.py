"""A run and a sweep whose store is an object store, and what goes wrong with one."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from s3_server import BUCKET, Wire
from small_run import make_run

from sweeps.spec import Execution
from sweeps.store.schema import TABLES
from sweeps.store.store import Store

DEPTHSWEEP = str(Path(sys.executable).with_name("depthsweep"))
SWEEP = """
name: small
models:
  a: {standin: gpt2, layers: 2, width: 32, vocabulary: 400, pretrain_steps: 3}
objectives:
  clm: {data: {builtin: python-docs}}
probe: {data: {builtin: python-docs}, rows: 32, sequence_length: 16, every: 4}
defaults: {steps: 8, batch_size: 4, sequence_length: 16, learning_rate: 1e-3,
  part_steps: 3, checkpoint_share: 1}
blocks:
  - name: all
    grid: {model: [a], objective: [clm], control: [standard, equal_step], seed: [0]}
"""


def worker(run, location, folder, **environment):
    spec = folder / f"{run.run_id}.json"
    spec.write_text(run.model_dump_json())
    return subprocess.Popen(
        [sys.executable, "-m", "workers", str(spec), "--store", location],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, **environment},
    )


def depthsweep(*arguments, at, cwd=None):
    return subprocess.run(
        [DEPTHSWEEP, *arguments, "--store", at],
        capture_output=True,
        text=True,
        cwd=cwd,
        timeout=300,
    )


def part_bytes(store, run):
    folder = store.run(run.run_id)
    return {
        f"{table}/{path.name.split('.')[0]}": path.read_bytes()
        for table in TABLES
        for path in folder.parts(table)
    }


def await_checkpoint(folder, process, step):
    until = time.monotonic() + 120
    while not any(found >= step for found in folder.checkpoint_steps()):
        assert process.poll() is None, process.stdout.read()
        assert time.monotonic() < until
        time.sleep(0.05)


def long_run():
    return make_run(steps=120, execution=Execution(part_steps=30, checkpoint_share=1))


@pytest.mark.slow
def test_a_killed_run_is_resumed_with_the_bytes_of_a_local_one(s3_url, tmp_path):
    run = long_run()
    store, local = Store.at(s3_url), Store.at(str(tmp_path / "local"))
    process = worker(run, s3_url, tmp_path)
    await_checkpoint(store.run(run.run_id), process, 30)
    process.kill()
    process.wait()
    again = worker(run, s3_url, tmp_path)
    # The cache of the node holds what a local store would make first.
    (tmp_path / "local").mkdir()
    (tmp_path / "local" / "cache").symlink_to(tmp_path / "node")
    unbroken = worker(run, str(tmp_path / "local"), tmp_path)
    assert unbroken.wait(120) == 0
    assert again.wait(120) == 0, again.stdout.read()
    assert part_bytes(store, run) == part_bytes(local, run)
    first, second = store.run(run.run_id).attempts()
    assert (first["cause"], second["cause"]) == ("lost", "finished")
    assert second["resumed_from"] >= 30
    assert store.run(run.run_id).checkpoint_steps() == []
    sql = "SELECT max(step) AS n FROM layers"
    counted = depthsweep("query", sql, "--all", "--format=csv", at=s3_url)
    assert counted.stdout == "n\n120\n", counted.stderr
    assert "1 runs looked at" in depthsweep("doctor", at=s3_url).stdout


@pytest.mark.slow
def test_a_run_waits_for_a_server_that_went_away(s3_url, s3_port, tmp_path):
    run = make_run(steps=600, execution=Execution(part_steps=30, checkpoint_share=1))
    wire = Wire(s3_port)
    through = {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{wire.port}"}
    store = Store.at(s3_url)
    try:
        process = worker(run, s3_url, tmp_path, **through)
        await_checkpoint(store.run(run.run_id), process, 30)
        wire.cut()
        time.sleep(30)  # the client itself tries again for some seconds
        assert process.poll() is None, process.stdout.read()
        before = store.run(run.run_id).checkpoint_steps()
        wire.mend()
        assert process.wait(240) == 0, process.stdout.read()
    finally:
        wire.cut()
    assert before[-1] < run.steps
    (attempt,) = store.run(run.run_id).attempts()
    assert attempt["cause"] == "finished"
    assert "waiting for it" in store.run(run.run_id).log_path(1).read_text()


@pytest.fixture
def sweep(tmp_path):
    (tmp_path / "small.yaml").write_text(SWEEP, encoding="utf-8")
    return tmp_path


@pytest.mark.slow
def test_a_sweep_is_run_read_audited_and_mended(s3_url, sweep):
    """One story, since each command takes a second to start."""

    def said(*arguments, code=0):
        done = depthsweep(*arguments, at=s3_url, cwd=sweep)
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout

    assert "small: 2 finished" in said("run", "small.yaml")
    states = json.loads(said("status", "small", "--json"))["small"]
    assert [run["state"] for run in states] == ["finished", "finished"]
    counted = said("query", "SELECT run_id, count(*) AS n FROM steps GROUP BY ALL", "--format=csv")
    assert sorted(counted.splitlines()[1:]) == sorted(f"{run['run_id']},8" for run in states)
    assert "2 of 2 runs" in said("profile", "small")
    assert "2 runs looked at, 0 findings" in said("doctor")

    harmed, lost = (run["run_id"] for run in states)
    part = Store.at(s3_url).run(harmed).parts("steps")[0]
    data = bytearray(part.read_bytes())
    data[40] ^= 1
    part.write_bytes(bytes(data))
    found = " ".join(said("doctor", code=1).split())
    assert f"{harmed}: steps/{part.name} does not match its checksum" in found
    assert "its result is dropped" in said("doctor", "--fix")
    assert said("forget", lost) == f"forgot run {lost}\n"
    planned = json.loads(said("resume", "small", "--dry-run", "--json"))
    assert {(action["run_id"], action["action"]) for action in planned} == {
        (harmed, "run"),
        (lost, "run"),
        (Store.at(s3_url).measurements()[0].run_id, "skip"),
    }
    assert "attempt ended" in said("logs", harmed)


@pytest.mark.usefixtures("s3_url")
def test_what_cannot_be_a_store_ends_the_command_in_one_line_before_it_starts(sweep):
    done = depthsweep("run", "small.yaml", at=f"s3://{BUCKET}-none/x", cwd=sweep)
    assert done.returncode == 2
    assert done.stderr == (
        f"depthsweep: --store s3://{BUCKET}-none/x: the bucket does not exist; create it, or"
        " correct the URL\n"
    )
