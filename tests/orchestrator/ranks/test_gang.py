"""How the end of a gang is recorded, and what it waits for; no Ray is started."""

import json
import os
import subprocess
import sys

import pytest
from orchestrator.ranks.slot import Slot

from orchestrator.ranks import gang as module
from orchestrator.ranks.gang import Gang, RankLost, gang_progress
from sweeps.liveness.process import identity
from sweeps.store.store import Store
from workers.ranks.notice import Notice
from workers.ranks.rank_process import Job


class Group:
    """A placement group that is there only after so many waits."""

    def __init__(self, waits):
        self.waits = waits

    def wait(self, seconds):
        assert seconds == int(seconds) > 0, "Ray waits in whole seconds"
        self.waits -= 1
        return self.waits < 0


@pytest.fixture
def started(monkeypatch, tmp_path):
    """Return the progress of a run on a node, where the nodes that there are have these names."""

    def started(present, notice=None, waits=99):
        nodes = [{"NodeID": name, "Alive": True} for name in present]
        monkeypatch.setattr(module.ray, "nodes", lambda: nodes)
        gang = Gang("r" * 12, (Slot("here", Group(waits), 0, False),), False)
        return gang_progress(gang, Job("", str(tmp_path), 1), notice or Notice())

    return started


def attempt_of(tmp_path, pid, **differs):
    """Write the record of an attempt that has not ended."""
    folder = Store(tmp_path).run("r" * 12)
    record = {**identity(), "pid": pid, "cause": None, "error": None, **differs}
    folder.attempt_path(1).parent.mkdir(parents=True)
    folder.attempt_path(1).write_text(json.dumps(record))
    return folder


@pytest.fixture
def dead():
    """Return the number of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_it_waits_for_what_it_holds_and_says_so(started):
    progress = started(["here"])
    assert [next(progress).status for _ in range(3)] == [None] * 3


def test_told_to_stop_meanwhile_it_ends_with_the_cause(started):
    notice = Notice()
    progress = started(["here"], notice)
    next(progress)
    notice.give("preempted")
    assert [step.status for step in progress] == ["preempted"]


def test_without_its_node_it_is_lost_and_the_dead_attempt_closed(started, tmp_path, dead):
    folder = attempt_of(tmp_path, dead)
    with pytest.raises(RankLost, match="has left"):
        list(started(["another"]))
    assert folder.newest_attempt()["cause"] == "lost"


@pytest.mark.parametrize("whose", ["living", "elsewhere"])
def test_an_attempt_that_may_be_another_drivers_is_left_alone(started, tmp_path, dead, whose):
    differs = {"boot": "another"} if whose == "elsewhere" else {}
    folder = attempt_of(tmp_path, os.getpid() if whose == "living" else dead, **differs)
    with pytest.raises(RankLost):
        list(started(["another"]))
    assert folder.newest_attempt()["cause"] is None


def test_an_end_from_outside_closes_the_dead_attempt_as_cancelled(started, tmp_path, dead):
    folder = attempt_of(tmp_path, dead)
    progress = started(["here"])
    next(progress)
    progress.close()
    assert folder.newest_attempt()["cause"] == "cancelled"


class Host:
    """A node's host that answers what a gang asks it; each answer stands for Ray's reference."""

    def __init__(self, name):
        self.name = name
        self.meeting_point = self.visible_gpu = self

    def remote(self, slot=None):
        return (self.name, 29500) if slot is None else str(slot.bundle)


@pytest.mark.parametrize("nodes", [["a"], ["a", "a"], ["a", "a", "b", "b"], ["a", "b"]])
def test_a_ranks_local_number_counts_among_the_devices_that_it_sees(monkeypatch, nodes):
    monkeypatch.setattr(module, "_ask", lambda answer, _: answer)
    slots = tuple(Slot(node, None, bundle, True) for bundle, node in enumerate(nodes))
    hosts = {name: Host(name) for name in nodes}
    jobs = module._jobs(Gang("r" * 12, slots, True), hosts, Job("", "", 1))
    seen = []
    for job in jobs:
        visible = job.environment["CUDA_VISIBLE_DEVICES"].split(",")
        # What torch.cuda.set_device(LOCAL_RANK) would do in that process.
        seen.append(visible[int(job.environment["LOCAL_RANK"])])
    assert seen == [str(slot.bundle) for slot in slots]
    assert [job.environment["RANK"] for job in jobs] == [str(k) for k in range(len(nodes))]
