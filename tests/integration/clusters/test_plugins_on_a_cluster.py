"""A user's own code on a cluster of two nodes: carried there, kept, used by ``resume`` alone."""

import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from sweeps.store.store import Store

DEPTHSWEEP = str(Path(sys.executable).with_name("depthsweep"))
EXAMPLES = Path(__file__).resolve().parents[2] / "own_code"
SWEEP = """
name: own
plugins:
  - ../code/soft_clip.py
  - ../code/cosine_margin.py
  - ../code/neighbours.py
  - ../code/adabelief.py
models:
  a: {standin: gpt2, layers: 2, width: 32, vocabulary: 400, pretrain_steps: 5}
objectives:
  near: {kind: cosine_margin, data: {file: pairs.jsonl}, margin: 1.5}
probe: {data: {builtin: python-docs}, rows: 32, sequence_length: 16, metrics: [neighbours_lost]}
measurements: []
defaults: {steps: 6, batch_size: 4, sequence_length: 16, learning_rate: 1e-3,
  part_steps: 3, checkpoint_share: 1, optimizer: {adabelief: {beta1: 0.8}}}
blocks:
  - name: all
    grid: {model: [a], objective: [near], control: [soft_clip: {strength: 0.5}], seed: [0, 1]}
"""


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def call(*arguments, cwd, env):
    return subprocess.run(
        [DEPTHSWEEP, *arguments], capture_output=True, text=True, cwd=cwd, env=env, timeout=400
    )


@pytest.fixture
def cluster(tmp_path):
    """A profile of a cluster of two nodes that is up, with the environment it is known in."""
    profile = tmp_path / "two.yaml"
    profile.write_text(
        f"kind: local\nnodes: 2\ncpus_per_node: 1\nport: {free_port()}\n"
        f"dashboard_port: {free_port()}\n"
    )
    environment = {**os.environ, "XDG_STATE_HOME": str(tmp_path / "state")}
    environment.pop("RAY_ADDRESS", None)
    try:
        up = call("cluster", "up", str(profile), cwd=tmp_path, env=environment)
        assert up.returncode == 0, up.stderr
        yield profile, environment
    finally:
        down = call("cluster", "down", str(profile), cwd=tmp_path, env=environment)
        assert down.returncode == 0, down.stderr


def rows_of(store):
    """Return the metrics of the last probe of each run, by run."""
    import polars as pl

    return {
        run.run_id: pl.read_parquet(run.parts("metrics"))["value"].to_list()
        for run in Store(store).runs()
    }


@pytest.mark.slow
def test_code_of_another_folder_goes_to_the_nodes_and_is_resumed_without_it(cluster, tmp_path):
    profile, env = cluster
    study, code = tmp_path / "study", tmp_path / "code"
    study.mkdir()
    shutil.copytree(EXAMPLES, code)
    (study / "own.yaml").write_text(SWEEP, encoding="utf-8")
    words = ["depth", "layer", "gradient", "norm", "probe", "seed", "block", "model"]
    pairs = [
        {"anchor": " ".join(words[i % 8 :]), "positive": " ".join(words[: i % 7 + 1])}
        for i in range(60)
    ]
    (study / "pairs.jsonl").write_text("\n".join(map(json.dumps, pairs)), encoding="utf-8")

    there = ["--cluster", str(profile), "--store", "store"]
    submitted = call("submit", "own.yaml", *there, "--follow", cwd=study, env=env)
    assert submitted.returncode == 0, submitted.stdout + submitted.stderr
    assert "own: 2 finished" in submitted.stdout
    on_cluster = rows_of(study / "store")
    assert len(on_cluster) == 2

    shutil.rmtree(code)
    gone = sorted(on_cluster)[0]
    for step in (("forget", gone), ("resume", "own")):
        shown = call(*step, "--store", "store", cwd=study, env=env)
        assert shown.returncode == 0, shown.stdout + shown.stderr
    assert "own: 1 finished, 1 skipped" in shown.stdout
    assert rows_of(study / "store") == on_cluster
