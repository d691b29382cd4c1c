"""Checkpoints as a run makes them: while it trains, as seldom as it must, also when it is told to
stop, and none that was on its way when the process was killed."""

import os
import signal
import threading
import time
from pathlib import Path

import pytest
import torch
from small_run import make_run

from sweeps.attempts.run_log import read_events
from sweeps.spec import Execution
from sweeps.store.store import Store
from tests.servers.forked_ranks import run_forked
from workers.checkpoints import cadence, saving, writing
from workers.ranks.notice import LEAST_SECONDS, Notice
from workers.train import train

CPU = torch.device("cpu")


@pytest.fixture
def store(share_cache, tmp_path):
    return Store(share_cache(tmp_path))


@pytest.fixture
def slow(monkeypatch):
    """Every file waits for the event, and says that it does."""
    gate, began, write = threading.Event(), threading.Event(), writing.write_layer

    def write_layer(*arguments):
        began.set()
        while not gate.wait(0.01):
            arguments[-1]()
        return write(*arguments)

    monkeypatch.setattr(writing, "write_layer", write_layer)
    gate.began = began
    yield gate
    gate.set()


def a_run(share, **fields):
    execution = {"part_steps": 2, "checkpoint_share": share}
    return make_run(**{"steps": 9, "execution": Execution(**execution), **fields})


def test_training_goes_on_while_a_checkpoint_is_written(store, slow):
    run = a_run(0.05)
    progress = train(run, store, CPU)
    while next(progress).step < 5:
        pass
    folder = store.run(run.run_id)
    assert slow.began.is_set()
    assert folder.checkpoint_steps() == []
    slow.set()
    progress.close()  # ends what is on its way
    assert folder.checkpoint_steps() == [2]
    resumed = list(train(run, store, CPU))
    assert folder.attempts()[-1]["resumed_from"] == 2
    assert resumed[-1].status == "finished"
    assert folder.unlisted("none") == []


def test_a_run_does_not_wait_for_a_checkpoint_that_its_end_makes_needless(store, slow):
    run = a_run(0.05)
    assert list(train(run, store, CPU))[-1].status == "finished"
    folder = store.run(run.run_id)
    assert slow.began.is_set()
    assert folder.unlisted("none") == []
    assert not (folder.path / "checkpoints").exists() or not os.listdir(folder.path / "checkpoints")


def test_what_goes_wrong_in_the_thread_ends_the_run_at_its_next_step(store, monkeypatch):
    def broken(*_, **__):
        raise ZeroDivisionError("no such disk")

    monkeypatch.setattr(writing, "write_layer", broken)
    run = a_run(1)
    with pytest.raises(ZeroDivisionError):
        list(train(run, store, CPU))
    (attempt,) = store.run(run.run_id).attempts()
    assert attempt["cause"] == "failed"
    assert "ZeroDivisionError: no such disk" in attempt["error"]
    monkeypatch.undo()
    assert list(train(run, store, CPU))[-1].status == "finished"


class Clock:
    """Stands for ``time``: it goes on by what a test says, and a little with every reading."""

    now = 0.0
    sleep = staticmethod(time.sleep)

    def monotonic(self):
        self.now += 1e-6
        return self.now


@pytest.mark.parametrize(("share", "fewest", "most"), [(0, 0, 0), (0.05, 1, 5), (1, 19, 19)])
def test_checkpoints_are_passed_over_where_they_would_take_more_than_their_share(
    store, monkeypatch, share, fewest, most
):
    """A step takes 0.5 s and a checkpoint 0.2 s, so that a twentieth is one in four seconds:
    after steps 2, 10, 18, 26 and 34 at the most."""
    clock, made, took = Clock(), [], cadence.Cadence.took

    def taken(self, began, _):
        made.append(began)
        took(self, began, began + 0.2)

    monkeypatch.setattr(saving, "time", clock)
    monkeypatch.setattr(cadence.Cadence, "took", taken)
    for _ in train(a_run(share, steps=39), store, CPU):
        clock.now += 0.5
    assert fewest <= len(made) <= most


@pytest.mark.parametrize("share", [0, 0.05])
def test_a_notice_always_has_its_checkpoint(store, share):
    run, notice = a_run(share), Notice()
    for progress in train(run, store, CPU, notice=notice):
        if progress.step == 4:
            notice.give("preempted")
    folder = store.run(run.run_id)
    assert (progress.status, folder.checkpoint_steps()[-1]) == ("preempted", 5)
    (said, *_) = [e for e in read_events(folder.log_path(1)) if e["event"] == "checkpoint"]
    assert said["bytes"] > 0
    assert "a notice of 30 s suffices" in said["notice"]
    assert notice.seconds == LEAST_SECONDS
    assert list(train(run, store, CPU))[-1].resumed_from == 5


def test_the_process_of_a_large_model_asks_for_more_time_than_the_least(store, monkeypatch):
    monkeypatch.setattr(cadence, "BYTES_A_NUMBER", 10**6 // 3)
    run, notice = a_run(0.05), Notice()
    progress = train(run, store, CPU, notice=notice)
    while next(progress).step < 1:
        pass
    assert notice.seconds > 10 * LEAST_SECONDS  # nothing is measured yet
    while next(progress).step < 7:
        pass
    progress.close()
    assert notice.seconds == LEAST_SECONDS


def test_some_layers_are_no_checkpoint(store, monkeypatch):
    from workers.engines.plain import PlainEngine

    layer, failing = PlainEngine.layer, []

    def sometimes(self, i, *arguments, **options):
        if failing and i == 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return layer(self, i, *arguments, **options)

    monkeypatch.setattr(PlainEngine, "layer", sometimes)
    run = a_run(1)
    progress = train(run, store, CPU)
    while next(progress).step < 3:
        pass
    failing.append(True)
    with pytest.raises(torch.OutOfMemoryError):
        list(progress)
    folder = store.run(run.run_id)
    assert folder.checkpoint_steps() == [2]
    failing.clear()
    assert list(train(run, store, CPU))[-1].resumed_from == 2


KILLED = """
import os, signal, sys
from workers import __main__ as worker
from workers.checkpoints import saving, writing
real = {real}
def killed(*args, **kwargs):
    if "step-000006" in str(args[0]):
        os.kill(os.getpid(), signal.SIGKILL)
    return real(*args, **kwargs)
{real} = killed
worker.end_process(worker.main())
"""


@pytest.mark.parametrize(
    "real", ["writing.write_layer", pytest.param("saving.write_json", marks=pytest.mark.slow)]
)
def test_one_that_was_on_its_way_when_the_process_was_killed_does_not_count(
    store, tmp_path, monkeypatch, real
):
    monkeypatch.setenv("DEPTHSWEEP_STALE_SECONDS", "2")
    run = a_run(1)
    (tmp_path / "run.json").write_text(run.model_dump_json())
    (tmp_path / "killed.py").write_text(KILLED.format(real=real))
    said = [str(tmp_path / "run.json"), "--store", str(store.root)]
    log = str(tmp_path / "log")
    ended = run_forked(str(tmp_path / "killed.py"), said, [dict(os.environ)], log, 300)
    assert ended == [-signal.SIGKILL], Path(log).read_text()
    assert store.run(run.run_id).checkpoint_steps() == [2, 4]
    assert list(train(run, store, CPU))[-1].status == "finished"
    assert [a["resumed_from"] for a in store.run(run.run_id).attempts()] == [0, 4]
