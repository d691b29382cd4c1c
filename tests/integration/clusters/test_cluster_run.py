"""Sweeps on a cluster that is already up: two raylets on loopback, the CLI as a process."""

import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from ray.cluster_utils import Cluster

from sweeps.store.store import Store

DEPTHSWEEP = str(Path(sys.executable).with_name("depthsweep"))
SWEEP = """
name: small
models:
  tiny: {standin: gpt2, layers: 2, width: 32, vocabulary: 400, pretrain_steps: 3}
objectives:
  clm: {data: {builtin: python-source}}
probe: {data: {builtin: python-docs}, rows: 16, sequence_length: 16, every: 3}
defaults: {steps: 6, batch_size: 4, sequence_length: 16, learning_rate: 1e-3}
blocks:
  - name: one
    grid: {model: [tiny], objective: [clm], control: [standard], seed: [0, 1, 2]}
"""


@pytest.fixture
def cluster(monkeypatch):
    with tempfile.TemporaryDirectory(prefix="rc", dir="/tmp") as folder:
        monkeypatch.setenv("RAY_TMPDIR", folder)
        nodes = {"num_cpus": 1, "object_store_memory": 80_000_000}
        cluster = Cluster(
            initialize_head=True, head_node_args={**nodes, "include_dashboard": False}
        )
        cluster.add_node(**nodes)
        cluster.wait_for_nodes()
        yield cluster
        cluster.shutdown()


@pytest.mark.slow
def test_a_sweep_runs_on_the_nodes_of_a_cluster(cluster, tmp_path):
    (tmp_path / "small.yaml").write_text(SWEEP)
    done = subprocess.run(
        [DEPTHSWEEP, "run", "small.yaml", "--address", cluster.address],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 nodes" in done.stdout
    assert "3 to run, 1 to measure, 2 side by side" in done.stdout
    assert len([run for run in Store(tmp_path / "store").runs() if run.done()]) == 3
    again = subprocess.run(
        [DEPTHSWEEP, "resume", "small", "--address", cluster.address], cwd=tmp_path,
        capture_output=True, text=True, timeout=100,
    )  # fmt: skip
    assert (again.returncode, "nothing to do" in again.stdout) == (0, True)
