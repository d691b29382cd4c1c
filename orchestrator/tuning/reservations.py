"""What runs hold of the cluster: slots, each a GPU with its CPUs, or a CPU where there are no GPUs.

A slot is a bundle of a placement group on its node. The driver keeps it for one run after another,
whatever share of one or however many they demand: so what the policy counts on is what there is.
Measured on Ray 2.60 with a group for each run: Ray put shares on other GPUs of the node than the
policy did, and a run of a whole GPU waited for 10 s where one should have been free; and a group
that is asked for within 0.1 s of another's removal waits for a second.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from orchestrator.connection.ray_environment import ray
from orchestrator.ranks.rank_hosts import on_node
from orchestrator.ranks.slot import Slot

# Slots that nobody used for so long go back to the cluster, which others may share.
IDLE_SECONDS = 10.0

Place = tuple[str, int]


@dataclass(eq=False)
class _Group:
    """A placement group with a bundle for each place, and how many runs use any of them."""

    group: Any
    places: tuple[Place, ...]
    runs: int = 0
    idle_since: float = 0.0


class Reservations:
    """Hands out slots. ``holds`` are the resources of one, ``clock`` is in seconds."""

    def __init__(
        self, holds: Mapping[str, float], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._holds = {name: amount for name, amount in holds.items() if amount}
        self._clock = clock
        self._groups: list[_Group] = []
        self._at: dict[Place, _Group] = {}
        self._used: dict[str, list[_Group]] = {}

    def take(self, run_id: str, places: Sequence[Place]) -> tuple[Slot, ...]:
        """Return the slots of a run at places (node, index), which its trial waits for.

        What is missing is asked for at once, with what nobody uses of the others: so two sweeps
        never wait for each other, each with a part of what it needs.
        """
        if any(place not in self._at for place in places):
            for group in {id(found): found for p in places if (found := self._at.get(p))}.values():
                if not group.runs:
                    self._remove(group)
            self._ask([place for place in places if place not in self._at])
        groups = [self._at[place] for place in places]
        self._used[run_id] = list({id(group): group for group in groups}.values())
        for group in self._used[run_id]:
            group.runs += 1
        return tuple(
            Slot(place[0], group.group, group.places.index(place), bool(self._holds.get("GPU")))
            for place, group in zip(places, groups, strict=True)
        )

    def give_back(self, run_id: str) -> None:
        """Take back what a run used."""
        for group in self._used.pop(run_id):
            group.runs -= 1
            group.idle_since = self._clock()

    def forget(self, node: str) -> None:
        """Count on nothing of a node that has left, nor on what was asked for together with it.

        A group that has lost a bundle counts as not there: who waits for another one of its bundles
        waits in vain. Runs that use those keep them to their end.
        """
        lost = {id(group) for place, group in self._at.items() if place[0] == node}
        self._at = {place: group for place, group in self._at.items() if id(group) not in lost}

    def tidy(self) -> None:
        """Give what has been idle for long, or is not there any more, back to the cluster."""
        before = self._clock() - IDLE_SECONDS
        for group in list(self._groups):
            gone = not any(self._at.get(place) is group for place in group.places)
            if not group.runs and (gone or group.idle_since < before):
                self._remove(group)

    def close(self) -> None:
        """Give everything back."""
        for group in list(self._groups):
            self._remove(group)

    def _ask(self, places: Sequence[Place]) -> None:
        group = ray.util.placement_group(
            [self._holds] * len(places),
            bundle_label_selector=[on_node(node) for node, _ in places],
        )
        asked = _Group(group, tuple(places))
        self._groups.append(asked)
        self._at |= dict.fromkeys(places, asked)

    def _remove(self, group: _Group) -> None:
        self._groups.remove(group)
        for place in group.places:
            if self._at.get(place) is group:
                del self._at[place]
        with contextlib.suppress(Exception):  # its node may have left
            ray.util.remove_placement_group(group.group)
