"""Trackers beside a sweep that runs: each in a thread of its own, which never holds up a run.

The listener only notes of which runs there is news: a set of ids, which cannot grow beyond the
sweep. A tracker's thread looks into the store for them every few seconds. What goes wrong is said
once; the runs stay noted and are tried again, ever more rarely.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import click

from orchestrator.ledger.sweep_account import Listener, Listeners, Plan
from orchestrator.tracking.feed import ITS_RESULT, Feed
from orchestrator.tracking.kinds import chosen, make_trackers
from orchestrator.tracking.tracker import Tracker, reason
from sweeps.declaration.expand import Sweep
from sweeps.spec import is_measurement
from sweeps.store.store import Store

LOOK_SECONDS = 3.0
LONGEST_PAUSE = 300.0
# Of one core, what a tracker may take from a driver with thousands of runs: it looks less often.
SHARE = 0.05
# How long the end of a sweep waits for what its trackers have not been told yet.
FLUSH_SECONDS = 30.0
# A wait that is longer is said.
SILENT_SECONDS = 2.0
# After so many runs that could not be told, the others are not tried: the tracker is away.
IN_A_ROW = 3

Say = Callable[[str], object]


class _Thread:
    """One tracker's thread, and the runs of which it has not told everything."""

    def __init__(self, tracker: Tracker, sweep: Sweep, store: Store, say: Say) -> None:
        self._tracker, self._sweep, self._store, self._say = tracker, sweep, store, say
        self._feed: Feed | None = None
        self._news: dict[str, str | None] = {}
        self._in_hand: dict[str, str | None] = {}
        self._change = threading.Condition()
        self._closing = self._said = False
        self._pause = LOOK_SECONDS
        self._thread = threading.Thread(target=self._work, name=tracker.kind, daemon=True)
        self._thread.start()

    def note(self, run_id: str, stands: str | None) -> None:
        """Note that there is news of a run; ``stands`` as in ``Feed.bring``."""
        with self._change:
            self._news[run_id] = stands
            self._change.notify()

    def hurry(self) -> None:
        """Have what is left told at once; after it there is no more."""
        with self._change:
            self._closing = True
            self._change.notify()

    def close(self, until: float) -> None:
        """Wait for what is left, until a time at most; say what could not be told."""
        self._thread.join(max(0.0, min(SILENT_SECONDS, until - time.monotonic())))
        if self._thread.is_alive() and (seconds := until - time.monotonic()) > 0:
            self._say(f"{self._tracker.kind}: waiting for it, {seconds:.0f} s at most")
            self._thread.join(seconds)
        with self._change:
            left = len({*self._news, *self._in_hand})
        if left:
            runs = "1 run is" if left == 1 else f"{left} runs are"
            self._say(f"{self._tracker.kind}: {runs} not shown whole; {self._later}")

    @property
    def _later(self) -> str:
        name, location = self._sweep.name, self._store.location
        return f"`depthsweep export {name} --to {self._tracker.kind} --store {location}` does it"

    def _work(self) -> None:
        while self._wait():
            began = time.thread_time()
            if not self._look() and self._closing:
                return
            self._rest(max(self._pause, (time.thread_time() - began) / SHARE))
        with contextlib.suppress(Exception):
            if self._feed is not None:
                self._feed.close()

    def _wait(self) -> bool:
        """Take the news in hand once there is some; return False when there is none to come."""
        with self._change:
            self._change.wait_for(lambda: self._news or self._closing)
            self._in_hand, self._news = self._news, {}
            return bool(self._in_hand)

    def _rest(self, seconds: float) -> None:
        """Let news gather; an end cuts it short."""
        with self._change:
            self._change.wait_for(lambda: self._closing, seconds)

    def _look(self) -> bool:
        """Tell the news in hand; return whether all could be told. What could not is news again."""
        failures = 0
        try:
            now = self._store.reading(list(self._in_hand))
            self._feed = self._feed or Feed(self._tracker, self._sweep, self._store)
            for run_id, stands in list(self._in_hand.items()):
                if failures == IN_A_ROW:
                    break
                try:
                    self._feed.bring(run_id, now, stands)
                except BaseException as error:  # a panic of Polars is no Exception
                    failures += 1
                    self._failed(error)
                else:
                    failures = 0
                    with self._change:
                        del self._in_hand[run_id]
        except Exception as error:
            self._failed(error)
        with self._change:
            left, self._in_hand = self._in_hand, {}
            self._news = {**left, **self._news}
        if not left:
            self._pause = LOOK_SECONDS
        return not left

    def _failed(self, error: BaseException) -> None:
        if not self._said:
            self._said = True
            self._say(f"{self._tracker.kind}: {reason(error)}; runs go on, and {self._later} later")
        self._pause = min(2 * self._pause, LONGEST_PAUSE)


class TrackingListener(Listener):
    """Notes what is new of a sweep's runs, for each of its trackers."""

    def __init__(self, trackers: Sequence[Tracker], say: Say) -> None:
        self._trackers, self._say = trackers, say
        self._threads: list[_Thread] = []
        self._going: set[str] = set()

    def planned(self, plan: Plan) -> None:
        """Begin; runs that have a result already are shown where they are not, after a kill."""
        self._runs = plan.sweep.by_id
        self._threads = [
            _Thread(tracker, plan.sweep, plan.store, self._say) for tracker in self._trackers
        ]
        for action in plan.actions:
            if action.kind == "skip":
                self._note(action.run.run_id, ITS_RESULT)

    def event(self, run_id: str, kind: str, report: dict[str, Any]) -> None:
        """Note news of a run; measurements are no runs."""
        if is_measurement(run_id) or run_id not in self._runs:
            return
        if kind == "ended":
            self._going.discard(run_id)
            self._note(run_id, report.get("status") or "cancelled")
        else:
            self._going.add(run_id)
            self._note(run_id, None)

    def close(self) -> None:
        """Tell what is left of each run, those that were cut short included."""
        for run_id in self._going:
            self._note(run_id, "cancelled")
        until = time.monotonic() + FLUSH_SECONDS
        for thread in self._threads:
            thread.hurry()
        for thread in self._threads:
            thread.close(until)

    def _note(self, run_id: str, stands: str | None) -> None:
        for thread in self._threads:
            thread.note(run_id, stands)


@contextlib.contextmanager
def tracked(sweep: Sweep, store: Store, said: Sequence[str], first: Listener) -> Iterator[Listener]:
    """Yield a listener to a sweep: ``first``, and the trackers that its file or ``said`` asks for.

    Raises UserError, before anything is started, where a tracker's package or place is missing.
    """
    trackers = make_trackers(chosen(sweep.track, said), sweep, store)
    with tracking(trackers, partial(click.echo, err=True)) as listener:
        yield Listeners(first, listener)


@contextlib.contextmanager
def tracking(trackers: Sequence[Tracker], say: Say) -> Iterator[TrackingListener]:
    """Yield a listener whose trackers are told everything, in bounded time, at the end."""
    listener = TrackingListener(trackers, say)
    try:
        yield listener
    finally:
        listener.close()
