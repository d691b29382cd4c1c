"""Sweeps on a cluster that is already up: two raylets on loopback, the CLI as a process."""

import logging
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

import pytest
import ray
from orchestrator.tuning.trials import Offer
from ray.cluster_utils import Cluster

from orchestrator.connection.nodes import cluster_nodes
from orchestrator.policy.next_start import Waiting
from orchestrator.policy.occupancy import Demand
from orchestrator.sizing.placement import place_on, slots_of
from orchestrator.tuning.trainable import RunTrainable
from orchestrator.tuning.tune_sweep import run_all
from sweeps.store.store import Store
from workers.ranks.rank_process import Job

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


def test_a_node_that_joins_is_used_and_the_runs_of_one_that_leaves_go_on(cluster, tmp_path):
    gate = tmp_path / "gate"
    job = Job("", "", 1, body="tests.rank_bodies:wait_for_file", details={"file": str(gate)})
    offers = [
        Offer(
            Waiting(f"{k}", Demand(), 9.0),
            {"run_id": f"{k}", "job": job, "fresh": k == 0},
        )
        for k in range(3)
    ]
    ray.init(address=cluster.address, log_to_driver=False, logging_level=logging.ERROR)
    placement = place_on(cluster_nodes())
    joined = []
    progress = defaultdict(int)
    kinds = []
    changes = ["join", "leave", "end"]

    def note(event):
        progress[event.run_id] += event.kind == "progress" and event.report["step"] > 0
        kinds.append((event.kind, event.report.get("status")))
        running = sum(1 for count in progress.values() if count)
        if changes[:1] == ["join"] and running == 2:
            joined.append(cluster.add_node(num_cpus=1, object_store_memory=80_000_000))
            changes.pop(0)
        elif changes[:1] == ["leave"] and running == 3:
            cluster.remove_node(joined[0], allow_graceful=False)
            changes.pop(0)
        elif changes[:1] == ["end"] and ("lost", None) in kinds:
            gate.touch()
            changes.pop(0)

    try:
        run_all(
            RunTrainable,
            offers,
            lambda: slots_of(cluster_nodes(), placement),
            placement.holds,
            note,
        )
    finally:
        gate.touch()
        ray.shutdown()
    assert changes == []
    assert [kind for kind in kinds if kind[0] == "ended"] == [("ended", "finished")] * 3
    assert kinds.count(("started", None)) == 4
