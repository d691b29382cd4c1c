"""Claims, heartbeats and fencing, with real processes where a process matters."""

import json
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from sweeps.results import attempt as attempt_module
from sweeps.results.attempt import Attempt, Superseded, is_alive
from sweeps.results.store import RunFolder, create_json, read_json, write_json


@pytest.fixture
def folder(tmp_path):
    return RunFolder(tmp_path / "run")


HOLDER = """
import sys, time
from pathlib import Path
from sweeps.results.attempt import Attempt
from sweeps.results.store import RunFolder
with Attempt(RunFolder(Path(sys.argv[1]))) as attempt:
    print(attempt.number, flush=True)
    time.sleep(float(sys.argv[2]))
"""


def hold(folder, seconds=60.0):
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(folder.path), str(seconds)],
        stdout=subprocess.PIPE,
        text=True,
    )
    number = int(process.stdout.readline())
    return process, number


def test_attempts_are_numbered_and_say_how_they_ended(folder):
    with Attempt(folder) as first:
        first.end("finished")
    with pytest.raises(RuntimeError, match="broken"), Attempt(folder):
        raise RuntimeError("broken")
    with Attempt(folder):
        pass
    assert [(a["attempt"], a["cause"]) for a in folder.attempts()] == [
        (1, "finished"),
        (2, "failed"),
        (3, "cancelled"),
    ]
    assert "RuntimeError: broken" in folder.attempts()[1]["error"]


def test_a_successor_waits_for_a_live_attempt(folder):
    process, _ = hold(folder, 2.0)
    began = time.monotonic()
    with Attempt(folder) as mine:
        assert time.monotonic() - began > 0.5
        assert mine.number == 2
    assert folder.attempts()[0]["cause"] == "cancelled"
    assert process.wait(10) == 0


def test_a_killed_attempt_is_succeeded_at_once(folder):
    process, number = hold(folder)
    process.send_signal(signal.SIGKILL)
    process.wait()
    began = time.monotonic()
    with Attempt(folder) as mine:
        assert mine.number == number + 1
    assert time.monotonic() - began < attempt_module.STALE_SECONDS / 2
    assert folder.attempts()[0]["cause"] is None


def test_a_stopped_attempt_goes_stale_and_is_fenced_when_it_wakes(folder, monkeypatch):
    monkeypatch.setattr(attempt_module, "HEARTBEAT_SECONDS", 0.05)
    monkeypatch.setattr(attempt_module, "STALE_SECONDS", 0.3)
    stopped = Attempt(folder).__enter__()
    stopped._stop.set()  # its process is frozen: no heartbeat, no word of an end
    with Attempt(folder) as mine:
        assert mine.number == 2
        mine.require_ownership()
        with pytest.raises(Superseded, match="attempt 1 was superseded"):
            stopped.require_ownership()


def test_an_attempt_on_another_machine_is_judged_by_its_heartbeat(folder):
    record = {"node": "elsewhere", "pid": 1, "cause": None}
    write_json(folder.attempt_path(1), record)
    assert is_alive(folder, {**record, "attempt": 1})
    old = time.time() - attempt_module.STALE_SECONDS - 1
    os.utime(folder.attempt_path(1), (old, old))
    assert not is_alive(folder, {**record, "attempt": 1})


def test_of_many_that_claim_at_once_each_gets_its_own_number(tmp_path):
    won = []

    def claim(k):
        for number in range(1, 9):
            if create_json(tmp_path / f"{number}.json", {"by": k}):
                won.append((k, number))

    threads = [threading.Thread(target=claim, args=(k,)) for k in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(number for _, number in won) == list(range(1, 9))
    assert {n: read_json(tmp_path / f"{n}.json")["by"] for _, n in won} == {n: k for k, n in won}
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"{n}.json" for n in range(1, 9)]


def test_a_forgotten_run_is_not_brought_back_by_its_last_writer(folder):
    with Attempt(folder) as mine:
        mine._path.unlink()
        with pytest.raises(Superseded):
            mine.require_ownership()
    assert folder.attempts() == []


def test_the_record_is_json_for_other_tools(folder):
    with Attempt(folder) as mine:
        mine.resumed_from(100)
    record = json.loads(folder.attempt_path(1).read_text())
    assert record["resumed_from"] == 100
    assert record["seconds"] >= 0
