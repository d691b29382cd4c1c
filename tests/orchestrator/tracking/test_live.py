"""Trackers beside a sweep: none fails it or holds it up, and what goes wrong is said once."""

import threading
import time
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import pytest
from planted_store import run_spec, save_sweep, write_run

from orchestrator.ledger.recovery import Choice, decide, ledger
from orchestrator.ledger.sweep_account import Listener, Listeners, Plan
from orchestrator.tracking import live
from orchestrator.tracking.live import tracking
from sweeps.files.whole_files import write_json
from sweeps.store.store import Store

PROFILE = [0.2, 0.4, 0.1]


class Notebook:
    """A tracker in memory, which can be made to misbehave."""

    kind = "notebook"

    def __init__(self, trouble=lambda: None):
        self.trouble, self.steps, self.status, self.opened = trouble, {}, {}, []

    def ended(self):
        self.trouble()
        return dict(self.status)

    def open(self, card):
        self.trouble()
        self.opened.append(card.run_id)
        steps = self.steps.setdefault(card.run_id, [])
        self.status.pop(card.key, None)
        return SimpleNamespace(
            logged_to=max(steps, default=0),
            log=lambda rows: (self.trouble(), steps.extend(row.step for row in rows)),
            end=lambda outcome: self.status.update({card.key: outcome.status}),
            leave=lambda: None,
        )

    def close(self):
        pass

    def statuses(self):
        return {key.split("-")[0]: status for key, status in self.status.items()}


@pytest.fixture
def sweep(tmp_path, monkeypatch):
    """A sweep of two runs, of which the first has a result."""
    monkeypatch.setattr(live, "LOOK_SECONDS", 0.05)
    monkeypatch.setattr(live, "FLUSH_SECONDS", 3.0)
    store = Store.at(str(tmp_path))
    spec = partial(run_spec, "bert", "mlm", steps=6, probe_every=3, part_steps=3)
    runs = [spec(seed=seed) for seed in (7, 8)]
    sweep = save_sweep(store, "pair", runs)
    write_run(store, sweep.runs[0], PROFILE)
    plan = Plan(sweep, store, decide(sweep.runs, ledger(store)))
    return SimpleNamespace(plan=plan, store=store, done=sweep.runs[0], run=sweep.runs[1], said=[])


def carry_out(sweep, tracker, status="finished"):
    """Run the second run under a listener."""
    with tracking([tracker], sweep.said.append) as listener:
        listener.planned(sweep.plan)
        listener.event(sweep.run.run_id, "started", {})
        if status:
            write_run(sweep.store, sweep.run, PROFILE, status=status)
            listener.event(sweep.run.run_id, "ended", {"status": status})


def test_runs_are_shown_once_those_with_a_result_before_included(sweep):
    tracker = Notebook()
    carry_out(sweep, tracker)
    finished = {sweep.done.run_id: "finished", sweep.run.run_id: "finished"}
    assert tracker.statuses() == finished
    assert all(steps == list(range(1, 7)) for steps in tracker.steps.values())
    assert sweep.said == []


def test_a_run_with_a_result_that_is_shown_already_is_not_opened(sweep):
    tracker = Notebook()
    carry_out(sweep, tracker)
    tracker.opened.clear()
    carry_out(sweep, tracker)
    assert tracker.opened == []


def test_steps_come_while_a_run_goes_on_up_to_its_newest_checkpoint(sweep):
    tracker = Notebook()
    with tracking([tracker], sweep.said.append) as listener:
        listener.planned(sweep.plan)
        folder = write_run(sweep.store, sweep.run, PROFILE, status=None, stop=6)
        write_json(folder.checkpoint_path(3) / "manifest.json", {"files": {}, "parts": {}})
        listener.event(sweep.run.run_id, "progress", {"step": 6})
        until = time.monotonic() + 20
        while not tracker.steps.get(sweep.run.run_id) and time.monotonic() < until:
            time.sleep(0.01)
        assert tracker.steps[sweep.run.run_id] == [1, 2, 3]
        assert sweep.run.run_id not in tracker.statuses()


