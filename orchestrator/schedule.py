"""Runs to Ray Tune trials, admitted in our own order.

Tune starves large trials and starts pending ones in any order, so admission is ours: the searcher
offers the next run only when its resources are free, and Tune starts what it is offered.
"""

from __future__ import annotations

import contextlib
import logging
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from orchestrator.placement import Placement
from orchestrator.ray_environment import ray  # noqa: F401, before ray.tune is imported

from ray import tune  # isort: skip
from ray.tune import PlacementGroupFactory  # isort: skip
from ray.tune.search import Searcher  # isort: skip

LOSSES_WITHOUT_PROGRESS = 3


@dataclass(frozen=True)
class Event:
    """Something that happened to a run: started, progress, ended; lost or preempted, and offered
    again."""

    run_id: str
    kind: str
    report: dict[str, Any]


class Admission(Searcher):  # type: ignore[misc]
    """Offers configurations in the order given, each when a slot is free.

    A run whose process was lost is offered again, first in line: that is no failure of the run.
    Only one that is lost again and again without getting further is given up; one that was told to
    go, and kept what it had done, does not count at all.
    """

    def __init__(
        self, configs: Sequence[dict[str, Any]], slots: int, emit: Callable[[Event], None]
    ) -> None:
        super().__init__(metric="step", mode="max")
        self._waiting = list(reversed(configs))
        self._slots = slots
        self._running: dict[str, dict[str, Any]] = {}
        self._furthest: dict[str, int] = {}
        self._losses: dict[str, int] = {}
        self._preempted: set[str] = set()
        self._emit = emit

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        if not self._waiting and not self._running:
            return str(Searcher.FINISHED)
        taken = sum(slots_of(config) for config in self._running.values())
        # The next run in order waits for all its slots, so that smaller ones cannot starve it.
        if not self._waiting or taken + slots_of(self._waiting[-1]) > self._slots:
            return None
        config: dict[str, Any] = self._waiting.pop()
        self._running[trial_id] = config
        self._emit(Event(config["run_id"], "started", {}))
        return config

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        if trial_id in self._running:
            run_id = self._running[trial_id]["run_id"]
            if result.get("step", 0) > self._furthest.get(run_id, 0):
                self._furthest[run_id] = result["step"]
                self._losses[run_id] = 0
            if result.get("status") == "preempted":
                self._preempted.add(trial_id)
            self._emit(Event(run_id, "progress", result))

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        config = self._running.pop(trial_id, None)
        if config is None:
            return
        run_id = config["run_id"]
        if not error and result:
            self._emit(Event(run_id, "ended", result))
            return
        if trial_id in self._preempted:
            self._waiting.append(config)
            self._emit(Event(run_id, "preempted", {}))
            return
        self._losses[run_id] = self._losses.get(run_id, 0) + 1
        if self._losses[run_id] < LOSSES_WITHOUT_PROGRESS:
            self._waiting.append(config)
            self._emit(Event(run_id, "lost", {}))
            return
        message = f"its process was lost {self._losses[run_id]} times without getting further"
        self._emit(Event(run_id, "ended", {"status": "failed", "error": message}))

    def __getstate__(self) -> dict[str, Any]:
        """Tune pickles its searcher along with its state; who listens stays in this process."""
        return {**self.__dict__, "_emit": None}

    def save(self, checkpoint_path: str) -> None:
        """Nothing: what is left to do follows from the store."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: see ``save``."""


def slots_of(config: dict[str, Any]) -> int:
    """Return how many slots a run takes: one a rank."""
    ranks: int = config.get("ranks", 0)
    return max(1, ranks)


def resources_of(config: dict[str, Any], placement: Placement) -> PlacementGroupFactory:
    """Return what a trial reserves: one bundle, or for a gang one a rank and none to watch them.

    Ranks share a node where the largest has room for them all.
    """
    bundle = {"CPU": placement.cpus, **({"GPU": placement.gpus} if placement.gpus else {})}
    ranks = config.get("ranks", 0)
    if not ranks:
        return PlacementGroupFactory([bundle])
    strategy = "STRICT_PACK" if ranks <= placement.slots_per_node else "PACK"
    return PlacementGroupFactory([{}, *[bundle] * ranks], strategy=strategy)


def run_all(
    trainable: type[tune.Trainable],
    configs: Sequence[dict[str, Any]],
    placement: Placement,
    on_event: Callable[[Event], None],
) -> None:
    """Run one trial a config, each with ``run_id``, in order, ``placement.slots`` at a time.

    ``on_event`` is called in this process; what it raises is dropped, since an exception in a Tune
    callback would end the sweep. Needs a running Ray.
    """

    def emit(event: Event) -> None:
        with contextlib.suppress(Exception):
            on_event(event)

    logging.getLogger("ray.tune").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory(prefix="depthsweep-tune-") as scratch:
        tune.Tuner(
            tune.with_resources(trainable, lambda config: resources_of(config, placement)),
            tune_config=tune.TuneConfig(
                search_alg=Admission(configs, placement.slots, emit),
                num_samples=-1,
                reuse_actors=True,
                max_concurrent_trials=None,
            ),
            run_config=tune.RunConfig(name="sweep", storage_path=scratch, verbose=0),
        ).fit()
