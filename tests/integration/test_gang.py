"""Several ranks in one trial under Ray: the plain profile, and an end with its own error."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import polars as pl
import pytest

from sweeps.store.store import Store

pytest.importorskip("deepspeed")

DEPTHSWEEP = str(Path(sys.executable).with_name("depthsweep"))
SWEEP = """
name: gang
models:
  tiny: {{standin: gpt2, layers: 3, width: 32, vocabulary: 400, pretrain_steps: 3}}
objectives:
  clm: {{data: {{builtin: python-source}}}}
probe: {{data: {{builtin: python-docs}}, rows: 32, sequence_length: 16, every: 3}}
defaults: {{steps: {steps}, batch_size: 4, sequence_length: 16, learning_rate: 1e-3}}
blocks:
  - name: one
    grid: {{model: [tiny], objective: [clm], control: [equal_step], seed: [0]}}
    set: {{{execution}}}
"""


def written(folder, execution, steps=6):
    (folder / "gang.yaml").write_text(SWEEP.format(steps=steps, execution=execution))
    return [DEPTHSWEEP, "run", "gang.yaml"]


def profile(store):
    (run,) = Store(store).runs()
    return pl.concat([pl.read_parquet(path) for path in run.parts("profiles")])


def test_two_ranks_of_deepspeed_give_the_plain_profile(tmp_path):
    command = written(tmp_path, "processes: 2, zero_stage: 3")
    shown = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert shown.returncode == 0, shown.stdout + shown.stderr
    gang = profile(tmp_path / "store")
    (run,) = Store(tmp_path / "store").runs()
    spec = json.loads((run.path / "run.json").read_text())["spec"] | {"execution": {}}
    (tmp_path / "plain.json").write_text(json.dumps(spec))
    words = [sys.executable, "-m", "workers", "plain.json", "--store", "plain"]
    subprocess.run(words, cwd=tmp_path, capture_output=True, check=True)
    plain = profile(tmp_path / "plain")
    assert plain["run_id"].to_list() == gang["run_id"].to_list()
    # Procrustes distances here are 1e-3 to 1e-1.
    for metric in ("procrustes", "cka_distance", "mean_shift", "scale_log_ratio"):
        assert (plain[metric] - gang[metric]).abs().max() < 1e-4


@pytest.mark.slow
def test_a_rank_that_is_killed_ends_the_attempt_as_lost_and_the_run_goes_on(tmp_path):
    command = written(
        tmp_path, "processes: 2, zero_stage: 2, part_steps: 5, checkpoint_share: 1", steps=150
    )
    running = subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    store = Store(tmp_path / "store")
    try:
        until = time.monotonic() + 200
        while not list((tmp_path / "store").glob("runs/*/checkpoints/*/manifest.json")):
            assert time.monotonic() < until, "no checkpoint was written"
            time.sleep(0.05)
        (run,) = store.runs()
        first = run.attempts()[0]
        os.kill(first["pid"], signal.SIGKILL)
        output, _ = running.communicate(timeout=300)
    finally:
        running.kill()
    assert running.returncode == 0, output
    attempts = run.attempts()
    assert attempts[0]["cause"] == "lost"
    assert "rank 0" in attempts[0]["error"]
    assert attempts[-1]["cause"] == "finished"
    assert attempts[-1]["resumed_from"] > 0
    assert json.loads((run.path / "DONE.json").read_text())["status"] == "finished"
