"""Sweeps of runs that train nothing: each rank carries out a body of ``tests.rank_bodies``.

``python -m tests.simulated.body_sweep ADDRESS STORE RUNS SECONDS`` is one of sleeping runs on a
cluster; it prints when each ended.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from orchestrator.connection.ray_environment import ray
from orchestrator.ledger.sweep_account import Limits
from orchestrator.policy.next_start import Waiting
from orchestrator.policy.occupancy import UNITS, Demand
from orchestrator.sizing.placement import Node, Placement
from orchestrator.tuning.admission import Admission
from orchestrator.tuning.cluster_view import SharedCluster
from orchestrator.tuning.hearing import Event, Hearing
from orchestrator.tuning.request import Request
from orchestrator.tuning.trainable import RunTrainable
from orchestrator.tuning.tune_sweep import run_all
from sweeps.store.store import Store


class BodyRequests:
    """What ``orchestrator.tuning.requests.Requests`` is to a sweep, for runs given one by one."""

    def __init__(self, gpus: bool, store: str = "/nowhere", store_id: str = "") -> None:
        self.placement = Placement(gpus, 1)
        self.waiting: dict[str, Waiting] = {}
        self._store, self._store_id = store, store_id
        self._by_id: dict[str, Request] = {}

    def add(
        self,
        run_id: str,
        body: str,
        demand: Demand | None = None,
        seconds: float = 9.0,
        details: Mapping[str, Any] | None = None,
    ) -> None:
        """Add a run; ``seconds`` is what it is expected to take."""
        demand = demand or Demand()
        self.waiting[run_id] = Waiting(run_id, demand, seconds)
        self._by_id[run_id] = Request(
            run_id,
            "",
            self._store,
            self.placement.holds(demand.units / UNITS),
            body=f"tests.rank_bodies:{body}",
            details=dict(details or {}),
            ranks=demand.gpus,
            fresh=self.placement.gpus,
            store_id=self._store_id,
        )

    def __getitem__(self, run_id: str) -> Request:
        return self._by_id[run_id]

    def taught(self, request: Request) -> Request:
        return request

    def with_less_memory(self, request: Request) -> None:
        """Of a body, no smaller one is known."""
        del request

    def fit(self, here: Sequence[Node], to_come: Sequence[Node] = ()) -> None:
        """Every body is what it is, on whatever nodes."""
        del here, to_come


class BodySweep:
    """A sweep of bodies on the connected cluster, and what was said of it."""

    def __init__(
        self,
        requests: BodyRequests,
        store: Store,
        listen: Callable[[Event], None] = lambda _: None,
    ) -> None:
        self.events: list[tuple[float, Event]] = []
        self.notices: list[str] = []
        self.since = time.monotonic()

        def note(event: Event) -> None:
            self.events.append((time.monotonic() - self.since, event))
            listen(event)

        cluster = SharedCluster(store.location, store.identify())
        cluster.first_look(self.notices.append)
        self.admission = Admission(
            requests, requests.waiting, cluster, Limits(), Hearing(note, self.notices.append)
        )

    def run(self) -> BodySweep:
        self.grid = run_all(RunTrainable, self.admission)
        return self

    def of(self, kind: str) -> list[Event]:
        return [event for _, event in self.events if event.kind == kind]

    @property
    def statuses(self) -> Counter[str]:
        return Counter(event.report["status"] for event in self.of("ended"))


def main() -> None:
    address, store, count, seconds = sys.argv[1:]
    ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    runs = BodyRequests(gpus=True)
    for k in range(int(count)):
        runs.add(f"b{k}", "sleep", seconds=float(seconds), details={"seconds": float(seconds)})
    began = time.time()
    sweep = BodySweep(runs, Store.at(store)).run()
    print(json.dumps([began + at for at, event in sweep.events if event.kind == "ended"]))


if __name__ == "__main__":
    main()
