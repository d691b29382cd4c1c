"""Ranks of which one is silently gone: real processes, stopped as a machine that is off."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import ExitStack
from functools import partial
from types import SimpleNamespace

import pytest
from small_run import make_run

from sweeps.spec import Execution
from sweeps.store.store import Store
from workers.ranks.peers import Peers

pytest.importorskip("deepspeed")

RUN = make_run(
    steps=300,
    execution=Execution(
        part_steps=20, checkpoint_share=1, processes=2, engine="deepspeed", zero_stage=2
    ),
)


class Gang:
    """The ranks of one run, without a launcher that would end the others with one."""

    def __init__(self, folder):
        self._spec = folder / "run.json"
        self._spec.write_text(RUN.model_dump_json())
        self.store = Store(folder / "store")
        self.ranks = []

    def start(self):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.ranks = [
            subprocess.Popen(
                [sys.executable, "-m", "workers", self._spec, "--store", self.store.location],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
                env={
                    **os.environ,
                    "RANK": str(rank),
                    "WORLD_SIZE": "2",
                    "LOCAL_RANK": str(rank),
                    "MASTER_ADDR": "127.0.0.1",
                    "MASTER_PORT": str(port),
                    "OMP_NUM_THREADS": "1",
                    "DS_ACCELERATOR": "cpu",
                },
            )
            for rank in range(2)
        ]

    def await_checkpoint(self):
        until = time.monotonic() + 300
        while not self.store.run(RUN.run_id).checkpoint_steps():
            assert time.monotonic() < until
            assert all(rank.poll() is None for rank in self.ranks), self.ranks[0].stderr.read()
            time.sleep(0.1)

    def kill(self):
        for rank in self.ranks:
            rank.kill()
            rank.wait()
            rank.stderr.close()


@pytest.fixture
def gang(tmp_path, monkeypatch):
    monkeypatch.setenv("DEPTHSWEEP_STALE_SECONDS", "2")
    made = Gang(tmp_path)
    yield made
    made.kill()


@pytest.mark.slow
@pytest.mark.parametrize("gone", [0, 1])
def test_a_rank_whose_peer_has_stopped_ends_by_itself_and_the_run_goes_on(gang, gone):
    gang.start()
    gang.await_checkpoint()
    gang.ranks[gone].send_signal(signal.SIGSTOP)
    # In a collective it would wait for 15 minutes.
    said = gang.ranks[1 - gone].communicate(timeout=120)[1]
    assert gang.ranks[1 - gone].returncode == 1, said
    assert f"workers: rank {gone} of 2 has been silent for 6 s" in said
    gang.kill()
    run = gang.store.run(RUN.run_id)
    (first,) = run.attempts()
    # The first rank keeps the record: where that one is gone, its successor closes it.
    assert first["cause"] == (None if gone == 0 else "lost")
    gang.start()
    assert [rank.wait(240) for rank in gang.ranks] == [0, 0]
    assert [one["cause"] for one in run.attempts()] == ["lost", "finished"]
    assert run.attempts()[1]["resumed_from"] > 0


# ---------------------------------------------------------------------------- the beats alone
class Meeting:
    """Where ranks beat: as a store of torch, of which a rank can be cut off."""

    def __init__(self):
        self._counts = Counter()
        self._lock = threading.Lock()
        self.open = [threading.Event() for _ in range(SIZE)]

    def of(self, rank):
        return SimpleNamespace(add=partial(self._add, rank))

    def _add(self, rank, key, amount):
        self.open[rank].wait()
        with self._lock:
            self._counts[key] += amount
            return self._counts[key]


SIZE = 3


@pytest.fixture
def meeting(monkeypatch):
    """Return where three ranks have met, and what each ended with, if it did."""
    monkeypatch.setenv("DEPTHSWEEP_STALE_SECONDS", "0.3")
    there, ended, told = Meeting(), {}, {}
    ranks = [Peers(partial(ended.__setitem__, rank)) for rank in range(SIZE)]
    with ExitStack() as until_done:
        for rank, peers in enumerate(ranks):
            there.open[rank].set()
            until_done.enter_context(peers.told(partial(told.__setitem__, rank)))
            peers.watch(rank, SIZE, there.of(rank))
        yield SimpleNamespace(there=there, ranks=ranks, ended=ended, told=told)
    for rank, peers in enumerate(ranks):
        there.open[rank].set()
        peers.leave()


def await_ended(meeting, number):
    until = time.monotonic() + 60
    while len(meeting.ended) < number:
        assert time.monotonic() < until, meeting.ended
        time.sleep(0.02)


@pytest.mark.parametrize("gone", range(SIZE))
def test_all_others_end_when_one_is_silent_and_so_does_one_that_is_cut_off(meeting, gone):
    meeting.there.open[gone].clear()
    await_ended(meeting, SIZE)
    assert meeting.ended == dict.fromkeys(range(SIZE), 1)
    # One that is cut off misses the first one; where that one is, it misses the next.
    missed = dict.fromkeys(range(SIZE), gone) | {gone: 0 if gone else 1}
    said = {rank: int(line.split()[1]) for rank, line in meeting.told.items()}
    assert said == missed


@pytest.mark.parametrize("left", [0, 2])
def test_nobody_ends_who_beats_whatever_he_computes_or_whose_peer_has_done_its_work(meeting, left):
    meeting.ranks[left].leave()
    time.sleep(2)  # twice what a silent one has
    assert meeting.ended == {}


def test_a_last_word_that_takes_too_long_is_not_waited_for(meeting, monkeypatch):
    monkeypatch.setattr("workers.ranks.peers.LAST_WORDS_SECONDS", 0.1)
    stuck = threading.Event()
    with meeting.ranks[0].told(lambda _: stuck.wait()):
        meeting.there.open[1].clear()
        await_ended(meeting, SIZE)
    stuck.set()
