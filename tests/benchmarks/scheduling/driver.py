"""What the driver costs while 2,048 runs are side by side: Tune, Ray's futures and our own part.

The runs are pretended: one process answers for all of their trials, at the rate at which trials
report. All that the driver does is real, but for the placement groups that Ray would be asked for.
"""

from __future__ import annotations

import argparse
import asyncio
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

from orchestrator.connection.nodes import local_ray
from orchestrator.connection.ray_environment import ray
from orchestrator.ledger.sweep_account import NO_LIMITS
from orchestrator.policy.next_start import Waiting
from orchestrator.policy.occupancy import Demand
from orchestrator.sizing.placement import Node
from orchestrator.tuning.admission import Admission
from orchestrator.tuning.cluster_view import View
from orchestrator.tuning.hearing import Hearing
from orchestrator.tuning.request import MOST_REPORT_SECONDS, REPORT_SECONDS, request_of
from orchestrator.tuning.trainable import RunTrainable
from orchestrator.tuning.tune_sweep import run_all
from tests.benchmarks.scheduling.cpu_seconds import CpuSeconds
from tests.benchmarks.scheduling.plain_sweep import sleeping

GPUS_A_NODE, RUNS_A_GPU = 8, 4


class Answering:
    """Answers for all trials, as ``RunTrainable.step`` does: where it is, then a step at a time."""

    async def ready(self) -> bool:
        return True

    async def metrics(self, **_: Any) -> dict[str, Any]:
        return {}

    async def train(self, run_id: str, node: str, pause: float, until: float) -> dict[str, Any]:
        report = {"run_id": run_id, "step": 0, "status": None, "done": False}
        if not pause:
            return {**report, "seats": [(node, "")], "trial_id": run_id}
        await asyncio.sleep(pause)
        done = time.time() > until
        report |= {"step": int(time.time()), "steps": 2**31, "loss": 0.5, "learning_rate": 1e-3}
        return {**report, "status": "finished" if done else None, "done": done}


@dataclass
class PretendedTrial:
    """In the place of the handle of a trial's process."""

    answering: Any
    config: dict[str, Any]
    until: float
    pause: float = 0.0

    def __post_init__(self) -> None:
        request = request_of(self.config)
        self._said = (request.run_id, request.target or "")
        self.__ray_ready__ = SimpleNamespace(remote=self.answering.ready.remote)
        self.__ray_terminate__ = self.stop = self.__ray_ready__
        self.get_auto_filled_metrics = SimpleNamespace(remote=self.answering.metrics.remote)
        self.train = SimpleNamespace(remote=self._train)

    def _train(self) -> Any:
        pause = self.pause
        self.pause = min(max(REPORT_SECONDS, 2 * self.pause), MOST_REPORT_SECONDS)
        return self.answering.train.remote(*self._said, pause, self.until)


class Granted:
    """All that is asked for is there."""

    def __init__(self, trial_of: Any) -> None:
        self._trial_of = trial_of

    def __getattr__(self, name: str) -> Any:
        answers = {
            "has_resources_ready": True,
            "acquire_resources": self,
            "get_resource_futures": [],
            "annotate_remote_entities": [SimpleNamespace(remote=self._trial_of)],
        }
        return lambda *_, **__: answers.get(name)


@contextmanager
def pretended_trials(answering: Any, until: float) -> Iterator[None]:
    """Have Tune take handles of pretended trials for those of processes."""
    from ray.tune.execution import tune_controller

    manager = tune_controller.RayActorManager
    granted = Granted(lambda config, **_: PretendedTrial(answering, config, until))
    tune_controller.RayActorManager = lambda **_: manager(granted)
    try:
        yield
    finally:
        tune_controller.RayActorManager = manager


class Nodes:
    """A cluster of so many nodes, of which nobody else holds anything."""

    group = ""

    def __init__(self, count: int) -> None:
        gpus = GPUS_A_NODE
        self._nodes = [Node(f"{k:056x}", gpus, gpus, gpus, gpus) for k in range(count)]

    def look(self) -> View:
        return View(self._nodes, {})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=2048)
    parser.add_argument("--seconds", type=float, default=60.0, help="measured, once all run")
    arguments = parser.parse_args()
    count = arguments.runs
    runs = [Waiting(f"{k:012x}", Demand.of(1 / RUNS_A_GPU), 600.0 + k % 60) for k in range(count)]
    reports: list[float] = []
    started: list[float] = []

    def hear(event: Any) -> None:
        (started if event.kind == "started" else reports).append(time.monotonic())

    with local_ray(2):
        answering = ray.remote(num_cpus=0, max_concurrency=2 * count)(Answering).remote()
        cluster = Nodes(-(-count // (GPUS_A_NODE * RUNS_A_GPU)))
        requests = sleeping(runs, gpus=True)
        admission = Admission(
            requests,  # type: ignore[arg-type]
            {run.run_id: run for run in runs},
            cluster,
            NO_LIMITS,
            Hearing(hear, print),
        )

        def measure() -> None:
            while len(started) < count:
                time.sleep(0.2)
            took, used = time.monotonic() - began, starting.driver
            time.sleep(WARM_SECONDS)
            before = len(reports)
            with CpuSeconds() as steady:
                time.sleep(arguments.seconds)
            rate = (len(reports) - before) / arguments.seconds
            print(f"driver: {count} runs side by side, pretended")
            print(f"  started in {took:.1f} s, {1000 * used / count:.1f} ms of CPU a run")
            print(f"  then {rate:.0f} reports/s take {steady.driver / arguments.seconds:.2f} cores")
            admission.stopped = "measured"

        began, starting = time.monotonic(), CpuSeconds()
        with pretended_trials(answering, time.time() + 3600), starting:
            thread = threading.Thread(target=measure, daemon=True)
            thread.start()
            run_all(RunTrainable, admission)
        thread.join()


# Until reports come as seldom as they will.
WARM_SECONDS = 30 * REPORT_SECONDS


if __name__ == "__main__":
    main()
