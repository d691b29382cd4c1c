"""Which of its node processes a local cluster takes to be alive."""

import json
import subprocess

import psutil
import pytest

from cluster.profile import Local
from orchestrator.jobs.local_cluster import LocalCluster
from sweeps.liveness import process
from sweeps.liveness.process import identity


@pytest.fixture
def node():
    running = subprocess.Popen(["sleep", "600"])
    yield running
    running.kill()
    running.wait()


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    return LocalCluster(Local(kind="local", port=6400))


def recorded(cluster, node, **changes):
    began = psutil.Process(node.pid).create_time()
    cluster.folder.mkdir(parents=True)
    record = {**identity(node.pid), "began": began, **changes}
    (cluster.folder / "processes.json").write_text(json.dumps({"nodes": [record], "scratch": ""}))


def clock_set(monkeypatch, seconds):
    """Have psutil say when processes began as it does after the clock was set."""
    before = psutil.Process.create_time
    monkeypatch.setattr(psutil.Process, "create_time", lambda self: before(self) + seconds)


def test_a_cluster_stays_up_when_the_clock_is_set(cluster, node, monkeypatch):
    recorded(cluster, node)
    clock_set(monkeypatch, -1.0)
    assert [one["pid"] for one in cluster.processes()] == [node.pid]


def test_what_was_killed_is_not_alive_also_before_its_parent_has_heard(cluster, node):
    recorded(cluster, node)
    node.kill()
    while psutil.Process(node.pid).status() != psutil.STATUS_ZOMBIE:
        pass
    assert cluster.processes() == []


@pytest.mark.parametrize("changes", [{"process_started": 1}, {"boot": "another"}])
def test_another_process_of_its_number_is_none_of_it(cluster, node, changes):
    recorded(cluster, node, **changes)
    assert cluster.processes() == []


@pytest.mark.parametrize(("seconds", "alive"), [(0.5, 1), (2.0, 0)])
def test_without_proc_it_is_known_by_when_it_began(cluster, node, monkeypatch, seconds, alive):
    monkeypatch.setattr(process, "_whereabouts", lambda: None)
    recorded(cluster, node)
    clock_set(monkeypatch, seconds)
    assert len(cluster.processes()) == alive
