"""Which process a record means: real ones, killed, not fetched, and in other pid namespaces."""

import json
import os
import platform
import subprocess
import sys

import pytest

from sweeps.liveness import process as module
from sweeps.liveness.process import IDENTITY, identity, is_there

SAY = """
import json, platform, sys
from sweeps.liveness.process import identity
print(json.dumps({**identity(), "node": platform.node()}), flush=True)
sys.stdin.read()
"""
APART = ["unshare", "--user", "--map-root-user", "--pid", "--fork"]


@pytest.fixture
def other():
    """Start processes that say their identity and wait to be killed; return process and record."""
    started = []

    def other(*before):
        command = [*before, sys.executable, "-c", SAY]
        process = subprocess.Popen(command, stdin=-1, stdout=-1, stderr=-3, text=True)
        started.append(process)
        line = process.stdout.readline()
        if before and not line:
            pytest.skip("this machine lets nobody make a pid namespace")
        return process, json.loads(line)

    yield other
    for process in started:
        process.stdin.close()
        process.wait()


pytestmark = pytest.mark.skipif(not os.path.exists("/proc/self/ns/pid"), reason="no Linux")


def test_a_process_is_there_until_it_is_killed_also_before_its_parent_has_heard(other):
    process, record = other()
    assert record["pid"] == process.pid
    assert is_there(record) is True
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert is_there(record) is False  # its parent has not fetched its end
    process.wait()
    assert is_there(record) is False


def test_another_process_with_its_number_is_not_it():
    record = identity()
    assert is_there({**record, "process_started": record["process_started"] - 1}) is False


def test_a_process_of_another_user_is_there(other, monkeypatch):
    _, record = other()

    def refuse(pid, signal):
        raise PermissionError(pid, signal)

    monkeypatch.setattr(module.os, "kill", refuse)
    assert is_there(record) is True
    assert is_there({**record, "process_started": record["process_started"] - 1}) is False


@pytest.mark.parametrize("name", IDENTITY)
@pytest.mark.parametrize("value", [None, "another"])
def test_without_each_of_what_it_is_known_by_nothing_is_said(name, value):
    if (name, value) != ("process_started", "another"):
        assert is_there({**identity(), name: value}) is None


@pytest.mark.parametrize("pid", [None, 0, -1, 10**30])
def test_what_is_no_number_of_a_process_says_nothing(pid):
    assert is_there({**identity(), "pid": pid}) is None


def test_a_record_of_before_there_was_an_identity_says_nothing():
    assert is_there({"pid": 4_000_000, "node": platform.node()}) is None


def test_a_process_of_another_pid_namespace_is_not_asked_for(other):
    _, record = other(*APART, "--mount-proc")
    assert record["node"] == platform.node()
    assert record["boot"] == identity()["boot"]
    assert record["pid_namespace"] != identity()["pid_namespace"]
    assert is_there(record) is None


def test_a_proc_of_another_namespace_is_not_believed(other):
    _, record = other(*APART)
    assert [record[name] for name in IDENTITY] == [None] * 3
    assert is_there(record) is None


def test_without_proc_nothing_is_said(monkeypatch):
    record = identity()

    def missing(path):
        raise FileNotFoundError(path)

    monkeypatch.setattr(module.os, "readlink", missing)
    assert is_there(record) is None
    assert identity() == {"pid": os.getpid(), **dict.fromkeys(IDENTITY)}


def test_a_fork_has_an_identity_of_its_own():
    near, far = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.write(far, json.dumps(identity()).encode())
        os._exit(0)
    record = json.loads(os.read(near, 10_000))
    os.waitpid(pid, 0)
    assert record["pid"] == pid
    assert is_there(record) is False
