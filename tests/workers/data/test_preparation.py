"""Work before the first step, told while it takes long."""

from __future__ import annotations

import pytest
import torch
from small_run import DOCS, make_run

from sweeps.attempts.run_log import event_text, read_events
from sweeps.spec import Objective
from sweeps.store.store import Store
from workers import progress
from workers.data import packing
from workers.data.packing import pad
from workers.progress import PULSE, Preparation, Work
from workers.ranks import rank_process
from workers.ranks.notice import Notice
from workers.ranks.rank_process import Job
from workers.train import train


@pytest.fixture
def clock(monkeypatch):
    """A clock that is set; it stands at 100."""

    class Clock:
        now = 100.0

    monkeypatch.setattr(progress.time, "monotonic", lambda: Clock.now)
    return Clock


@pytest.fixture
def at_once(monkeypatch):
    """Have work told of from its first piece on, however short it is."""
    monkeypatch.setattr(progress, "TOLD_AFTER", 0.0)
    monkeypatch.setattr(progress, "TOLD_EVERY", 0.0)


def test_work_is_told_after_two_seconds_and_then_less_and_less_often(clock):
    heard = []
    preparation = Preparation()
    with (
        preparation.heard_by(lambda work: heard.append((clock.now, work))),
        preparation.of("texts"),
        preparation.counting("packing", "tokens") as more,
    ):
        for second in range(1, 300):
            clock.now = 100.0 + second
            more(10)
    times = [now - 100 for now, _ in heard]
    assert times == [2, 6, 14, 30, 62, 122, 182, 242, 299]
    assert heard[1][1] == Work("packing texts", "tokens", 60, 6.0)
    assert str(heard[1][1]) == "packing texts: 60 tokens"
    assert [work.ended for _, work in heard] == [False] * 8 + [True]
    assert heard[-1][1].done == 2990


def test_what_is_done_in_less_is_not_told_of_and_is_a_sign_of_life(clock):
    heard = []
    preparation = Preparation()
    with preparation.heard_by(heard.append):
        found = []
        for item in preparation.counted("abc", "reading", "rows"):
            clock.now += 0.6
            found.append(item)
        assert PULSE.quiet() == pytest.approx(0.0)
    assert (found, heard) == (["a", "b", "c"], [])


def test_nobody_is_told_after_having_left(clock):
    heard = []
    preparation = Preparation()
    with preparation.heard_by(heard.append):
        pass
    with preparation.counting("packing", "tokens") as more:
        clock.now += 50
        more(1)
    assert heard == []


@pytest.mark.usefixtures("at_once")
def test_a_runs_log_says_how_much_is_packed(tmp_path, monkeypatch):
    monkeypatch.setattr(packing, "TOKENISE_CHARACTERS", 100_000)
    store = Store.at(str(tmp_path / "store"))
    store.identify()
    run = make_run(steps=3, objective=Objective(kind="clm", data=DOCS))
    assert [one.status for one in train(run, store, torch.device("cpu"))][-1] == "finished"
    events = list(read_events(store.run(run.run_id).log_path(1)))
    said = [event for event in events if event["event"].startswith("packing python-docs")]
    counts = [event["tokens"] for event in said]
    assert len(counts) > 2
    assert counts == sorted(counts)
    assert said[-1]["event"] == "packing python-docs is done"
    assert counts[-1] == counts[-2] > 10_000
    assert any(e["event"] == "packing the probe's python-docs is done" for e in events)
    assert f"packing python-docs is done tokens={counts[-1]} seconds=" in event_text(said[-1])
    # Not what is packed already.
    again = run.model_copy(update={"seed": 1})
    list(train(again, store, torch.device("cpu")))
    events = read_events(store.run(again.run_id).log_path(1))
    assert not [event for event in events if "packing" in event["event"]]


@pytest.mark.usefixtures("at_once")
def test_rows_that_are_padded_are_counted(tokenizers):
    heard = []
    with progress.PREPARATION.heard_by(heard.append):
        pad(tokenizers["clm"], ["a text"] * 2500, 8)
    assert [work.done for work in heard] == [1000, 2000, 2500, 2500]
    assert {work.what for work in heard} == {"tokenising"}


@pytest.mark.usefixtures("at_once")
def test_whoever_started_a_rank_is_told_until_the_work_is_done():
    class Talk:
        def __init__(self):
            self.notice, self.said = Notice(), []
            self.say = self.said.append

    talk = Talk()
    rank_process._carry_out(Job("", "", 1, body="rank_bodies:prepare"), talk)
    *_, last = talk.said
    assert last.status == "finished"
    assert [one.doing for one in talk.said] == [
        None,
        "packing words: 5 tokens",
        "packing words: 12 tokens",
        None,
        None,
    ]
    assert {one.steps for one in talk.said} == {3}
