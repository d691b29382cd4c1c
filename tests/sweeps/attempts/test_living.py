"""Who lives and who is dead: attempts of real processes that are frozen, killed and set apart."""

import os
import platform
import signal
import subprocess
import sys
import threading
import time

import pytest

from sweeps.attempts import living as living_module
from sweeps.attempts.attempt import Attempt
from sweeps.attempts.living import Vigil, alive_runs, is_dead_here
from sweeps.files.whole_files import write_json
from sweeps.leases import lease as lease_module
from sweeps.liveness import watch as watch_module
from sweeps.liveness.process import identity
from sweeps.liveness.watch import telling
from sweeps.store.run_folder import RunFolder

STALE = 1.5
# Writes a part after another, as a run does, until it is superseded; says how it ended.
WRITER = """
import sys, time
from pathlib import Path
from sweeps.files.whole_files import write_text
from sweeps.attempts.attempt import Attempt, Superseded
from sweeps.store.run_folder import RunFolder
folder = RunFolder(Path(sys.argv[1]))
try:
    with Attempt(folder) as attempt:
        for step in range(1, 10**6):
            attempt.require_not_superseded()
            part = folder.part_path("steps", step - 1, step, attempt.label)
            write_text(part, "rows", within=folder.path)
            print(attempt.number, flush=True)
            time.sleep(0.02)
except (Superseded, FileNotFoundError):
    print("superseded", flush=True)
"""
APART = ["unshare", "--user", "--map-root-user", "--pid", "--fork", "--kill-child"]


@pytest.fixture(autouse=True)
def soon_stale(monkeypatch):
    monkeypatch.setenv("DEPTHSWEEP_STALE_SECONDS", str(STALE))


@pytest.fixture
def folder(tmp_path):
    return RunFolder(tmp_path / "run")


@pytest.fixture
def writer(folder):
    """Start writers of the run; all are killed at the end."""
    started = []

    def writer(*before):
        command = [*before, sys.executable, "-c", WRITER, str(folder.path)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=-3, text=True)
        started.append(process)
        if not process.stdout.readline() and before:
            pytest.skip("this machine lets nobody make a pid namespace")
        return process

    yield writer
    for process in started:
        process.kill()
        process.wait()


def await_the_end(process):
    """Return the last line a writer says."""
    return process.stdout.read().splitlines()[-1]


def contents(folder):
    return {path.name: path.read_text() for path in (folder.path / "steps").iterdir()}


@pytest.mark.parametrize("proc", [["--mount-proc"], []])
def test_a_live_attempt_of_another_pid_namespace_is_seen_and_not_taken_over(folder, writer, proc):
    process = writer(*APART, *proc)
    record = folder.newest_attempt()
    assert record["node"] == platform.node()
    assert not is_dead_here(record)
    assert alive_runs([folder]) == {"run"}
    claimed = threading.Event()

    def succeed():
        with Attempt(folder) as mine:
            claimed.set()
            assert mine.number == 2

    successor = threading.Thread(target=succeed)
    successor.start()
    assert not claimed.wait(2 * STALE)
    assert process.poll() is None
    process.kill()  # and with it, all in its namespace
    assert claimed.wait(30)
    successor.join()


def test_the_end_of_a_process_of_this_machine_is_seen_at_once(folder, writer, monkeypatch):
    process = writer()
    monkeypatch.setenv("DEPTHSWEEP_STALE_SECONDS", "300")
    began = time.monotonic()
    assert alive_runs([folder]) == {"run"}
    process.kill()
    process.wait()
    assert alive_runs([folder]) == set()
    assert is_dead_here(folder.newest_attempt())
    with Attempt(folder) as mine:
        assert mine.number == 2
    assert time.monotonic() - began < 60


def test_a_process_that_lives_on_without_its_attempt_does_not_keep_it_alive(folder):
    silent = Attempt(folder).__enter__()
    silent._stop.set()
    assert Vigil(folder).look() == "alive"  # it has beaten just now
    time.sleep(STALE)
    assert Vigil(folder).look() == "unsure"
    assert not is_dead_here(folder.newest_attempt())
    assert alive_runs([folder]) == set()


