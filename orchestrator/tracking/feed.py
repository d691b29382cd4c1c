"""Brings a tracker up to what the store has: the one way for live tracking and for exports."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

from orchestrator.tracking.run_cards import run_cards
from orchestrator.tracking.run_rows import RunRows
from orchestrator.tracking.tracker import TrackedRun, Tracker, reason
from sweeps.declaration.expand import Sweep
from sweeps.errors import UserError
from sweeps.store.store import Store

# Said of a run without a result that nothing more is known of.
UNFINISHED = "unfinished"
# Said of a run that is not to be run: it is told if it has a result, and else left alone.
ITS_RESULT = "its result"


class Feed:
    """One sweep in one tracker."""

    def __init__(self, tracker: Tracker, sweep: Sweep, store: Store) -> None:
        """``store`` is the store itself: what is read now is given to ``bring``."""
        self._tracker = tracker
        self._sweep = sweep
        self._cards = run_cards(sweep, store)
        self._open: dict[str, tuple[TrackedRun, int]] = {}
        self._ended: dict[str, str] | None = None

    def bring(self, run_id: str, now: Store, stands: str | None) -> bool:
        """Log what is new of a run; return whether something was.

        ``stands`` is its status where it goes no further for now, None while it goes on, or
        ``ITS_RESULT``. A run that the tracker has whole under the status it has in the store is
        left as it is. After an exception the tracker is asked anew what it has of the run.
        """
        run, card = self._sweep.by_id[run_id], self._cards[run_id]
        rows = RunRows(now, run)
        if stands == ITS_RESULT and rows.status is None:
            return False
        if self._ended is None:
            self._ended = self._tracker.ended()
        ended = stands is not None or rows.status is not None
        if run_id not in self._open and rows.status == self._ended.get(card.key, object()):
            return False
        tracked, at = self._open.pop(run_id) if run_id in self._open else self._found(run_id)
        self._ended.pop(card.key, None)
        try:
            news = rows.steps_after(at)
            if news:
                tracked.log(news)
                at = news[-1].step
            if not ended:
                self._open[run_id] = tracked, at
                return bool(news)
            outcome = rows.outcome(stands or UNFINISHED)
            tracked.end(outcome)
        except BaseException:
            with contextlib.suppress(Exception):
                tracked.leave()
            raise
        self._ended[card.key] = outcome.status
        return True

    def _found(self, run_id: str) -> tuple[TrackedRun, int]:
        tracked = self._tracker.open(self._cards[run_id])
        return tracked, tracked.logged_to

    def close(self) -> None:
        """Let go of the tracker, and of runs that have not ended."""
        for tracked, _ in self._open.values():
            tracked.leave()
        self._open.clear()
        self._tracker.close()


@dataclass(frozen=True)
class Exported:
    """How many runs were brought up to date, were so already, and have not begun."""

    brought: int
    there: int
    waiting: int

    def __str__(self) -> str:
        said = [f"{self.brought} runs" if self.brought != 1 else "1 run"]
        said += [f"{self.there} there already"] if self.there else []
        said += [f"{self.waiting} not begun"] if self.waiting else []
        return ", ".join(said)


class TrackerFailed(RuntimeError):
    """A tracker did not take what it was told."""


def export(tracker: Tracker, sweep: Sweep, store: Store) -> Exported:
    """Bring a tracker up to what the store has; raise TrackerFailed where it does not answer."""
    now = store.reading()
    begun = [run.run_id for run in sweep.runs if now.run(run.run_id).attempt_numbers()]
    feed = Feed(tracker, sweep, store)
    brought = 0
    for run_id in begun:
        try:
            brought += feed.bring(run_id, now, UNFINISHED)
        except UserError:
            raise
        except Exception as error:
            raise TrackerFailed(
                f"{tracker.kind}: run {run_id}: {reason(error)}; the same export goes on with"
                " what is missing"
            ) from error
    feed.close()
    return Exported(brought, len(begun) - brought, len(sweep.runs) - len(begun))
