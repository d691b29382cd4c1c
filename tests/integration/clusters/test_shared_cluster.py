"""Clusters that others use, too, and nodes that fail: raylets on loopback with pretended GPUs."""

import json
import logging
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict
from pathlib import Path

import pytest
import ray
from ray.cluster_utils import Cluster
from simulated.body_sweep import BodyRequests, BodySweep

from orchestrator.policy.occupancy import Demand
from sweeps.store.store import Store

ROOT = Path(__file__).parents[3]
STORE_BYTES = 80_000_000


@pytest.fixture
def make_cluster(monkeypatch):
    made = []
    with tempfile.TemporaryDirectory(prefix="rs", dir="/tmp") as folder:
        monkeypatch.setenv("RAY_TMPDIR", folder)

        def make(*nodes):
            head, *others = [{**node, "object_store_memory": STORE_BYTES} for node in nodes]
            cluster = Cluster(
                initialize_head=True, head_node_args={**head, "include_dashboard": False}
            )
            made.append(cluster)
            for node in others:
                cluster.add_node(**node)
            cluster.wait_for_nodes()
            ray.init(address=cluster.address, log_to_driver=False, logging_level=logging.ERROR)
            return cluster

        yield make
        ray.shutdown()
        for cluster in made:
            cluster.shutdown()


@pytest.mark.slow
def test_a_node_that_joins_is_used_and_the_runs_of_one_that_leaves_go_on(make_cluster, tmp_path):
    cluster = make_cluster({"num_cpus": 1}, {"num_cpus": 1})
    gate = tmp_path / "gate"
    runs = BodyRequests(gpus=False)
    for k in range(3):
        runs.add(f"{k}", "wait_for_file", details={"file": str(gate)})
    joined, kinds, changes = [], [], ["join", "leave", "end"]
    progress = defaultdict(int)

    def listen(event):
        progress[event.run_id] += event.kind == "progress" and event.report["step"] > 0
        kinds.append((event.kind, event.report.get("status")))
        running = sum(1 for count in progress.values() if count)
        if changes[:1] == ["join"] and running == 2:
            joined.append(cluster.add_node(num_cpus=1, object_store_memory=STORE_BYTES))
            changes.pop(0)
        elif changes[:1] == ["leave"] and running == 3:
            cluster.remove_node(joined[0], allow_graceful=False)
            changes.pop(0)
        elif changes[:1] == ["end"] and ("lost", None) in kinds:
            gate.touch()
            changes.pop(0)

    threading.Timer(150, gate.touch).start()
    sweep = BodySweep(runs, Store(tmp_path / "store"), listen).run()
    assert changes == []
    assert sweep.statuses == {"finished": 3}
    assert len(sweep.grid) == 3
    assert len(sweep.of("started")) == 4


@pytest.mark.slow
def test_half_of_a_node_that_a_tenant_holds_leaves_the_other_half_to_work(make_cluster, tmp_path):
    make_cluster({"num_cpus": 8, "num_gpus": 4})
    tenant = ray.util.placement_group([{"GPU": 2, "CPU": 2}])
    ray.get(tenant.ready(), timeout=60)
    runs = BodyRequests(gpus=True)
    runs.add("whole", "sleep", Demand(gpus=4), seconds=100.0, details={"seconds": 1.0})
    for k in range(6):
        runs.add(f"{k}", "sleep", seconds=2.0, details={"seconds": 1.0})
    ended = []

    def listen(event):
        if event.kind == "ended":
            ended.append(event.run_id)
            if len(ended) == 6 and "whole" not in ended:
                ray.util.remove_placement_group(tenant)

    sweep = BodySweep(runs, Store(tmp_path / "store"), listen).run()
    assert sweep.statuses == {"finished": 7}
    # The tenant left when all others had ended: they did not wait for the first in line.
    assert ended[-1] == "whole"
    assert Counter(event.run_id for event in sweep.of("started")) == dict.fromkeys(runs.waiting, 1)


@pytest.mark.slow
def test_a_node_on_which_each_run_fails_loses_no_sweep(make_cluster, tmp_path):
    cluster = make_cluster({"num_cpus": 2}, {"num_cpus": 2})
    node = cluster.list_all_nodes()[1]
    bad, raylet = node.node_id, str(node.all_processes["raylet"][0].process.pid)
    runs = BodyRequests(gpus=False)
    for k in range(8):
        runs.add(f"{k}", "fail_on_a_node", details={"raylet": raylet})
    sweep = BodySweep(runs, Store(tmp_path / "store")).run()
    assert sweep.statuses == {"finished": 8}
    touched = {e.run_id for e in sweep.of("started") if bad in e.report["nodes"]}
    assert 1 <= len(touched) <= 3
    if len(touched) == 3:
        assert any("set aside" in notice for notice in sweep.notices)
    assert len(sweep.grid) == 8


@pytest.mark.slow
def test_two_sweeps_at_once_both_get_on(make_cluster, tmp_path):
    cluster = make_cluster({"num_cpus": 8, "num_gpus": 4})
    store = Store(tmp_path / "store")

    command = [sys.executable, "-m", "tests.simulated.body_sweep", cluster.address, store.location]
    other = subprocess.Popen([*command, "12", "3.0"], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    runs = BodyRequests(gpus=True)
    for k in range(24):
        runs.add(f"a{k}", "sleep", seconds=3.0, details={"seconds": 3.0})
    began = time.time()
    sweep = BodySweep(runs, store).run()
    mine = [began + at for at, event in sweep.events if event.kind == "ended"]
    said, _ = other.communicate(timeout=200)
    theirs = json.loads(said.splitlines()[-1])
    assert (len(mine), len(theirs)) == (24, 12)
    # Neither waited for the end of the other.
    assert min(mine) < max(theirs)
    assert sorted(theirs)[6] < max(mine)
