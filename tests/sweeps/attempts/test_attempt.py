"""Claims, heartbeats and fencing, with real processes where a process matters."""

import errno
import json
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from sweeps.attempts.attempt import Attempt, Superseded, end_for
from sweeps.attempts.living import alive_runs
from sweeps.attempts.run_log import read_events
from sweeps.files import folder_records, patience
from sweeps.files.records import create
from sweeps.files.whole_files import read_json
from sweeps.leases.lease import closed_as_lost, newest
from sweeps.store.run_folder import RunFolder
from sweeps.store.store import Store


@pytest.fixture
def folder(tmp_path):
    return RunFolder(tmp_path / "run")


HOLDER = """
import sys
from pathlib import Path
from sweeps.attempts.attempt import Attempt
from sweeps.store.run_folder import RunFolder
with Attempt(RunFolder(Path(sys.argv[1]))) as attempt:
    print(attempt.number, flush=True)
    sys.stdin.read()
"""


def hold(folder):
    """Start a process that has an attempt until its input is closed."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(folder.path)],
        stdin=subprocess.PIPE,
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


def test_whose_files_a_successor_has_removed_is_superseded(folder):
    def work():
        with Attempt(folder):
            seen = newest(folder.path / "attempts")
            assert closed_as_lost(folder.path / "attempts", seen, "successor")
            (folder.path / "steps" / "part").read_bytes()

    with pytest.raises(Superseded) as raised:
        work()
    assert isinstance(raised.value.__cause__, FileNotFoundError)
    assert folder.attempts()[0]["cause"] == "lost"


def test_a_file_that_is_not_there_is_a_failure_of_its_own_run(folder):
    with pytest.raises(FileNotFoundError), Attempt(folder):
        (folder.path / "data.txt").read_bytes()
    assert folder.attempts()[0]["cause"] == "failed"


def test_a_successor_waits_for_a_live_attempt(folder):
    process, _ = hold(folder)
    claimed = threading.Event()

    def succeed():
        with Attempt(folder) as mine:
            assert mine.number == 2
            claimed.set()
            mine.end("not needed")

    successor = threading.Thread(target=succeed)
    successor.start()
    assert not claimed.wait(1.0)
    process.stdin.close()
    assert claimed.wait(60)
    successor.join()
    first, second = folder.attempts()
    assert [first["cause"], second["cause"]] == ["cancelled", "not needed"]
    assert second["started"] >= first["ended"], "what it waited is no time of the run's"
    assert second["seconds"] < first["seconds"]
    assert process.wait(60) == 0


def test_a_killed_attempt_is_succeeded_at_once(folder, monkeypatch):
    process, number = hold(folder)
    monkeypatch.setenv("DEPTHSWEEP_STALE_SECONDS", "600")
    process.send_signal(signal.SIGKILL)
    process.wait()
    began = time.monotonic()
    with Attempt(folder) as mine:
        assert mine.number == number + 1
    assert time.monotonic() - began < 60
    assert folder.attempts()[0]["cause"] == "lost"


def test_a_stopped_attempt_goes_stale_and_is_fenced_when_it_wakes(folder, monkeypatch):
    monkeypatch.setenv("DEPTHSWEEP_STALE_SECONDS", "0.3")
    stopped = Attempt(folder).__enter__()
    stopped._stop.set()  # its process is frozen: no heartbeat, no word of an end
    with Attempt(folder) as mine:
        assert mine.number == 2
        mine.require_ownership()
        with pytest.raises(Superseded, match="attempt 1 was superseded"):
            stopped.require_ownership()


def test_the_heartbeat_outlives_a_store_that_was_away_for_a_while(folder, monkeypatch):
    monkeypatch.setenv("DEPTHSWEEP_STALE_SECONDS", "0.4")
    rename, refused = folder_records._rename, []

    def away(seen, new):
        if len(refused) < 3:
            refused.append(seen)
            raise OSError(errno.EROFS, "Read-only file system")
        return rename(seen, new)

    monkeypatch.setattr(folder_records, "_rename", away)
    with Attempt(folder) as mine:
        before, until = seals(folder), time.monotonic() + 60
        while seals(folder) == before:
            assert time.monotonic() < until
            time.sleep(0.01)
        assert len(refused) == 3
        mine.require_ownership()


def seals(folder):
    return sorted(path.name for path in (folder.path / "attempts").glob(".1.json~*"))


def test_a_record_that_cannot_be_read_is_of_an_attempt_that_beats_or_is_gone(folder, monkeypatch):
    monkeypatch.setenv("DEPTHSWEEP_STALE_SECONDS", "0.5")
    with Attempt(folder) as harmed:
        folder.attempt_path(1).write_bytes(b'{"cause": nul')
        harmed.require_ownership()
        assert alive_runs([folder]) == {"run"}
        harmed._stop.set()
        with Attempt(folder) as mine:
            assert mine.number == 2


def test_a_lease_waits_for_a_full_store(folder, monkeypatch):
    waits, link = [], os.link

    def full(*paths):
        if len(waits) < 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        link(*paths)

    monkeypatch.setattr(folder_records.os, "link", full)
    monkeypatch.setattr(patience.time, "sleep", waits.append)
    with Attempt(folder) as mine:
        assert mine.number == 1
    assert len(waits) == 2


def test_an_attempt_of_a_store_that_is_not_there_makes_none(tmp_path):
    with pytest.raises(FileNotFoundError, match="is not there any more"):
        Attempt(RunFolder(tmp_path / "store" / "runs" / "abc")).__enter__()
    assert list(tmp_path.iterdir()) == []


def test_of_many_that_claim_at_once_each_gets_its_own_number(tmp_path):
    won = []

    def claim(k):
        for number in range(1, 9):
            if create(tmp_path / f"{number}.json", {"by": k}) is not None:
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
        folder.forget()
        with pytest.raises(Superseded):
            mine.require_ownership()
    assert folder.attempts() == []


def test_the_record_is_json_for_other_tools(folder):
    began = time.monotonic()
    with Attempt(folder) as mine:
        mine.resumed_from(100)
    record = json.loads(folder.attempt_path(1).read_text())
    assert record["resumed_from"] == 100
    assert 0 <= record["seconds"] <= round(time.monotonic() - began, 3)


def test_what_an_attempt_says_of_itself_stands_there_at_once(folder, monkeypatch):
    monkeypatch.setenv("DEPTHSWEEP_STALE_SECONDS", "4000")  # a beat is far off
    with Attempt(folder) as mine:
        mine.resumed_from(100)
        assert folder.newest_attempt()["resumed_from"] == 100
        mine.describe(torch_version="2")
        said = folder.newest_attempt()
        assert (said["torch_version"], said["resumed_from"], said["ended"]) == ("2", 100, None)
        mine.end("finished")
        ended = folder.newest_attempt()
        assert ended["cause"] == "finished"
        assert ended["ended"] >= ended["started"]
        for heart in (one for one in threading.enumerate() if one.name == "heartbeat"):
            heart.join(20)
            assert not heart.is_alive(), "what has ended beats no more"
    assert folder.newest_attempt() == ended
    said = [(one["event"], one.get("cause")) for one in read_events(folder.log_path(1))]
    assert said == [
        ("attempt started", None),
        ("training begins", None),
        ("attempt ended", "finished"),
    ]


def test_the_log_of_an_object_store_has_the_end_of_its_attempt(s3_url):
    folder = Store.at(s3_url).run("a" * 12)
    with Attempt(folder) as mine:
        mine.end("finished")
        *_, last = read_events(folder.log_path(1))
    assert (last["event"], last["cause"]) == ("attempt ended", "finished")


def test_files_are_named_after_the_attempt_and_its_token(folder):
    labels = []
    for _ in range(2):
        with Attempt(folder) as mine:
            labels.append(mine.label)
            assert mine.label == f"a{mine.number}-{folder.newest_attempt()['token'][:8]}"
    assert [label.split("-")[0] for label in labels] == ["a1", "a2"]


@pytest.mark.parametrize("closed", [True, False])
def test_what_came_late_goes_where_the_run_has_a_result_by_then(folder, closed):
    def work():
        with Attempt(folder) as mine:
            part = folder.part_path("steps", 0, 1, mine.label)
            part.parent.mkdir(parents=True)
            part.write_text("rows")
            assert closed_as_lost(folder.path / "attempts", newest(folder.path / "attempts"), "x")
            if closed:
                folder.close({"status": "finished", "step": 1, "parts": {}})
            mine.require_ownership()

    with pytest.raises(Superseded):
        work()
    assert len(folder.parts("steps")) == (0 if closed else 1)
    assert folder.attempts()[0]["cause"] == "lost"


def test_ownership_is_known_to_be_lost_only_once_the_store_was_asked(folder):
    with Attempt(folder) as mine:
        mine.require_not_superseded()
        assert closed_as_lost(folder.path / "attempts", newest(folder.path / "attempts"), "x")
        with pytest.raises(Superseded):
            mine.require_ownership()
        with pytest.raises(Superseded, match="attempt 1 was superseded"):
            mine.require_not_superseded()


def test_who_cannot_say_so_any_more_is_ended_by_another(folder):
    with Attempt(folder) as mine:
        record = folder.newest_attempt()
        assert not end_for(folder, {**record, "token": "another"}, "lost")
        assert not end_for(folder, {**record, "attempt": 2}, "lost")
        assert not end_for(folder, {**record, "cause": "failed"}, "lost")
        assert folder.newest_attempt()["cause"] is None
        assert end_for(folder, record, "lost", "no word")
        said = folder.newest_attempt()
        assert (said["cause"], said["error"], said["token"]) == ("lost", "no word", record["token"])
        assert said["ended"]
        assert not end_for(folder, said, "failed")
        with pytest.raises(Superseded):
            mine.require_ownership()


def test_of_no_attempt_nobody_ends_any(folder):
    record = {"attempt": 1, "cause": None, "token": "x", "started": None}
    assert not end_for(folder, record, "lost")
