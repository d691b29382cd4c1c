"""A sweep that is tracked, its driver killed, resumed and exported: each run and step once."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import polars as pl
import pytest
from mlflow_server import serve_mlflow
from shown_runs import by_run, in_mlflow, in_tensorboard, in_wandb

from sweeps.reading.tables import open_store

ROOT = Path(__file__).resolve().parents[2]
KINDS = ("wandb", "mlflow", "tensorboard")
SWEEP = """
name: shown
models:
  tiny: {standin: opt, layers: 2, width: 32, vocabulary: 400, pretrain_steps: 5}
objectives:
  clm: {data: {builtin: python-docs}}
probe: {data: {builtin: python-source}, rows: 40, sequence_length: 16, every: 125}
measurements: []
track: {tensorboard: }
defaults: {steps: 500, batch_size: 4, sequence_length: 16, learning_rate: 5e-4,
  part_steps: 20, checkpoint_share: 1}
blocks:
  - name: all
    grid: {model: [tiny], objective: [clm], control: [standard, equal_step], seed: [6]}
"""


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with a sweep, and an MLflow server that it finds."""
    (tmp_path / "shown.yaml").write_text(SWEEP, encoding="utf-8")
    with serve_mlflow(tmp_path) as uri:
        for name, value in {
            "MLFLOW_TRACKING_URI": uri,
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "WANDB_MODE": "offline",
            "PYTHONPATH": str(ROOT),
        }.items():
            monkeypatch.setenv(name, value)
        yield tmp_path, uri


def depthsweep(*words, cwd):
    command = [sys.executable, "-m", "orchestrator", *words]
    return subprocess.Popen(
        command, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def said_by(process):
    said, _ = process.communicate(timeout=300)
    assert process.returncode == 0, said
    return said


def everything_shown(folder, uri):
    return {
        "mlflow": by_run(in_mlflow(uri, "shown")),
        "wandb": by_run(in_wandb(folder / "store/wandb")),
        "tensorboard": by_run(in_tensorboard(folder / "store/tensorboard/shown")),
    }


@pytest.mark.slow
def test_a_killed_driver_and_a_resume_leave_every_run_and_step_once_in_each_tracker(place):
    folder, uri = place
    driver = depthsweep("run", "shown.yaml", "--track", "mlflow", "--track", "wandb", cwd=folder)
    until = time.monotonic() + 120
    while not any(run.losses for run in in_mlflow(uri, "shown")) and time.monotonic() < until:
        time.sleep(0.2)
    os.kill(driver.pid, signal.SIGKILL)
    driver.communicate(timeout=60)
    before = by_run(in_mlflow(uri, "shown"))
    assert any(run.losses and run.status is None for run in before.values()), "killed midway"

    tracks = [word for kind in KINDS for word in ("--track", kind)]
    said = said_by(depthsweep("resume", "shown", *tracks, cwd=folder))
    assert "not shown whole" not in said, said

    tables = open_store(folder / "store", sweep="shown")
    rows = tables.steps().select("run_id", "step", "loss").sort("step").collect()
    shown = everything_shown(folder, uri)
    for kind, runs in shown.items():
        assert set(runs) == set(rows["run_id"]), kind
        for run_id, run in runs.items():
            own = rows.filter(pl.col("run_id") == run_id)
            assert [step for step, _ in run.losses] == own["step"].to_list(), kind
            assert [loss for _, loss in run.losses] == pytest.approx(own["loss"].to_list())
            assert (run.status, run.table_rows) == ("finished", 4 * 3)
            assert run.numbers["slope"]
            assert run.picture

    exports = [word for kind in KINDS for word in ("--to", kind)]
    assert said_by(depthsweep("export", "shown", *exports, cwd=folder)).splitlines() == [
        f"shown: 0 runs, 2 there already to {kind}" for kind in KINDS
    ]
    assert everything_shown(folder, uri) == shown
