"""The adapter between a Tune trial and one run of ``workers``.

A trial is a stretch of a run's generator at a time, so Tune hears of progress without a callback
bus, and stopping a trial is closing the generator. The process outlives the run: the next trial
with the same resources starts warm, with torch and transformers imported.

SIGTERM to the process means that its machine is taken away: the run stops with a checkpoint, and
the process ends so that the run is offered again elsewhere.
"""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Iterator
from typing import Any

from ray import tune

from orchestrator.gang import RankLost, gang_progress
from sweeps.errors import UserError
from sweeps.results.attempt import Superseded
from sweeps.results.patience import StoreUnavailable
from sweeps.results.store import Store
from sweeps.spec import RunSpec
from workers.notice import Notice

REPORT_SECONDS = 0.5
# How often an error in code or data is met before the run counts as failed.
FAILURES = 2


class Preempted(RuntimeError):
    """This process was told to go; what its run has done is kept."""


class RunTrainable(tune.Trainable):  # type: ignore[misc]
    """One run after another in one process."""

    def setup(self, config: dict[str, Any]) -> None:
        self._run_id: str = config["run_id"]
        self._config = config
        self._failures = 0
        self._stepping = False
        self._preempted = False
        self._notice = Notice()
        self._listen()
        self._progress = self.start(config)

    def _listen(self) -> None:
        """Take SIGTERM for a preemption notice while a run is on."""
        if threading.current_thread() is threading.main_thread():
            notice = self._notice
            signal.signal(signal.SIGTERM, lambda *_: notice.give("preempted"))

    def start(self, config: dict[str, Any]) -> Iterator[Any]:
        """Return the run's progress; the import of torch happens here, in the worker."""
        run = RunSpec.model_validate_json(config["spec"])
        if config.get("ranks"):
            return gang_progress(
                run,
                config["store"],
                config["threads"],
                config["cpus"],
                config["gpus"],
                self._notice,
            )
        import torch

        from workers.train import train

        torch.set_num_threads(config["threads"])
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        return train(run, Store.at(config["store"], waits=True), device, notice=self._notice)

    def step(self) -> dict[str, Any]:
        """Advance for a stretch of time; an exception ends the run, not the trial.

        Out of GPU memory: the same run goes on with half the micro-batch, which changes nothing but
        rounding. A mistake of the user's fails at once; any other error is tried once more.
        """
        if self._preempted:
            raise Preempted("its machine was taken away; the run goes on elsewhere")
        while True:
            try:
                return self._advance()
            except RankLost:
                raise  # the trial is lost with its rank, and admitted again
            except Exception as error:
                if not self._may_try_again(error):
                    detail = " ".join(str(error).split())
                    message = f"{type(error).__name__}: {detail}"
                    # Tune refuses a result without the searcher's metric, which is the step.
                    report = {"run_id": self._run_id, "step": 0, "status": "failed"}
                    return report | {"error": message, "done": True}
                self._progress = self.start(self._config)

    def _may_try_again(self, error: Exception) -> bool:
        if isinstance(error, (UserError, StoreUnavailable)):
            return False
        if isinstance(error, Superseded):
            return True  # the next attempt waits for the one that took over
        if type(error).__name__ == "OutOfMemoryError":
            smaller = with_half_the_micro_batch(self._config["spec"])
            if smaller is None:
                return False
            self._config = {**self._config, "spec": smaller}
            return True
        self._failures += 1
        return self._failures < FAILURES

    def _advance(self) -> dict[str, Any]:
        report: dict[str, Any] = {"run_id": self._run_id, "done": False, "status": None}
        until = time.monotonic() + REPORT_SECONDS
        for progress in self._progress:
            report |= {"step": progress.step, "steps": progress.steps, "loss": progress.loss}
            report |= {"status": progress.status, "resumed_from": progress.resumed_from}
            self._stepping = progress.loss is not None
            # The report of a preempted run must reach the driver before its process ends.
            self._preempted = progress.status == "preempted"
            report["done"] = progress.status is not None and not self._preempted
            if progress.status or time.monotonic() > until:
                return report
        raise RuntimeError("the run ended without a result")

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self.cleanup()
        self.setup(new_config)
        return True

    def cleanup(self) -> None:
        """End the run, if it is still on, with a checkpoint of the step it is in."""
        self._notice.give("cancelled")
        if self._stepping:
            with contextlib.suppress(Exception):  # the attempt's record says what it was
                for _ in self._progress:
                    pass
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
