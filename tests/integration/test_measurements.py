"""Training-free measurements as work of a sweep: killed with their driver, resumed, made once."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sweeps.reading.tables import open_store
from sweeps.store.store import Store

SWEEP = """
name: small
models:
  a: {standin: gpt2, layers: 3, width: 64, vocabulary: 400, pretrain_steps: 5}
objectives:
  clm: {data: {builtin: python-source}}
  my-packages: {kind: classification, labels: 6, data: {builtin: python-packages}}
probe: {data: {builtin: python-docs}, rows: 32, sequence_length: 16}
measurements: [objective_distance, propagation]
defaults: {steps: 2, batch_size: 32, sequence_length: 32, learning_rate: 1e-3}
blocks:
  - name: all
    grid: {model: [a], objective: [clm, my-packages], control: [standard], seed: [0]}
"""
COMMAND = [sys.executable, "-m", "orchestrator"]


def started(*arguments, cwd):
    return subprocess.Popen(
        [*COMMAND, *arguments],
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "PYTHONPATH": os.getcwd(), "DEPTHSWEEP_STALE_SECONDS": "4"},
    )


def said(*arguments, cwd):
    process = started(*arguments, cwd=cwd)
    text, _ = process.communicate(timeout=300)
    assert process.returncode == 0, text
    return text


def measuring(folder):
    """Return a distance that is being measured, once there is one."""
    until = time.monotonic() + 200
    while time.monotonic() < until:
        for one in Store(folder / "store").measurements():
            newest = one.newest_attempt()
            if one.run_id.startswith("distance") and newest and newest["cause"] is None:
                return one
        time.sleep(0.05)
    raise AssertionError("no distance was begun")


@pytest.fixture
def folder(tmp_path) -> Path:
    (tmp_path / "small.yaml").write_text(SWEEP, encoding="utf-8")
    return tmp_path


@pytest.mark.slow
def test_a_killed_drivers_measurement_is_resumed_and_none_is_made_twice(folder):
    process = started("run", "small.yaml", cwd=folder)
    measuring(folder)
    process.kill()
    process.wait()
    shown = said("resume", "small", cwd=folder)
    assert "small: measurements:" in shown
    assert "measured 3 of 3" in said("status", "small", cwd=folder)
    for one in Store(folder / "store").measurements():
        causes = [attempt["cause"] for attempt in one.attempts()]
        assert causes.count("finished") == 1, (one.run_id, causes)
        assert causes[-1] in ("finished", "not needed")
    runs = open_store(folder / "store", sweep="small").runs().collect()
    assert runs["propagation"].null_count() == 0
    assert runs["objective_distance"].n_unique() == 2
    assert "0 findings" in said("doctor", cwd=folder)


@pytest.mark.slow
def test_a_lost_process_an_interrupt_and_a_later_wish(folder):
    process = started("run", "small.yaml", cwd=folder)
    lost = measuring(folder)
    os.kill(lost.newest_attempt()["pid"], signal.SIGKILL)
    shown, _ = process.communicate(timeout=300)
    assert process.returncode == 0, shown
    assert f"lost      {lost.run_id} objective distance of a" in shown
    assert [attempt["cause"] for attempt in lost.attempts()] == ["lost", "finished"]
    assert "forgot measurement" in said("forget", lost.run_id, cwd=folder)

    process = started("resume", "small", cwd=folder)
    measuring(folder)
    process.send_signal(signal.SIGTERM)
    shown, _ = process.communicate(timeout=300)
    assert process.returncode == 143, shown
    assert lost.done() is None
    assert "measure  1  cancelled" in said("resume", "small", "--dry-run", cwd=folder)

    text = SWEEP.replace("[objective_distance, propagation]", "[]")
    (folder / "small.yaml").write_text(text, encoding="utf-8")
    assert "nothing to do" in said("run", "small.yaml", cwd=folder)
    shown = said("distance", "small", cwd=folder)
    assert "measures 1 objective distance (training-free)" in shown
    assert "my-packages" in shown
    assert "95 % interval" in shown
    shown = json.loads(said("plan", "small", "--json", cwd=folder))
    assert [row["action"] for row in shown] == ["skip"] * 4
