"""The adapter between a Tune trial and one run, or one measurement, of ``workers``.

A trial is a stretch of a run's progress at a time, so Tune hears of it without a callback bus, and
stopping a trial is closing the progress. The trial's process supervises, the run's ranks are
processes of their own. It takes seconds to start, so one trial supervises run after run: Tune ends
the process of a trial that is done, unless another one waits at that moment.

SIGTERM to the process means that its machine is taken away: the run stops with a checkpoint, and
the process ends so that the run is offered again elsewhere.
"""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from ray import tune

from orchestrator.ranks.gang import Gang, RankLost, RunBroken, assignment, gang_progress
from sweeps.spec import RunSpec, is_measurement
from workers.progress import Progress
from workers.ranks.notice import Notice

REPORT_SECONDS = 1.0
# How often an error in code or data is met before the run counts as failed.
FAILURES = 2


class Preempted(RuntimeError):
    """This process was told to go; what its run has done is kept."""


class RunTrainable(tune.Trainable):  # type: ignore[misc]
    """One run after another, until told that there are no more.

    A config has ``node`` and ``trial``, and ``run`` where the trial begins with it. Other runs it
    is told by the node's host. A report with a status is a run's last.
    """

    def setup(self, config: dict[str, Any]) -> None:
        self._node, self._trial = config["node"], config["trial"]
        self._progress: Iterator[Progress] | None = None
        self._notice = Notice()
        self._stepping = False
        self._preempted = False
        self._listen()
        if config.get("run"):
            self._begin(config["run"])

    def _begin(self, run: dict[str, Any]) -> None:
        self._run = run
        self._failures = 0
        self._heard = self._stepping = False
        self._progress = self.start(run)

    def _listen(self) -> None:
        """Take SIGTERM for a preemption notice while a run is on."""
        if threading.current_thread() is threading.main_thread():
            notice = self._notice
            signal.signal(signal.SIGTERM, lambda *_: notice.give("preempted"))

    def start(self, run: dict[str, Any]) -> Iterator[Progress]:
        """Return the run's progress."""
        gang = Gang(run["run_id"], run["slots"], run["fresh"])
        return gang_progress(gang, run["job"], self._notice)

    def step(self) -> dict[str, Any]:
        """Advance for a stretch of time; an exception ends the run, not the trial.

        Out of GPU memory: the same run goes on with half the micro-batch, which changes nothing but
        rounding; a measurement fails. A mistake of the user's fails at once; any other error is
        tried once more.
        """
        if self._preempted:
            raise Preempted("its machine was taken away; the run goes on elsewhere")
        # Tune refuses a result without the searcher's metric, which is the step.
        nothing = {"step": 0, "status": None}
        if self._progress is None:
            run = assignment(self._node, self._trial)
            if not run:
                return {**nothing, "done": run is not None or self._notice.cause is not None}
            self._begin(run)
        while True:
            try:
                return self._advance()
            except RankLost:
                raise  # the trial is lost with its rank, and admitted again
            except Exception as error:
                if not self._may_try_again(error):
                    self._progress = None
                    failed = {"run_id": self._run["run_id"], "status": "failed", "done": False}
                    mistake = isinstance(error, RunBroken) and error.how.what == "mistake"
                    return nothing | failed | {"error": str(error), "mistake": mistake}
                self._progress = self.start(self._run)

    def _may_try_again(self, error: Exception) -> bool:
        what = error.how.what if isinstance(error, RunBroken) else "error"
        if what in ("mistake", "store"):
            return False
        if what == "superseded":
            return True  # the next attempt waits for the one that took over
        if what == "memory":
            if is_measurement(self._run["run_id"]):
                return False
            job = self._run["job"]
            smaller = with_half_the_micro_batch(job.spec)
            if smaller is None:
                return False
            self._run = {**self._run, "job": replace(job, spec=smaller)}
            return True
        self._failures += 1
        return self._failures < FAILURES

    def _advance(self) -> dict[str, Any]:
        report: dict[str, Any] = {"run_id": self._run["run_id"], "done": False, "status": None}
        # The first word comes at once: the next process may start.
        until = time.monotonic() + (REPORT_SECONDS if self._heard else 0.0)
        self._heard = True
        assert self._progress is not None
        for progress in self._progress:
            report |= {"step": progress.step, "steps": progress.steps, "loss": progress.loss}
            report |= {"status": progress.status, "resumed_from": progress.resumed_from}
            self._stepping = progress.loss is not None
            # The report of a preempted run must reach the driver before its process ends.
            self._preempted = progress.status == "preempted"
            if progress.status and not self._preempted:
                self._leave()
            if progress.status or time.monotonic() > until:
                return report
        raise RuntimeError("the run ended without a result")

    def _leave(self) -> None:
        """End the ranks of a run that has ended: the next one on their slots finds them free."""
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

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Nothing: the store is the record, and Tune's own state is disposable."""

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Nothing: see ``save_checkpoint``."""


def with_half_the_micro_batch(spec: str) -> str | None:
    """Return a run's JSON with its micro-batch halved, or None where it cannot be."""
    run = RunSpec.model_validate_json(spec)
    half = run.micro_batch_size // 2
    if half < 1 or run.batch_size % (half * (run.execution.processes or 1)):
        return None
    execution = run.execution.model_copy(update={"micro_batch_size": half})
    return run.model_copy(update={"execution": execution}).model_dump_json()
