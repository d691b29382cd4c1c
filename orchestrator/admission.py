"""Offers runs to Tune when and where the policy says they start, on a cluster that may change.

Tune starves large trials and starts pending ones in any order, so admission is ours: the searcher
offers a run only when its resources are free, and Tune starts what it is offered.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from orchestrator.occupancy import Occupancy
from orchestrator.policy import Line, Waiting, next_start
from orchestrator.ray_environment import ray  # noqa: F401, before ray.tune is imported
from orchestrator.reservations import Reservations, Shape

from ray.tune.search import Searcher  # isort: skip

LOSSES_WITHOUT_PROGRESS = 3
# How often a cluster is asked which nodes it has.
NODES_SECONDS = 1.0


@dataclass(frozen=True)
class Event:
    """Something that happened to a run: started, progress, ended; lost or preempted, and offered
    again."""

    run_id: str
    kind: str
    report: dict[str, Any]


@dataclass(frozen=True)
class Offer:
    """A run as the policy sees it, and what its trial is told."""

    run: Waiting
    config: dict[str, Any]


@dataclass
class _Trial:
    offer: Offer
    since: float
    nodes: tuple[str, ...]
    preempted: bool = False


class Admission(Searcher):  # type: ignore[misc]
    """Offers each run once its turn has come and its GPUs are free.

    A run whose process was lost is offered again, before the others: that is no failure of the run.
    Only one that is lost again and again without getting further is given up; losses on nodes that
    have left the cluster since do not count, nor does one that was told to go and kept what it had
    done.

    Args:
        nodes: the nodes now and the GPUs (or CPUs, where none has GPUs) that runs may take of each.
    """

    def __init__(
        self,
        offers: Sequence[Offer],
        nodes: Callable[[], Sequence[tuple[str, int]]],
        emit: Callable[[Event], None],
        reservations: Reservations,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(metric="step", mode="max")
        self._offers = {offer.run.run_id: offer for offer in offers}
        self._line = Line(offer.run for offer in offers)
        self._nodes = nodes
        self._emit = emit
        self._reservations = reservations
        self._clock = clock
        self._cluster = Occupancy(())
        self._looked = float("-inf")
        self._running: dict[str, _Trial] = {}
        self._furthest: dict[str, int] = {}
        self._losses: dict[str, list[tuple[str, ...]]] = {}
        # Seconds that estimates said of ended runs, and those it took.
        self._estimated = self._taken = 0.0

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        if not len(self._line) and not self._running:
            return str(Searcher.FINISHED)
        now = self._clock()
        self._look(now)
        self._reservations.tidy()
        pace = self._taken / self._estimated if self._estimated else 1.0
        start = next_start(self._cluster, self._line, now, pace)
        if start is None:
            return None
        run = start.run
        offer = self._offers[run.run_id]
        nodes = tuple(gpu.node for gpu in start.gpus)
        shape = Shape(nodes, offer.config["cpus"], offer.config["gpus"])
        group = self._reservations.take(run.run_id, shape)
        if group is None:
            return None
        self._line.remove(run)
        self._cluster.occupy(run.run_id, run.demand, start.gpus, now + pace * run.seconds)
        self._running[trial_id] = _Trial(offer, now, nodes)
        self._emit(Event(run.run_id, "started", {}))
        return {**offer.config, "nodes": nodes, "group": group}

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        trial = self._running.get(trial_id)
        if trial is None:
            return
        run_id, step = trial.offer.run.run_id, result.get("step", 0)
        if step > self._furthest.get(run_id, 0):
            self._furthest[run_id] = step
            self._losses.pop(run_id, None)
        trial.preempted = trial.preempted or result.get("status") == "preempted"
        now = self._clock()
        if step and result.get("steps") and run_id in self._cluster.placed:
            self._cluster.expect(run_id, now + (now - trial.since) * (result["steps"] / step - 1))
        self._emit(Event(run_id, "progress", result))

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        trial = self._running.pop(trial_id, None)
        if trial is None:
            return
        run = trial.offer.run
        now = self._clock()
        self._cluster.release(run.run_id)
        self._reservations.give_back(run.run_id, whole=not error or trial.preempted)
        if not error and result:
            if result.get("status") == "finished":
                self._estimated += run.seconds
                self._taken += now - trial.since
            self._emit(Event(run.run_id, "ended", result))
            return
        self._look(now, at_once=True)
        if trial.preempted:
            self._line.add(replace(run, opens=True))
            self._emit(Event(run.run_id, "preempted", {}))
            return
        self._losses.setdefault(run.run_id, []).append(trial.nodes)
        losses = [nodes for nodes in self._losses[run.run_id] if self._still_has(nodes)]
        if len(losses) < LOSSES_WITHOUT_PROGRESS:
            self._line.add(replace(run, opens=True))
            self._emit(Event(run.run_id, "lost", {}))
            return
        message = f"its process was lost {len(losses)} times without getting further"
        self._emit(Event(run.run_id, "ended", {"status": "failed", "error": message}))

    def _still_has(self, nodes: tuple[str, ...]) -> bool:
        return all(node in self._cluster.nodes for node in nodes)

    def _look(self, now: float, at_once: bool = False) -> None:
        """Take in which nodes have joined and left; runs of one that left hold nothing any more."""
        if now - self._looked < NODES_SECONDS and not at_once:
            return
        self._looked = now
        present = dict(self._nodes())
        for name in [name for name in self._cluster.nodes if name not in present]:
            self._cluster.remove_node(name)
        for name, gpus in present.items():
            if name not in self._cluster.nodes:
                self._cluster.add_node(name, gpus)

    def __getstate__(self) -> dict[str, Any]:
        """Tune pickles its searcher along with its state; who listens stays in this process."""
        return {
            **self.__dict__,
            "_emit": None,
            "_nodes": None,
            "_clock": None,
            "_reservations": None,
        }

    def save(self, checkpoint_path: str) -> None:
        """Nothing: what is left to do follows from the store."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: see ``save``."""
