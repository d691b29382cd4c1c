"""What a store promises, over a local folder and over an S3-compatible server alike."""

import importlib
import os
import subprocess
import sys
import threading
import time
from itertools import pairwise

import pytest
from planted_store import run_spec

from sweeps.attempts.attempt import Attempt, Superseded, end_for
from sweeps.attempts.living import alive_runs
from sweeps.attempts.run_log import RunLog, read_events
from sweeps.declaration.expand import Sweep
from sweeps.errors import UserError
from sweeps.files.patience import StoreUnavailable
from sweeps.files.records import create, look, renew, replace_if, versions
from sweeps.files.whole_files import (
    account_of,
    file_checksum,
    local_file,
    read_if_readable,
    read_json,
    remove_folder,
    whole_file,
    write_json,
    write_text,
)
from sweeps.store.store import Store


@pytest.fixture(params=["folder", "s3"])
def store(request, tmp_path):
    folder = request.param == "folder"
    store = Store.at(str(tmp_path / "store") if folder else request.getfixturevalue("s3_url"))
    store.identify()
    return store


def fill(folder):
    for table, first in (("steps", 0), ("steps", 3), ("layers", 0)):
        write_text(folder.part_path(table, first, first + 3), f"{table} {first}")
    for step in (3, 6):
        write_text(folder.checkpoint_path(step) / "layer", f"{step}")
        write_json(folder.checkpoint_path(step) / "manifest.json", {"files": {}, "parts": {}})
    write_json(folder.path / "run.json", {"spec": {}, "facts": {}})
    write_json(folder.path / "DONE.json", {"status": "finished"})
    write_json(folder.attempt_path(1), {"cause": "finished"})


def test_a_file_is_written_whole_and_read_back(store):
    folder = store.run("abc")
    assert read_if_readable(folder.path / "run.json") is None
    with whole_file(folder.path / "a" / "b") as path:
        path.write_bytes(b"1234")
    with local_file(folder.path / "a" / "b") as path:
        assert path.read_bytes() == b"1234"
    write_text(folder.path / "a" / "b", "changed")
    assert (folder.path / "a" / "b").read_text() == "changed"
    assert account_of([folder.path / "a" / "b", folder.path / "none"]) == {
        folder.path / "a" / "b": {
            "bytes": 7,
            "sha256": file_checksum(folder.path / "a" / "b"),
        }
    }


def test_a_write_that_fails_leaves_what_was_there(store):
    path = store.run("abc").path / "run.json"
    write_text(path, "before")
    with pytest.raises(FileNotFoundError), whole_file(path) as temporary:
        temporary.with_name("none").read_text()
    assert path.read_text() == "before"
    assert [found.name for found in path.parent.iterdir()] == ["run.json"]


def test_the_ledger_is_listed(store):
    folder = store.run("abc")
    assert (store.runs(), store.sweep_names(), folder.attempts()) == ([], [], [])
    fill(folder)
    write_json(store.sweep_folder("one") / "resolved.json", {})
    write_text(folder.checkpoint_path(9) / "layer", "torn off before its manifest")
    assert [run.run_id for run in store.runs()] == ["abc"]
    assert store.sweep_names() == ["one"]
    assert [path.name for path in folder.parts("steps")] == [
        "part-000000-000003.parquet",
        "part-000003-000006.parquet",
    ]
    assert folder.checkpoint_steps() == [3, 6]
    assert [(a["attempt"], a["cause"]) for a in folder.attempts()] == [(1, "finished")]
    with pytest.raises(UserError, match="no run 'abd'; did you mean 'abc'"):
        store.known("abd")


def test_what_is_forgotten_is_gone_and_nothing_else(store):
    folder, other = store.run("abc"), store.run("abcd")
    fill(folder)
    fill(other)
    folder.forget_results()
    assert (folder.done(), folder.checkpoint_steps(), folder.parts("steps")) == (None, [], [])
    assert folder.record() == {"spec": {}, "facts": {}}
    folder.forget()
    assert [run.run_id for run in store.runs()] == ["abcd"]
    assert len(other.parts("steps")) == 2


