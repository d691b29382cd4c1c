"""The trials of a sweep: which node each is on, and which run it has, if any.

A trial is a process that supervises one run after another. It takes seconds to start, so some are
started ahead. Those without a run are spare.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from orchestrator.policy.next_start import Waiting
from orchestrator.policy.simulation import StartUp

# Spare trials that a node has at most.
SPARES = 16
# Trials of a node whose process starts at the same time: they would slow each other down, and the
# longest run, which is offered first, with them. Nodes are taken to be no smaller than this one.
STARTING = os.cpu_count() or 1
# Measured on two cores: so many seconds pass until as many trials as there are cores have started;
# the first ones wait for the node's host to import what ranks need.
FIRST_START, EACH_START = 6.0, 3.0


@dataclass(frozen=True)
class Offer:
    """A run as the policy sees it, and what its trial is told."""

    run: Waiting
    config: dict[str, Any]


@dataclass
class Trial:
    """A trial on a node; ``since`` when it has its run, on which ``nodes`` are the run's ranks."""

    node: str
    up: bool = False  # it has been heard from
    offer: Offer | None = None
    since: float = 0.0
    nodes: tuple[str, ...] = ()
    preempted: bool = False
    dismissed: bool = False


class Trials:
    """All trials by the name that Tune calls them."""

    def __init__(self) -> None:
        self._by_name: dict[str, Trial] = {}

    def __len__(self) -> int:
        return len(self._by_name)

    def get(self, name: str) -> Trial | None:
        """Return the trial of a name, if there is one."""
        return self._by_name.get(name)

    def add(self, name: str, trial: Trial) -> None:
        """Take in a trial that Tune is about to start."""
        self._by_name[name] = trial

    def take_over(self, spare: str, trial: Trial) -> None:
        """Let a spare trial be this one."""
        trial.up = self._by_name[spare].up
        self._by_name[spare] = trial

    def remove(self, name: str) -> Trial | None:
        """Forget a trial; return it, if there is one."""
        return self._by_name.pop(name, None)

    def spare_on(self, node: str) -> str | None:
        """Return a spare trial on a node, one that is up where there is one."""
        spares = [name for name, trial in self._spare() if trial.node == node]
        return max(spares, key=lambda name: self._by_name[name].up, default=None)

    def may_start_on(self, node: str) -> bool:
        """Return whether fewer trials than a node's processors are starting there."""
        return self._starting()[node] < STARTING

    def node_short_of_spares(self, most: dict[str, int], waiting: int) -> str | None:
        """Return a node that needs one more spare trial, and where none is starting.

        Args:
            most: for each node, how many runs may come to run on it side by side.
            waiting: how many runs there are to come.
        """
        spares = Counter(trial.node for _, trial in self._spare())
        if spares.total() >= waiting:
            return None
        trials = Counter(trial.node for trial in self._by_name.values())
        starting = self._starting()
        for node, runs in most.items():
            if not starting[node] and trials[node] < runs and spares[node] < SPARES:
                return node
        return None

    def start_up(self) -> StartUp:
        """Return which trials are there, and how more can come up."""
        there = Counter(trial.node for trial in self._by_name.values() if trial.up)
        return StartUp(EACH_START if there else FIRST_START, EACH_START, STARTING, there)

    def dismiss_spare(self, dismiss: Callable[[str, str], None]) -> None:
        """Call ``dismiss(node, name)`` for each spare trial, once."""
        for name, trial in list(self._spare()):
            trial.dismissed = True
            dismiss(trial.node, name)

    def _spare(self) -> Iterator[tuple[str, Trial]]:
        return (
            (name, trial)
            for name, trial in self._by_name.items()
            if trial.offer is None and not trial.dismissed
        )

    def _starting(self) -> Counter[str]:
        return Counter(trial.node for trial in self._by_name.values() if not trial.up)
