"""A writer that is frozen at its worst moment and thaws after another one has finished the run."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from small_run import make_run

from sweeps.files.whole_files import local_file
from sweeps.spec import Execution
from sweeps.store.store import Store
from sweeps.upkeep.audit import audit
from workers.train import train

RUN = make_run(steps=7, execution=Execution(part_steps=3, checkpoint_share=1))
# Freezes itself, once, just before what is named; everything else is what a worker does.
FROZEN = """
import os, signal, sys
from sweeps.attempts import writer
from sweeps.store.run_folder import RunFolder
from workers import __main__ as worker, train
from workers.checkpoints import saving, writing
from workers.checkpoints.saving import Checkpoints

PLACES = {
    "loading": (train, "assemble"),
    "record": (train, "write_run_record"),
    "part": (writer, "_write_table"),
    "checkpoint": (Checkpoints, "save"),
    "layer": (writing, "write_layer"),
    "manifest": (saving, "write_json"),
    "closing": (RunFolder, "close"),
    "removal": (RunFolder, "remove_unlisted"),
}
holder, name = PLACES[sys.argv.pop(1)]
real = getattr(holder, name)

def freeze(*args, **kwargs):
    setattr(holder, name, real)
    os.kill(os.getpid(), signal.SIGSTOP)
    return real(*args, **kwargs)

setattr(holder, name, freeze)
worker.end_process(worker.main())
"""


@pytest.fixture
def at(request, tmp_path, monkeypatch):
    """Return the store of a kind."""
    monkeypatch.setenv("DEPTHSWEEP_STALE_SECONDS", "2")
    monkeypatch.setenv("DEPTHSWEEP_CACHE", str(tmp_path / "node"))
    (tmp_path / "run.json").write_text(RUN.model_dump_json())

    def at(kind):
        found = request.getfixturevalue("s3_url") if kind == "s3" else str(tmp_path / "store")
        return Store.at(found)

    return at


def start(store, tmp_path, *code):
    command = [sys.executable, *code, str(tmp_path / "run.json"), "--store", store.location]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def await_stopped(process):
    until = time.monotonic() + 120
    while time.monotonic() < until:
        state = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0]
        if state == "T":
            return
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.05)
    raise TimeoutError("it never stopped")


def result(folder):
    """Return every byte that the closing record accounts for, and the record."""
    found = {}
    for name in [*folder.done()["parts"], "DONE.json"]:
        with local_file(folder.path / name) as path:
            found[name] = path.read_bytes()
    return found


PLACES = ("loading", "record", "part", "checkpoint", "layer", "manifest", "closing", "removal")
WITNESSES = {("s3", "closing")}
CASES = [
    pytest.param(kind, place, marks=() if (kind, place) in WITNESSES else pytest.mark.slow)
    for kind in ("folder", "s3")
    for place in PLACES
]


@pytest.mark.parametrize(("kind", "place"), CASES)
def test_the_finished_run_stays_whole(at, tmp_path, kind, place):
    store = at(kind)
    folder = store.run(RUN.run_id)
    frozen = start(store, tmp_path, "-c", FROZEN, place)
    await_stopped(frozen)
    # In this process, which is another one and as good as any.
    assert list(train(RUN, store, torch.device("cpu")))[-1].status == "finished"
    before = result(folder)
    os.kill(frozen.pid, signal.SIGCONT)
    said = frozen.communicate(timeout=120)[1].splitlines()
    assert result(folder) == before
    if place == "removal":  # it had closed the run itself before it froze
        assert (frozen.returncode, said) == (0, [])
    else:
        assert frozen.returncode == 1
        assert said[-1].startswith(f"workers: run {RUN.run_id}: attempt 1 was superseded")
        assert "Traceback" not in "\n".join(said)
    assert folder.attempts()[0]["cause"] == "lost"
    assert [finding.what for finding in audit(store)] == []


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["folder", "s3"])
def test_two_that_work_at_once_leave_one_result(at, tmp_path, kind):
    """Whoever closes the run first has the result, be it the one that was thought dead."""
    store = at(kind)
    frozen = start(store, tmp_path, "-c", FROZEN, "closing")
    await_stopped(frozen)
    other = start(store, tmp_path, "-c", FROZEN, "closing")
    await_stopped(other)
    folder = store.run(RUN.run_id)
    assert folder.done() is None
    os.kill(other.pid, signal.SIGCONT)
    os.kill(frozen.pid, signal.SIGCONT)
    ends = [process.communicate(timeout=120)[1] for process in (frozen, other)]
    assert sorted(process.returncode for process in (frozen, other)) == [0, 1], ends
    names = {name.split(".")[1] for name in folder.done()["parts"]}
    assert len(names) == 1
    assert json.loads(result(folder)["DONE.json"])["status"] == "finished"
    assert [finding.what for finding in audit(store)] == []
