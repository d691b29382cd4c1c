"""``depthsweep gc`` as a user calls it, beside writers that live, died and are frozen."""

import errno
import json
import os
import signal
import subprocess
import sys
import time

import pytest
from planted_store import run_spec, save_sweep, write_run
from two_users import ANN, BEN, GROUP, as_user, needs_root, shared_folder

from sweeps.files.trees import files_below
from sweeps.files.whole_files import write_text
from sweeps.store.store import Store
from sweeps.upkeep.rubbish import Rubbish
from tests.orchestrator.command_line import typed

UNLISTED = "steps/part-000000-000002.a9-0badcafe.parquet"
# Claims a run that has ended, as one does that waited for its predecessor, and stays at it.
CLAIM = """
import sys, time
from sweeps.attempts.attempt import Attempt
from sweeps.store.store import Store
with Attempt(Store.at(sys.argv[1]).run(sys.argv[2])):
    print("began", flush=True)
    time.sleep(600)
"""


def gc(store, *arguments):
    return subprocess.run(
        [sys.executable, "-m", "orchestrator", "gc", "--store", store.location, *arguments],
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.fixture(params=["folder", pytest.param("s3", marks=pytest.mark.slow)])
def store(request, tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setenv("DEPTHSWEEP_CACHE", str(tmp_path / "node"))
    monkeypatch.setenv("DEPTHSWEEP_STALE_SECONDS", "3")
    location = str(tmp_path / "store")
    if request.param == "s3":
        location = request.getfixturevalue("s3_url")
    return Store.at(location)


def planted(store, seed):
    folder = write_run(store, run_spec("opt", "mlm", seed=seed), [0.3, 0.1])
    for part in UNLISTED.split("/")[:1]:
        write_text(folder.path / part / UNLISTED.split("/")[1], "x" * 50)
    return folder


def has_unlisted(folder):
    return UNLISTED in files_below(folder.path)


@pytest.fixture
def claimed(store):
    """A run of a process that is at it, and the process."""
    folder = planted(store, 1)
    process = subprocess.Popen(
        [sys.executable, "-c", CLAIM, store.location, folder.run_id], stdout=subprocess.PIPE
    )
    assert process.stdout.readline() == b"began\n"
    yield folder, process
    process.kill()
    process.wait()


def test_a_dry_run_says_what_would_go_and_removes_nothing(store):
    folder = planted(store, 2)
    save_sweep(store, "study", [run_spec("opt", "mlm", seed=2)])
    said = gc(store, "--dry-run")
    assert said.returncode == 0, said.stderr
    assert said.stdout == "parts that no record lists: 1, 50 B\n50 B would be freed\n"
    assert has_unlisted(folder)
    page = json.loads(gc(store, "--json").stdout)
    assert page["bytes"] == 50
    assert [item["where"] for item in page["removed"]] == [f"{folder.run_id}/{UNLISTED}"]
    assert not has_unlisted(folder)
    assert gc(store).stdout == "nothing to remove\n"


def test_a_run_keeps_everything_while_its_process_lives_and_not_once_it_was_killed(store, claimed):
    folder, process = claimed
    assert gc(store).stdout == "nothing to remove\n"
    assert has_unlisted(folder)
    process.kill()
    process.wait()
    assert "50 B freed" in gc(store).stdout
    assert not has_unlisted(folder)
    assert folder.done() is not None


def test_a_frozen_process_that_is_there_keeps_its_run_for_as_long_as_a_lease(store, claimed):
    folder, process = claimed
    os.kill(process.pid, signal.SIGSTOP)
    began = time.monotonic()
    assert gc(store).returncode == 0
    if has_unlisted(folder):
        return  # it had beaten just now, and counts as alive for so long
    assert time.monotonic() - began > 2


def test_strays_go_when_asked_for_and_only_then(store):
    stray, named = planted(store, 3), planted(store, 4)
    save_sweep(store, "study", [run_spec("opt", "mlm", seed=4)])
    assert gc(store).returncode == 0
    assert len(store.runs()) == 2
    said = gc(store, "--strays")
    assert said.stdout.startswith("runs of no sweep: 1, ")
    assert [folder.run_id for folder in store.runs()] == [named.run_id]
    assert not files_below(stray.path)


@needs_root
def test_what_this_user_may_not_remove_is_said_in_a_line(tmp_path):
    store = Store.at(str(shared_folder(tmp_path / "store")))
    folder = planted(store, 5)
    for path in (folder.path, *folder.path.rglob("*")):
        os.chown(path, ANN, GROUP)
        path.chmod(0o755)
    said = as_user(BEN, ["-m", "orchestrator", "gc", "--store", store.location], timeout=120)
    assert said.returncode == 1, said.stderr
    assert "1 could not be removed" in " ".join(said.stdout.split())
    assert "Permission denied" in " ".join(said.stdout.split())
    assert has_unlisted(folder)


def test_a_mount_for_reading_is_told_from_a_right_that_is_missing(store, monkeypatch):
    planted(store, 6)

    def refuse(_):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(Rubbish, "remove", refuse)
    done = typed("gc", "--store", store.location)
    said = " ".join(done.stdout.split())
    assert done.returncode == 1, done.stderr
    assert "Read-only file system); it is mounted for reading: mount it for writing" in said
    page = json.loads(typed("gc", "--json", "--store", store.location).stdout)
    assert set(page["refused"].values()) == {"Read-only file system"}


def test_a_store_that_is_not_there_is_a_mistake(tmp_path):
    said = gc(Store.at(str(tmp_path / "none")))
    assert (said.returncode, said.stdout) == (2, "")
