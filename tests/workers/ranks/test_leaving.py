"""A machine's ranks are told and waited for, by whoever ends it without telling them."""

import os
import subprocess
import sys
import threading

import pytest

from workers.ranks import leaving


def named_like_a_rank(body):
    """Start a process whose command line is a rank server's, which carries out a body."""
    words = [sys.executable, "-c", f"import sys\n{body}", "-m", "workers.ranks.rank_server", "/x"]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "ready\n"
    return process


CHECKPOINTS = """
import signal, time
def told(*_):
    time.sleep(1)
    print("checkpoint", flush=True)
    sys.exit(0)
signal.signal(signal.SIGTERM, told)
print("ready", flush=True)
time.sleep(600)
"""
HANGS = """
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("ready", flush=True)
time.sleep(600)
"""


@pytest.fixture
def ours(monkeypatch):
    """Return a list: of the ranks of this machine, which others may have started, only those whose
    processes are in it are told."""
    mine, find = [], leaving.rank_processes

    def found():
        return [number for number in find() if number in [process.pid for process in mine]]

    monkeypatch.setattr(leaving, "rank_processes", found)
    yield mine
    for process in mine:
        process.kill()
        process.wait()


def test_a_rank_is_known_by_its_command(ours):
    ours.append(named_like_a_rank(HANGS))
    assert leaving.rank_processes() == [ours[0].pid]
    assert os.getpid() not in leaving.rank_processes()


def test_ranks_checkpoint_before_the_machine_goes_also_one_that_begins_meanwhile(ours):
    ours.append(named_like_a_rank(CHECKPOINTS))
    later = threading.Timer(0.3, lambda: ours.append(named_like_a_rank(CHECKPOINTS)))
    later.start()
    assert leaving.leave(60) == 0
    later.join()
    assert leaving.leave(60) == 0
    assert [rank.communicate(timeout=60)[0] for rank in ours] == ["checkpoint\n"] * 2


def test_a_rank_that_does_not_leave_is_not_waited_for_for_ever(ours):
    ours.append(named_like_a_rank(HANGS))
    assert leaving.leave(1) == 1


def test_a_machine_without_ranks_may_go_at_once(ours):
    assert leaving.leave(600) == 0
    assert ours == []