def test_a_frozen_writer_that_thaws_after_a_takeover_ends_and_replaces_nothing(folder, writer):
    process = writer()
    process.send_signal(signal.SIGSTOP)
    with Attempt(folder) as mine:
        assert mine.number == 2
        before = contents(folder)
        process.send_signal(signal.SIGCONT)
        assert await_the_end(process) == "superseded"
        late = set(contents(folder)) - set(before)
        assert all(".a1-" in name for name in late)
        assert {name: contents(folder)[name] for name in before} == before
        mine.require_ownership()
    assert [a["cause"] for a in folder.attempts()] == ["lost", "cancelled"]


def test_an_old_writer_of_number_1_does_not_own_the_new_number_1(folder, writer):
    process = writer()
    process.send_signal(signal.SIGSTOP)
    time.sleep(STALE)
    assert alive_runs([folder]) == set()
    folder.forget()
    with Attempt(folder) as mine:
        assert mine.number == 1
        process.send_signal(signal.SIGCONT)
        assert await_the_end(process) == "superseded"
        assert process.wait(30) == 0
        assert not (folder.path / "steps").exists() or contents(folder) == {}
        mine.require_ownership()
        assert folder.newest_attempt()["pid"] == os.getpid()
        assert folder.newest_attempt()["cause"] is None
    assert folder.attempt_numbers() == [1]


@pytest.fixture
def elsewhere(folder):
    """Write the record of an attempt of another machine; return what sets its time to a number."""
    write_json(folder.attempt_path(1), {**identity(), "boot": "another", "cause": None})
    return lambda when: os.utime(folder.attempt_path(1), (when, when))


@pytest.mark.parametrize("ahead", [-3600.0, 0.0, 3600.0])
def test_a_silent_attempt_is_gone_whatever_its_time_says(folder, elsewhere, ahead):
    elsewhere(time.time() + ahead)
    began = time.monotonic()
    assert alive_runs([folder]) == set()
    assert time.monotonic() - began > STALE / 2


@pytest.mark.parametrize("ahead", [-3600.0, 3600.0])
def test_a_beating_attempt_lives_whatever_its_time_says(folder, elsewhere, ahead):
    elsewhere(time.time() + ahead)
    over = threading.Event()

    def beat():
        while not over.wait(STALE / 10):
            elsewhere(time.time() + ahead)

    beating = threading.Thread(target=beat)
    beating.start()
    try:
        assert alive_runs([folder]) == {"run"}
        with pytest.raises(TimeoutError, match="still waiting"):
            take_for(folder, 2 * STALE)
    finally:
        over.set()
        beating.join()
    assert take_for(folder, 60) == 2


@pytest.mark.parametrize("ahead", [-3600.0, 3600.0])
def test_a_watcher_on_this_machine_whose_clock_was_set_judges_right(
    folder, writer, monkeypatch, ahead
):
    process, now = writer(), time.time
    monkeypatch.setattr(watch_module.time, "time", lambda: now() + ahead)
    assert alive_runs([folder]) == {"run"}
    process.kill()
    process.wait()
    assert alive_runs([folder]) == set()


def take_for(folder, seconds):
    """Return the number that a claim takes; raise TimeoutError if it waits as long as that."""
    until = time.monotonic() + seconds

    def sleep(length):
        if time.monotonic() > until:
            raise TimeoutError("still waiting")
        time.sleep(length)

    class Clock:
        monotonic, time, time_ns = time.monotonic, time.time, time.time_ns

    Clock.sleep = staticmethod(sleep)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lease_module, "time", Clock)
        with Attempt(folder) as mine:
            return mine.number


def test_many_are_watched_in_the_time_of_one_and_whoever_asked_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(living_module, "NOTICE_SECONDS", 0.2)
    folders = [RunFolder(tmp_path / f"run{k}") for k in range(400)]
    for folder in folders:
        write_json(folder.attempt_path(1), {"cause": None, "node": "elsewhere", "pid": 1})
    said, began = [], time.monotonic()
    with telling(lambda *words: said.append(words)):
        assert alive_runs(folders) == set()
    assert time.monotonic() - began < 400 * STALE / 10
    assert said == [(400, STALE)]
