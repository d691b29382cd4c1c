"""Runs that only hold what they demand for so many seconds, as a sweep of trials."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace

from orchestrator.connection.nodes import cluster_nodes, local_ray
from orchestrator.ledger.sweep_account import NO_LIMITS
from orchestrator.policy.next_start import Waiting
from orchestrator.policy.occupancy import UNITS
from orchestrator.sizing.placement import Node, Placement, place
from orchestrator.tuning.admission import Admission
from orchestrator.tuning.cluster_view import OwnCluster
from orchestrator.tuning.hearing import Event, Hearing
from orchestrator.tuning.request import Request
from orchestrator.tuning.trainable import RunTrainable
from orchestrator.tuning.tune_sweep import run_all


class SleepingRequests:
    """A request for each run, in the place of ``orchestrator.tuning.requests.Requests``."""

    def __init__(self, runs: Sequence[Waiting], placement: Placement) -> None:
        self.placement = placement
        self._by_id = {
            run.run_id: Request(
                run.run_id,
                "",
                "",
                placement.holds(run.demand.units / UNITS),
                body="tests.rank_bodies:sleep",
                details={"seconds": run.seconds},
                ranks=run.demand.gpus,
                fresh=placement.gpus,
            )
            for run in runs
        }

    def __getitem__(self, run_id: str) -> Request:
        return self._by_id[run_id]

    def fit(self, here: Sequence[Node], to_come: Sequence[Node]) -> None:
        """Nothing: the nodes stay as they are."""

    def taught(self, request: Request) -> Request:
        return request

    def with_less_memory(self, request: Request) -> None:
        """Nothing is learnt of runs that sleep."""


def sweep(
    runs: Sequence[Waiting], cpus: int, gpus: int = 0, reuse: bool = False
) -> tuple[float, list[str]]:
    """Return the seconds that runs took on a Ray of so many CPUs and pretended GPUs, its start
    included where there are no GPUs; and the runs in the order they started."""
    order: list[str] = []
    ended: list[str] = []

    def note(event: Event) -> None:
        if event.kind == "started":
            order.append(event.run_id)
        elif event.kind == "ended" and event.report["status"] == "finished":
            ended.append(event.run_id)

    began = time.monotonic()
    with local_ray(cpus, gpus):
        if gpus:
            began = time.monotonic()
        cluster = OwnCluster(cluster_nodes, None)
        requests = SleepingRequests(runs, place(cluster.look().nodes))
        waiting: Mapping[str, Waiting] = {run.run_id: replace(run) for run in runs}
        admission = Admission(
            requests,  # type: ignore[arg-type]
            waiting,
            cluster,
            NO_LIMITS,
            Hearing(note, lambda text: print(f"  {text}", flush=True)),
        )
        run_all(RunTrainable, admission, reuse)
        took = time.monotonic() - began
    assert sorted(ended) == sorted(waiting)
    return took, order
