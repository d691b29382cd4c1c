"""Parts of a table are each taken once, by whichever threads there are."""

import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from workers.passes import row_threads
from workers.passes.row_threads import over_rows

TAKEN, BOUNDS, PARTS, MARKS = range(4)
LOADED = "7f00-7f10 r-xp 00000000 00:1f 12 {}"


class Marked:
    """A work in Python, one call at a time: it counts how often each row was had."""

    address = None

    def __init__(self, rows):
        self.had, self.threads, self.lock = np.zeros(rows, dtype=int), set(), threading.Lock()

    def ctypes(self, address):
        job = np.ctypeslib.as_array((row_threads.ctypes.c_int64 * 4).from_address(address))
        bounds = (row_threads.ctypes.c_int64 * int(job[PARTS] + 1)).from_address(int(job[BOUNDS]))
        while True:
            with self.lock:
                part, job[TAKEN] = int(job[TAKEN]), job[TAKEN] + 1
            if part >= job[PARTS]:
                return
            self.threads.add(threading.get_ident())
            self.had[bounds[part] : bounds[part + 1]] += 1


@pytest.fixture(autouse=True)
def _pythons_threads(monkeypatch):
    monkeypatch.setattr(row_threads, "_gnu_openmp", lambda: None)


@pytest.mark.parametrize("counts", [[], [3], [1] * 50, [900, 1, 1, 1], [0, 0, 5]])
@pytest.mark.parametrize("count", [1, 2, 5])
def test_each_row_is_in_one_part(threads, monkeypatch, counts, count):
    monkeypatch.setattr(row_threads, "WORTH", 1)
    threads(count)
    work = Marked(len(counts))
    over_rows(np.array(counts, dtype=np.int64), work, (7,))
    assert work.had.tolist() == [1] * len(counts)
    assert len(work.threads) <= count


def test_what_is_too_little_for_threads_is_done_here(threads):
    threads(4)
    work = Marked(3)
    over_rows(np.array([9, 9, 9]), work, ())
    assert work.threads == {threading.get_ident()}


def test_a_failure_in_another_thread_is_raised_here(threads, monkeypatch):
    monkeypatch.setattr(row_threads, "WORTH", 1)
    threads(2)
    here = threading.get_ident()

    class Failing(Marked):
        def ctypes(self, address):
            super().ctypes(address)
            if threading.get_ident() != here:
                raise RuntimeError("no such row")

    with pytest.raises(RuntimeError, match="no such row"):
        over_rows(np.array([5, 5]), Failing(2), ())


def test_an_interrupt_is_not_passed_on_before_the_other_threads_have_let_go(threads, monkeypatch):
    """They have addresses of arrays that are gone with the call."""
    monkeypatch.setattr(row_threads, "WORTH", 1)
    threads(2)
    here, interrupted, let_go = threading.get_ident(), threading.Event(), []

    class Interrupted:
        address = None

        def ctypes(self, address):
            if threading.get_ident() == here:
                interrupted.set()
                raise KeyboardInterrupt
            interrupted.wait(60)
            time.sleep(0.3)
            let_go.append(address)

    with pytest.raises(KeyboardInterrupt):
        over_rows(np.array([5, 5]), Interrupted(), ())
    assert len(let_go) == 1


def team_where(loaded, monkeypatch, folder):
    monkeypatch.undo()
    maps = folder / "maps"
    lines = [LOADED.format(path) for path in ["/lib/libc.so.6", *loaded, *loaded]]
    maps.write_text("\n".join([*lines, "7f00-7f10 rw-p 00000000 00:00 0"]))
    monkeypatch.setattr(row_threads, "MAPS", maps)
    return row_threads._gnu_openmp.__wrapped__()


@pytest.mark.parametrize(
    "loaded", [[], ["/a/libgomp.so.1", "/b/libgomp-24e2.so.1"]], ids=["none", "two"]
)
def test_a_team_is_shared_only_where_it_is_clear_whose(monkeypatch, tmp_path, loaded):
    assert team_where(loaded, monkeypatch, tmp_path) is None


@pytest.mark.skipif(sys.platform != "linux", reason="torch has other threads elsewhere")
def test_torchs_own_is_known_beside_another(monkeypatch, tmp_path):
    (own,) = Path(torch.__file__).parent.glob("lib/libgomp*")
    found = team_where([str(own), "/b/libgomp-24e2.so.1"], monkeypatch, tmp_path)
    assert found._name == str(own)


# What ranks are forked with, first; then what is forked of a process that has it.
TOLD = """
    import importlib, os, sys
    from workers.ranks.rank_server import IMPORTED
    for name in IMPORTED:
        importlib.import_module(name)
    print("workers.passes.row_threads" in sys.modules)
    from workers.passes import row_threads
    print(row_threads._forked, row_threads._gnu_openmp() is not None)
    reading, writing = os.pipe()
    if os.fork() == 0:
        os.write(writing, str(row_threads._forked).encode())
        os._exit(0)
    print(os.read(reading, 5).decode())
"""


@pytest.fixture(scope="module")
def told():
    command = [sys.executable, "-c", textwrap.dedent(TOLD)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    return done.stdout.split()


@pytest.mark.skipif(sys.platform != "linux", reason="torch has other threads elsewhere")
def test_a_process_takes_torchs_team_and_a_fork_of_it_does_not(told):
    assert told[1:] == ["False", "True", "True"]


def test_ranks_are_forked_before_it_is_imported_and_so_take_torchs_team(told):
    assert told[0] == "False"
