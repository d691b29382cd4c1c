"""Offers runs to Tune when and where the policy says they start, on a cluster that may change.

Tune starves large trials and starts pending ones in any order, so admission is ours: the searcher
offers a run only when its resources are free, and Tune starts what it is offered.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from orchestrator.connection.ray_environment import ray  # noqa: F401, before ray.tune is imported
from orchestrator.policy.next_start import Line, next_start
from orchestrator.policy.occupancy import UNITS, Occupancy
from orchestrator.policy.priorities import Weights
from orchestrator.tuning.reservations import Reservations
from orchestrator.tuning.trials import Offer, Trial, Trials

from ray.tune.search import Searcher  # isort: skip

LOSSES_WITHOUT_PROGRESS = 3
# How often a cluster is asked which nodes it has.
NODES_SECONDS = 1.0
# How many weights are tried before the first start, and whenever something has changed; and for
# each second of trying, how many pass without.
TRIED_FIRST, TRIED_AGAIN = 100, 60
PAUSE_A_SECOND = 10.0


@dataclass(frozen=True)
class Event:
    """Something that happened to a run: started, progress, ended; lost or preempted, and offered
    again."""

    run_id: str
    kind: str
    report: dict[str, Any]


class Hosts(Protocol):
    """What is asked of the hosts of the nodes; see ``RankHosts``."""

    def assign(self, node: str, trial: str, run: dict[str, Any]) -> None:
        """Give a spare trial on a node its run, or with an empty one let it end."""

    def doubt(self, nodes: Collection[str]) -> None:
        """Ask nodes on which a run was lost whether they are there."""

    def doubted(self, node: str) -> bool:
        """Return whether a node has not answered yet."""


class Admission(Searcher):  # type: ignore[misc]
    """Offers each run once its turn has come and its GPUs are free.

    A run whose process was lost is offered again, before the others: that is no failure of the run.
    Only one that is lost again and again without getting further is given up; losses on nodes that
    have left the cluster since do not count, nor does one that was told to go and kept what it had
    done.

    A trial supervises one run after another. Where more runs than now may come to run side by side,
    trials are started ahead, one at a time on a node: a process takes seconds to start, and then no
    time to be given a run.

    Whenever nothing can start, and something has changed, it looks for weights of the waiting runs'
    demands under which the rest of the sweep ends sooner.

    Args:
        nodes: the nodes now and the GPUs (or CPUs, where none has GPUs) that runs may take of each.
    """

    def __init__(
        self,
        offers: Sequence[Offer],
        nodes: Callable[[], Sequence[tuple[str, int]]],
        emit: Callable[[Event], None],
        reservations: Reservations,
        hosts: Hosts,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(metric="step", mode="max")
        self._offers = {offer.run.run_id: offer for offer in offers}
        self._line = Line(offer.run for offer in offers)
        self._weights = Weights(offer.run.demand for offer in offers)
        self._changed = True
        self._weighs_from = float("-inf")
        self._nodes = nodes
        self._emit = emit
        self._reservations = reservations
        self._hosts = hosts
        self._clock = clock
        self._cluster = Occupancy(())
        self._looked = float("-inf")
        self._trials = Trials()
        self._furthest: dict[str, int] = {}
        self._losses: dict[str, list[tuple[str, ...]]] = {}
        # Seconds that estimates said of ended runs, and those it took.
        self._estimated = self._taken = 0.0

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """Start what can start, in spare trials where there are any; else offer a trial for it."""
        now = self._clock()
        self._look(now)
        self._reservations.tidy()
        if not len(self._line):
            self._trials.dismiss_spare(lambda node, name: self._hosts.assign(node, name, {}))
            return None if len(self._trials) else str(Searcher.FINISHED)
        if not self._cluster.placed:
            self._weigh(now, TRIED_FIRST)
        while (begun := self._begin(now)) is not None:
            trial, spare, run = begun
            if spare is None:
                return self._offer(trial_id, trial, run)
            self._trials.take_over(spare, trial)
            self._hosts.assign(trial.node, spare, run)
        self._weigh(now, TRIED_AGAIN)
        short = self._trials.node_short_of_spares(self._side_by_side(), len(self._line))
        return None if short is None else self._offer(trial_id, Trial(short), None)

    def _weigh(self, now: float, most: int) -> None:
        if not self._changed or now < self._weighs_from:
            return
        self._changed = False
        start_up = self._trials.start_up()
        self._weights.improve(self._cluster, list(self._line), now, self._pace(), start_up, most)
        self._line.weights = self._weights.best
        after = self._clock()
        self._weighs_from = after + PAUSE_A_SECOND * (after - now)

    def _pace(self) -> float:
        return self._taken / self._estimated if self._estimated else 1.0

    def _offer(self, name: str, trial: Trial, run: dict[str, Any] | None) -> dict[str, Any]:
        self._trials.add(name, trial)
        return {"node": trial.node, "trial": name, "run": run}

    def _begin(self, now: float) -> tuple[Trial, str | None, dict[str, Any]] | None:
        """Reserve what the next run needs; return its trial, a spare one to be it, and its run."""
        pace = self._pace()
        start = next_start(self._cluster, self._line, now, pace)
        if start is None:
            return None
        nodes = tuple(gpu.node for gpu in start.gpus)
        if any(self._hosts.doubted(node) for node in nodes):
            return None
        spare = self._trials.spare_on(nodes[0])
        if spare is None and not self._trials.may_start_on(nodes[0]):
            return None
        run = start.run
        offer = self._offers[run.run_id]
        places = [(gpu.node, gpu.index) for gpu in start.gpus]
        slots = self._reservations.take(run.run_id, places)
        self._line.remove(run)
        self._cluster.occupy(run.run_id, run.demand, start.gpus, now + pace * run.seconds)
        self._emit(Event(run.run_id, "started", {}))
        trial = Trial(nodes[0], offer=offer, since=now, nodes=nodes)
        return trial, spare, {**offer.config, "slots": slots}

    def _side_by_side(self) -> dict[str, int]:
        """Return how many of the smallest run that waits each node has room for."""
        smallest = min((run.demand.units for run in self._line.heads()), default=UNITS)
        return {
            node: len(gpus) * UNITS // smallest
            for node, gpus in self._cluster.nodes.items()
            if not self._hosts.doubted(node)
        }

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        trial = self._trials.get(trial_id)
        if trial is None:
            return
        trial.up = True
        if trial.offer is None:
            return
        run_id, step = trial.offer.run.run_id, result.get("step", 0)
        if step > self._furthest.get(run_id, 0):
            self._furthest[run_id] = step
            self._losses.pop(run_id, None)
        status = result.get("status")
        trial.preempted = trial.preempted or status == "preempted"
        now = self._clock()
        if status and status != "preempted":
            self._release(run_id)
            if status == "finished":
                self._estimated += trial.offer.run.seconds
                self._taken += now - trial.since
            trial.offer = None
            self._emit(Event(run_id, "ended", result))
            return
        if step and result.get("steps") and run_id in self._cluster.placed:
            self._cluster.expect(run_id, now + (now - trial.since) * (result["steps"] / step - 1))
        self._emit(Event(run_id, "progress", result))

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """A trial is gone; with its run, if it has one."""
        del result, error
        trial = self._trials.remove(trial_id)
        if trial is None or trial.offer is None:
            return
        run = trial.offer.run
        self._release(run.run_id)
        self._look(self._clock(), at_once=True)
        self._hosts.doubt(trial.nodes)
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

    def _release(self, run_id: str) -> None:
        self._changed = True
        self._cluster.release(run_id)
        self._reservations.give_back(run_id)

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
            self._reservations.forget(name)
            self._changed = True
        for name, gpus in present.items():
            if name not in self._cluster.nodes:
                self._cluster.add_node(name, gpus)
                self._changed = True

    def __getstate__(self) -> dict[str, Any]:
        """Tune pickles its searcher along with its state; who listens stays in this process."""
        return {
            **self.__dict__,
            "_emit": None,
            "_nodes": None,
            "_clock": None,
            "_reservations": None,
            "_hosts": None,
        }

    def save(self, checkpoint_path: str) -> None:
        """Nothing: what is left to do follows from the store."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: see ``save``."""