def test_a_run_that_is_cut_short_is_said_to_be(sweep):
    tracker = Notebook()
    carry_out(sweep, tracker, status=None)
    assert tracker.statuses()[sweep.run.run_id] == "cancelled"


def test_a_run_without_a_result_that_is_not_asked_for_is_left_alone(sweep):
    folder = write_run(sweep.store, sweep.run, PROFILE, status=None, stop=6)
    write_json(folder.checkpoint_path(3) / "manifest.json", {"files": {}, "parts": {}})
    actions = decide(sweep.plan.sweep.runs, ledger(sweep.store), Choice(only="failed"))
    assert [action.kind for action in actions] == ["skip", "skip"]
    tracker = Notebook()
    with tracking([tracker], sweep.said.append) as listener:
        listener.planned(replace(sweep.plan, actions=actions))
    assert tracker.opened == [sweep.done.run_id]


def test_a_failure_is_said_once_with_what_to_do_and_without_secrets(sweep, monkeypatch):
    monkeypatch.setenv("SOME_API_KEY", "abcdefgh12345")

    def away():
        raise ConnectionError("http://me:pw@there: refused abcdefgh12345.\nmore lines")

    carry_out(sweep, Notebook(away))
    first, last = sweep.said
    location = sweep.store.location
    later = f"`depthsweep export pair --to notebook --store {location}`"
    assert first == f"notebook: http://there: refused …; runs go on, and {later} does it later"
    assert last == f"notebook: 2 runs are not shown whole; {later} does it"


def test_a_tracker_that_comes_back_is_told_everything(sweep):
    left = iter([OSError("away"), OSError("away")])

    def for_a_while():
        error = next(left, None)
        if error:
            raise error

    tracker = Notebook(for_a_while)
    with tracking([tracker], sweep.said.append) as listener:
        listener.planned(sweep.plan)
        until = time.monotonic() + 20
        while len(tracker.statuses()) < 1 and time.monotonic() < until:
            time.sleep(0.01)
    assert tracker.statuses() == {sweep.done.run_id: "finished"}
    assert len(sweep.said) == 1


def test_a_tracker_that_hangs_holds_up_neither_events_nor_the_end(sweep, monkeypatch):
    monkeypatch.setattr(live, "FLUSH_SECONDS", 0.3)
    never = threading.Event()
    heard = threading.Event()
    with tracking([Notebook(never.wait)], sweep.said.append) as listener:
        listener.planned(sweep.plan)
        for step in range(10_000):  # each would wait for ever if it waited at all
            listener.event(sweep.run.run_id, "progress", {"step": step})
        heard.set()
    assert heard.is_set()
    assert "2 runs are not shown whole" in sweep.said[-1]
    never.set()


def test_one_tracker_away_leaves_the_others_alone(sweep):
    def away():
        raise OSError("away")

    good = Notebook()
    with tracking([Notebook(away), good], sweep.said.append) as listener:
        listener.planned(sweep.plan)
    assert good.statuses() == {sweep.done.run_id: "finished"}


def test_one_run_that_is_refused_leaves_the_others_alone(sweep):
    tracker = Notebook()
    opens = tracker.open

    def refusing(card):
        if card.run_id == sweep.done.run_id:
            raise ValueError("no such parameter")
        return opens(card)

    tracker.open = refusing
    carry_out(sweep, tracker)
    assert tracker.statuses() == {sweep.run.run_id: "finished"}
    assert "1 run is not shown whole" in sweep.said[-1]


def test_several_listeners_hear_the_same_in_order():
    heard = []

    class Hearing(Listener):
        def __init__(self, name):
            self.name = name

        def event(self, run_id, kind, report):
            assert report == {}
            heard.append((self.name, run_id, kind))

    both = Listeners(Hearing("a"), Hearing("b"))
    with both.running():
        both.event("r", "started", {})
    assert heard == [("a", "r", "started"), ("b", "r", "started")]
