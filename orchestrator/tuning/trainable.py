"""The adapter between a Tune trial and one run, or one measurement, of ``workers``.

A trial is a stretch of a run's progress at a time, so Tune hears of it without a callback bus, and
stopping a trial is closing the progress. The trial's process supervises and is light: the run's
ranks are processes of their own.

The first report says where the run is. One with a status is its last; ``again`` asks for the run to
be started once more, and whoever schedules decides when, where, and whether it is.

SIGTERM to the process means that its machine is taken away: the run stops with a checkpoint, and
goes on elsewhere.
"""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Iterator
from typing import Any

from orchestrator.connection.ray_environment import ray  # noqa: F401, before ray.tune is imported
from orchestrator.ranks.gang import Gang, RankLost, RunBroken
from orchestrator.tuning.request import REPORT_SECONDS, Request, request_of
from sweeps.store.store import Store
from workers.progress import Progress
from workers.ranks.notice import Notice

from ray import tune  # isort: skip

# How often the ranks of a run look for another port to meet at.
PORTS = 5
NOTHING = {"step": 0, "status": None, "done": False}


class RunTrainable(tune.Trainable):  # type: ignore[misc]
    """One run: a config has its ``request``, see ``orchestrator.tuning.request``.

    A trial's process may carry out one run after another that holds the same, as Tune reuses it.
    """

    def setup(self, config: dict[str, Any]) -> None:
        self._gang: Gang | None = None
        self._request = request_of(config)
        self._begin(self._request)
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, lambda *_: self._notice.give("preempted"))

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Go on with another run that holds the same."""
        self._begin(request_of(new_config))
        return True

    def _begin(self, request: Request) -> None:
        before, self._request = self._request, request
        if before.fresh != request.fresh:
            self._disband()  # a rank's holder keeps its process for the next run, or never
        self._notice = Notice()
        self._progress: Iterator[Progress] | None = None
        self._stepping = False
        self._ports = 0
        self._pause = REPORT_SECONDS

    def start(self, request: Request) -> Iterator[Progress]:
        """Return the run's progress."""
        assert self._gang is not None
        return self._gang.progress(request.run_id, request.job, self._notice)

    def seats(self, request: Request) -> list[tuple[str, str]]:
        """Return where each rank is, as (node, GPUs), once they are held."""
        if self._gang is None:
            alone = request.holds.get("GPU", 0) >= 1
            bundles = [request.holds] * request.ranks
            self._gang = Gang(bundles, alone, request.fresh)
        return [(seat.node, ",".join(seat.devices)) for seat in self._gang.seats()]

    def step(self) -> dict[str, Any]:
        """Advance for a stretch of time; return a report.

        An exception ends the trial's process, as the loss of a rank does: Tune starts it anew.
        """
        request = self._request
        report = {"run_id": request.run_id, **NOTHING}
        if request.given_up:
            return {**report, "status": "failed", "done": True, "error": request.given_up}
        if request.steps_back:
            return {**report, "status": "again"}
        if self._progress is None:
            seats = self.seats(request)
            wrong = _wrong_store(request)
            if wrong is not None:
                return {**report, "seats": seats, "status": "again", "what": "node", "error": wrong}
            self._progress = self.start(request)
            return {**report, "seats": seats}
        while True:
            try:
                return self._advance(report)
            except RankLost as error:
                self._progress = None
                self._disband()
                return {**report, "status": "again", "what": "lost", "error": str(error)}
            except RunBroken as error:
                if error.how.what == "port" and self._ports < PORTS:
                    self._ports += 1
                    self._progress = self.start(request)
                    continue
                self._progress = None
                what = error.how.what
                return {**report, "status": "again", "what": what, "error": str(error)}

    def _advance(self, report: dict[str, Any]) -> dict[str, Any]:
        until = time.monotonic() + self._pause
        self._pause = min(2 * self._pause, self._request.pause)
        assert self._progress is not None
        for progress in self._progress:
            report |= {"step": progress.step, "steps": progress.steps, "loss": progress.loss}
            report |= {"learning_rate": progress.learning_rate, "probe": progress.probe}
            report |= {"evaluation": progress.evaluation, "doing": progress.doing}
            report |= {"status": progress.status, "resumed_from": progress.resumed_from}
            self._stepping = progress.loss is not None
            if progress.status:
                self._leave()
                stopped = progress.status in ("preempted", "cancelled")
                return {**report, "done": not stopped}
            if time.monotonic() > until:
                return report
        raise RuntimeError("the run ended without a result")

    def _leave(self) -> None:
        """End the ranks of a run that has ended: the next one on their GPUs finds them free."""
        for _ in self._progress or ():
            pass
        self._progress = None

    def cleanup(self) -> None:
        """End the run, if it is still on, with a checkpoint of the step it is in."""
        self._notice.give("cancelled")
        if self._stepping and self._progress is not None:
            with contextlib.suppress(Exception):  # the attempt's record says what it was
                self._leave()
        close = getattr(self._progress, "close", None)
        if close is not None:
            close()
        self._disband()

    def _disband(self) -> None:
        """Leave nothing of the gang: of one that has lost a rank a holder may be gone, too."""
        gang, self._gang = self._gang, None
        if gang is not None:
            gang.close()

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Nothing: the store is the record, and Tune's own state is disposable."""

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Nothing: see ``save_checkpoint``."""


def _wrong_store(request: Request) -> str | None:
    """Return why this node does not see the store that the driver does; None where it does."""
    if not request.store_id:
        return None
    return Store.at(request.store).complaint(request.store_id)
