"""Runs that only hold what they demand for so many seconds, as a sweep of trials."""

from __future__ import annotations

import time
from collections.abc import Sequence

from orchestrator.connection.nodes import cluster_nodes, local_ray
from orchestrator.ledger.sweep_account import NO_LIMITS
from orchestrator.policy.next_start import Waiting
from orchestrator.tuning.admission import Admission
from orchestrator.tuning.cluster_view import OwnCluster
from orchestrator.tuning.hearing import Event, Hearing
from orchestrator.tuning.trainable import RunTrainable
from orchestrator.tuning.tune_sweep import run_all
from tests.simulated.body_sweep import BodyRequests


def sleeping(runs: Sequence[Waiting], gpus: bool) -> BodyRequests:
    """Return requests of runs that sleep for as long as they are expected to take."""
    requests = BodyRequests(gpus)
    for run in runs:
        requests.add(run.run_id, "sleep", run.demand, run.seconds, {"seconds": run.seconds})
    return requests


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
        requests = sleeping(runs, bool(gpus))
        admission = Admission(
            requests,  # type: ignore[arg-type]
            requests.waiting,
            cluster,
            NO_LIMITS,
            Hearing(note, lambda text: print(f"  {text}", flush=True)),
        )
        run_all(RunTrainable, admission, reuse)
        took = time.monotonic() - began
    assert sorted(ended) == sorted(requests.waiting)
    return took, order