def test_what_makes_others_count_is_deleted_first(s3_url, monkeypatch):
    store = Store.at(s3_url)
    fill(store.run("abc"))
    gone = []
    system = store.root.files._system
    remove = system.rm_file
    monkeypatch.setattr(system, "rm_file", lambda name: (gone.append(name), remove(name))[1])
    store.run("abc").forget()
    order = [name.split("/abc/")[1] for name in gone]
    assert order[0] == "DONE.json"
    assert max(order.index(f"checkpoints/step-00000{n}/manifest.json") for n in (3, 6)) < min(
        order.index(f"checkpoints/step-00000{n}/layer") for n in (3, 6)
    )
    assert order[-1] == "attempts/1.json"


def test_attempts_are_numbered_and_say_how_they_ended(store):
    folder = store.run("abc")
    with Attempt(folder) as first:
        first.resumed_from(100)
        first.end("finished")
    with pytest.raises(ZeroDivisionError), Attempt(folder) as second:
        second.log("checkpoint", step=3 // (second.number - 2))
    assert [(a["attempt"], a["cause"], a["resumed_from"]) for a in folder.attempts()] == [
        (1, "finished", 100),
        (2, "failed", None),
    ]
    assert "ZeroDivisionError: " in folder.attempts()[1]["error"]
    events = [event["event"] for event in read_events(folder.log_path(2))]
    assert events == ["attempt started", "attempt ended"]


CLAIM = """
import sys, time
from sweeps.attempts.attempt import Attempt
from sweeps.store.store import Store
folder = Store.at(sys.argv[1]).run("abc")
with Attempt(folder) as attempt:
    print("began", attempt.number, time.monotonic(), flush=True)
    time.sleep(float(sys.argv[2]))
    print("ended", attempt.number, time.monotonic(), flush=True)
"""


def claimant(store, seconds):
    return subprocess.Popen(
        [sys.executable, "-c", CLAIM, store.location, str(seconds)],
        stdout=subprocess.PIPE,
        text=True,
    )


def test_processes_that_claim_at_once_own_the_run_one_after_another(store):
    processes = [claimant(store, 0.3) for _ in range(3)]
    said = [process.communicate(timeout=120)[0].split() for process in processes]
    assert [process.returncode for process in processes] == [0] * 3
    spans = sorted((int(words[1]), float(words[2]), float(words[5])) for words in said)
    assert [number for number, _, _ in spans] == [1, 2, 3]
    assert all(a[2] <= b[1] for a, b in pairwise(spans))
    assert [a["cause"] for a in store.run("abc").attempts()] == ["cancelled"] * 3


def test_a_killed_attempt_is_succeeded_at_once(store, monkeypatch):
    process = claimant(store, 60)
    monkeypatch.setenv("DEPTHSWEEP_STALE_SECONDS", "600")
    assert process.stdout.readline().startswith("began 1")
    process.kill()
    process.wait()
    began = time.monotonic()
    with Attempt(store.run("abc")) as mine:
        assert mine.number == 2
    assert time.monotonic() - began < 60


def from_elsewhere(attempt):
    """Make the record of an attempt look like one of another machine."""
    attempt._record |= {"node": "elsewhere", "boot": "another"}
    assert attempt._lease.write()


def test_an_attempt_that_fell_silent_is_fenced_when_it_wakes(store, monkeypatch):
    folder = store.run("abc")
    silent = Attempt(folder).__enter__()
    silent._stop.set()
    monkeypatch.setenv("DEPTHSWEEP_STALE_SECONDS", "1")
    from_elsewhere(silent)
    with Attempt(folder) as mine:
        assert mine.number == 2
        mine.require_ownership()
        with pytest.raises(Superseded, match="attempt 1 was superseded"):
            silent.require_ownership()
    silent.__exit__(None, None, None)


def test_a_heartbeat_is_seen_and_its_end_too(store, monkeypatch):
    monkeypatch.setenv("DEPTHSWEEP_STALE_SECONDS", "2")
    folder, ended = store.run("abc"), store.run("abd")
    with Attempt(ended) as other:
        other.end("finished")
    with Attempt(folder) as mine:
        assert alive_runs([folder, ended]) == {"abc"}
        mine._stop.set()
        for thread in threading.enumerate():
            if thread.name == "heartbeat":
                thread.join()
        from_elsewhere(mine)
        assert alive_runs([folder]) == set()
        assert end_for(folder, folder.attempts()[-1], "lost", "no word")
    assert folder.attempts()[0]["cause"] == "lost"


def test_what_closes_an_attempt_closes_the_one_that_was_judged(store):
    folder = store.run("abc")
    stopped = Attempt(folder).__enter__()
    stopped._stop.set()
    judged = folder.newest_attempt()
    folder.forget()
    with Attempt(folder) as mine:
        assert mine.number == stopped.number == 1
        assert not end_for(folder, judged, "lost", "no word")
        assert folder.newest_attempt()["cause"] is None
        with pytest.raises(Superseded):
            stopped.require_ownership()
        mine.require_ownership()
        before = folder.newest_attempt()
        stopped.end("failed", "a late word")
        assert folder.newest_attempt() == before
    assert not end_for(folder, folder.newest_attempt(), "lost", "it has ended by itself")
    assert folder.newest_attempt()["cause"] == "cancelled"
    folder.forget()
    assert not end_for(folder, before, "lost", "nothing is there")
    assert folder.attempts() == []


def test_a_forgotten_run_is_not_brought_back_by_its_last_writer(store):
    folder = store.run("abc")
    with Attempt(folder) as mine:
        folder.forget()
        with pytest.raises(Superseded):
            mine.require_ownership()
    assert folder.attempts() == []


def test_a_closing_record_is_made_once(store):
    folder = store.run("abc")
    with Attempt(folder):
        first, second = (
            {"status": "finished", "step": k, "parts": {}, "loss": 1.0} for k in (1, 2)
        )
        assert folder.close(first)
        assert folder.close(first)  # its answer was lost, and it is written again
        assert not folder.close(second)
        assert folder.done()["step"] == 1
        write_text(folder.path / "DONE.json", '{"status": "fini')
        assert folder.close(second)
        assert folder.done()["step"] == 2


def test_a_record_is_replaced_by_one_of_those_who_saw_it(store):
    folder = store.run("abc").path
    place = folder / "attempts" / "1.json"
    mine = create(place, {"token": "a" * 16}, "a" * 16)
    assert create(place, {"token": "b" * 16}, "b" * 16) is None
    assert versions(folder / "attempts") == {"1.json": mine}
    theirs = replace_if(place, {"token": "a" * 16, "n": 1}, mine, "b" * 16)
    assert replace_if(place, {"token": "a" * 16, "n": 2}, mine, "a" * 16) is None
    seen = look(place, versions(folder / "attempts")["1.json"])
    assert (seen.data["n"], seen.version, seen.by) == (1, theirs, "b" * 16)
    beaten = renew(place, seen.data, seen.version, "c" * 16)
    assert beaten not in (None, mine, theirs)
    assert look(place, beaten).by == "c" * 16
    remove_folder(folder)
    assert renew(place, seen.data, beaten, "c" * 16) is None
    assert replace_if(place, seen.data, beaten, "c" * 16) is None
    assert look(place, beaten) is None


def test_a_log_of_an_object_store_comes_with_the_heartbeat(s3_url):
    log = RunLog(Store.at(s3_url).run("abc").log_path(1))
    log.event("one")
    log.flush()
    log.event("two")
    path = Store.at(s3_url).run("abc").log_path(1)
    assert [event["event"] for event in read_events(path)] == ["one"]
    log.flush()
    assert [event["event"] for event in read_events(path)] == ["one", "two"]


@pytest.mark.parametrize(
    ("location", "message"),
    [
        ("s3://key:secret@study/x", "the URL holds credentials"),
        ("s3://study/x?versionId=1", "give scheme, bucket and prefix, nothing else"),
        ("s3://", "s3://: names no bucket"),
        ("http://host:8333/study", r"http:// is no object store; .* AWS_ENDPOINT_URL"),
        ("https://account.example/study/x", "https:// is no object store"),
        ("file:///tmp/x", "a local folder is given as its path"),
        ("nope://study/x", "no client knows nope://"),
        ("S3://study/x", "lower case: s3://"),
    ],
)
def test_a_url_that_cannot_be_a_store_is_refused(location, message):
    with pytest.raises(UserError, match=message) as refused:
        Store.at(location)
    assert "secret" not in str(refused.value)


def test_a_client_that_is_not_installed_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "s3fs", None)
    known = importlib.import_module("fsspec.registry")._registry
    monkeypatch.delitem(known, "s3", raising=False)
    with pytest.raises(UserError, match=r"pip install -e '\.\[s3\]'"):
        Store.at("s3://study/x")


