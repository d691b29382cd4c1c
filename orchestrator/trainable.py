"""The adapter between a Tune trial and one run of ``workers``.

A trial is a stretch of a run's generator at a time, so Tune hears of progress without a callback
bus, and stopping a trial is closing the generator. The process outlives the run: the next trial
with the same resources starts warm, with torch and transformers imported.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from ray import tune

from sweeps.results.store import Store
from sweeps.spec import RunSpec

REPORT_SECONDS = 0.5


class RunTrainable(tune.Trainable):  # type: ignore[misc]
    """One run after another in one process."""

    def setup(self, config: dict[str, Any]) -> None:
        self._run_id: str = config["run_id"]
        self._progress = self.start(config)

    def start(self, config: dict[str, Any]) -> Iterator[Any]:
        """Return the run's progress; the import of torch happens here, in the worker."""
        import torch

        from workers.train import train

        torch.set_num_threads(config["threads"])
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        run = RunSpec.model_validate_json(config["spec"])
        return train(run, Store.at(config["store"]), device)

    def step(self) -> dict[str, Any]:
        """Advance for a stretch of time; an exception ends the run as failed, not the trial."""
        report: dict[str, Any] = {"run_id": self._run_id, "done": False, "status": None}
        until = time.monotonic() + REPORT_SECONDS
        try:
            for progress in self._progress:
                report |= {"step": progress.step, "steps": progress.steps, "loss": progress.loss}
                report |= {"status": progress.status, "done": progress.status is not None}
                if report["done"] or time.monotonic() > until:
                    return report
            report |= {"status": "failed", "error": "the run ended without a result"}
        except Exception as error:
            detail = " ".join(str(error).split())
            report |= {"status": "failed", "error": f"{type(error).__name__}: {detail}"}
        return report | {"done": True}

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self.cleanup()
        self.setup(new_config)
        return True

    def cleanup(self) -> None:
        close = getattr(self._progress, "close", None)
        if close is not None:
            close()

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Nothing: the store is the record, and Tune's own state is disposable."""

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Nothing: see ``save_checkpoint``."""
