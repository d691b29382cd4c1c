"""How the end of a run is recorded whose process cannot do it any more; no Ray is started."""

import json
import os
import subprocess
import sys
from types import SimpleNamespace

import pytest

from orchestrator.ranks import gang as module
from orchestrator.ranks.gang import Gang, RankLost, RunBroken
from sweeps.liveness.process import identity
from sweeps.store.store import Store
from workers.progress import Progress
from workers.ranks.notice import Notice
from workers.ranks.rank_process import Broken, Job

RUN_ID = "r" * 12


class Held:
    """The holder of one rank that ends as a test says."""

    ends = None

    def __init__(self, alone, fresh):
        del alone, fresh
        self.seat = SimpleNamespace(node="n", address="10.0.0.7", devices=())
        self.latest = Progress(0, 0, None)
        self.heard = []

    def begin(self, job):
        self.heard.append(job.environment)

    def listen(self, seconds):
        del seconds
        return self.ends

    def stop(self, cause):
        self.heard.append(cause)

    def end(self):
        self.heard.append("end")

    def rest(self):
        self.heard.append("rest")


@pytest.fixture
def held(monkeypatch, tmp_path):
    """Return a function that begins a run: its progress, and its holder."""
    monkeypatch.setattr(module, "RankHolder", Held)

    def held(ends=None, notice=None):
        gang = Gang([{"CPU": 1.0}], True, True)
        gang._first.ends = ends
        job = Job("", str(tmp_path), 1)
        return gang.progress(RUN_ID, job, notice or Notice()), gang._first

    yield held
    assert not module.ray.is_initialized()


@pytest.fixture
def dead():
    """Return the number of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def attempt_of(folder, pid, **differs):
    """Write the record of an attempt that has not ended."""
    run = Store(folder).run(RUN_ID)
    record = {**identity(), "pid": pid, "cause": None, "error": None, **differs}
    run.attempt_path(1).parent.mkdir(parents=True)
    run.attempt_path(1).write_text(json.dumps(record))
    return run


def test_a_lost_rank_closes_its_dead_attempt(held, tmp_path, dead):
    run = attempt_of(tmp_path, dead)
    progress, holder = held(Broken("lost", f"process {dead} died"))
    with pytest.raises(RankLost, match=f"rank 0 of 1: process {dead} died"):
        list(progress)
    newest = run.newest_attempt()
    assert (newest["cause"], newest["error"]) == ("lost", f"rank 0 of 1: process {dead} died")
    assert "end" in holder.heard


def test_the_stacks_of_one_that_hung_are_in_its_log(held, tmp_path, dead):
    run = attempt_of(tmp_path, dead)
    text = "process 7 made no step for 601 s\nThread 0x1:\n  File x.py in all_reduce"
    with pytest.raises(RankLost):
        list(held(Broken("lost", text))[0])
    assert "all_reduce" in run.log_path(1).read_text()


@pytest.mark.parametrize("whose", ["living", "elsewhere"])
def test_an_attempt_that_may_be_another_drivers_is_left_alone(held, tmp_path, dead, whose):
    differs = {"boot": "another"} if whose == "elsewhere" else {}
    run = attempt_of(tmp_path, os.getpid() if whose == "living" else dead, **differs)
    with pytest.raises(RankLost):
        list(held(Broken("lost", "process 7 died"))[0])
    assert run.newest_attempt()["cause"] is None


def test_an_end_from_outside_closes_the_dead_attempt_as_cancelled(held, tmp_path, dead):
    run = attempt_of(tmp_path, dead)
    progress, holder = held()
    next(progress)
    progress.close()
    assert run.newest_attempt()["cause"] == "cancelled"
    assert holder.heard[-1] == "end"


def test_an_error_is_the_runs_and_its_process_ends(held):
    progress, holder = held(Broken("error", "ValueError: so it was"))
    with pytest.raises(RunBroken, match="so it was") as raised:
        list(progress)
    assert raised.value.how.what == "error"
    assert holder.heard[-1] == "end"


def test_a_result_leaves_the_process_to_rest(held):
    progress, holder = held(Progress(9, 9, 0.5, "finished"))
    assert [one.status for one in progress] == [None, "finished"]
    assert holder.heard[-1] == "rest"
    assert holder.heard[0] == {"WORLD_SIZE": "1", "RANK": "0", "LOCAL_RANK": "0"}


def test_a_notice_reaches_the_rank_once(held):
    notice = Notice()
    progress, holder = held(notice=notice)
    next(progress)
    notice.give("preempted")
    holder.latest = Progress(1, 9, 0.5)
    next(progress)
    holder.latest = Progress(2, 9, 0.5)
    next(progress)
    assert holder.heard.count("preempted") == 1


@pytest.mark.parametrize(
    "error",
    [
        OSError("no rank process could be started: see this node's Ray logs"),
        ImportError("ModuleNotFoundError: No module named 'torch'"),
    ],
)
def test_what_keeps_a_rank_from_being_started_is_no_error_of_the_run(held, monkeypatch, error):
    def refuses(holder, job):
        del holder, job
        raise error

    monkeypatch.setattr(Held, "begin", refuses)
    with pytest.raises(RankLost, match=str(error)):
        list(held()[0])