def test_a_client_that_is_told_too_little_to_start_is_the_users(monkeypatch):
    for name in [name for name in os.environ if name.startswith("AZURE_STORAGE")]:
        monkeypatch.delenv(name)
    with pytest.raises(UserError, match=r"does not start .*AZURE_STORAGE_CONNECTION_STRING"):
        Store.at("az://study/x")


def test_what_hinders_the_first_request_is_the_users_and_raised_at_once(
    s3_url, monkeypatch, caplog
):
    with pytest.raises(UserError, match="the bucket does not exist; create it"):
        Store.at("s3://none/x").reading()
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setattr(
        "sweeps.files.patience.SILENCE_SECONDS", 0.001
    )  # its client tries again and again
    with pytest.raises(UserError, match="cannot be reached"):
        Store.at(s3_url).require_writable()
    assert caplog.messages == [f"--store {s3_url}: no answer in 0 s; its client goes on trying"]
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
    with pytest.raises(UserError, match=r"access is refused .*AWS_ACCESS_KEY_ID"):
        Store.at(s3_url).require_writable()


def test_a_worker_waits_for_a_server_and_then_says_which(s3_url, monkeypatch):
    slept = []
    monkeypatch.setattr("sweeps.files.patience.time.sleep", slept.append)
    store = Store.at(s3_url, waits=True)
    request = ConnectionError("refused")

    def refuse(*_, **__):
        raise request

    monkeypatch.setattr(store.root.files._system, "find", refuse)
    with pytest.raises(StoreUnavailable, match=rf"{s3_url}: could not be .*refused"):
        store.run("abc").parts("steps")
    assert sum(slept) >= 300


def test_measurements_lie_beside_runs_and_are_known_by_their_ids(store):
    name = "propagation-0123456789ab"
    write_json(store.work(name).path / "DONE.json", {"status": "finished", "step": 0, "parts": {}})
    fill(store.run("abc"))
    assert [folder.run_id for folder in store.measurements()] == [name]
    assert [folder.run_id for folder in store.runs()] == ["abc"]
    assert store.work("abc").path == store.run("abc").path
    assert store.reading().work(name).done()["status"] == "finished"
    with pytest.raises(UserError, match=f"no measurement '{name[:-1]}c'; did you mean '{name}'"):
        store.known(f"{name[:-1]}c")
    store.known(name).forget()
    assert store.measurements() == []


def test_what_a_sweep_wants_measured_is_kept_and_an_old_record_wants_the_usual(store):
    sweep = Sweep("one", "", "name: one", (run_spec(),), ("objective_distance",))
    store.save_sweep(sweep)
    assert store.load_sweep("one").measurements == ("objective_distance",)
    path = store.version("one").folder / "resolved.json"
    record = read_json(path)
    write_json(path, {**record, "measurements": ["weather"]})
    with pytest.raises(UserError, match="measurements: weather"):
        store.load_sweep("one")
    del record["measurements"]
    write_json(path, record)
    assert store.load_sweep("one").measurements == ("propagation",)
