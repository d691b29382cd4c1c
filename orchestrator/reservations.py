"""What runs hold of the cluster: placement groups, kept by the driver and used again.

A group of the same shape on the same nodes is handed from one run to the next. One of another shape
has to wait a moment for what was given back: measured on Ray 2.60, a group that is asked for within
0.1 s of another one's removal finds the node still full, and is next looked at a second later.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from orchestrator.rank_hosts import on_node
from orchestrator.ray_environment import ray

SETTLE_SECONDS = 0.12
# A group that nobody used for so long goes back to the cluster, which others may share.
IDLE_SECONDS = 2.0


@dataclass(frozen=True)
class Shape:
    """A bundle on each of ``nodes`` (one a rank), with CPUs and a share of a GPU in each."""

    nodes: tuple[str, ...]
    cpus: float
    gpus: float


class Reservations:
    """Hands out placement groups; ``clock`` is in seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._held: dict[str, tuple[Shape, Any]] = {}
        self._idle: list[tuple[float, Shape, Any]] = []
        self._removed: dict[str, float] = {}

    def take(self, run_id: str, shape: Shape) -> Any | None:
        """Return a group for a run, or None to be asked again in a moment.

        What the shape needs must be free but for groups that nobody uses.
        """
        now = self._clock()
        for place, (_, other, group) in enumerate(self._idle):
            if other == shape:
                del self._idle[place]
                self._held[run_id] = (shape, group)
                return group
        self._remove(lambda _, other: not set(shape.nodes).isdisjoint(other.nodes))
        if any(
            now - self._removed.get(node, -SETTLE_SECONDS) < SETTLE_SECONDS for node in shape.nodes
        ):
            return None
        bundle = {"CPU": shape.cpus, **({"GPU": shape.gpus} if shape.gpus else {})}
        group = ray.util.placement_group(
            [bundle] * len(shape.nodes),
            bundle_label_selector=[on_node(node) for node in shape.nodes],
        )
        self._held[run_id] = (shape, group)
        return group

    def give_back(self, run_id: str, whole: bool = True) -> None:
        """Take back what a run held; not ``whole`` where a node or process of it was lost."""
        shape, group = self._held.pop(run_id)
        self._idle.append((self._clock(), shape, group))
        if not whole:
            self._remove(lambda _, other: other is shape)

    def tidy(self) -> None:
        """Give what has been idle for long back to the cluster."""
        before = self._clock() - IDLE_SECONDS
        self._remove(lambda since, _: since < before)

    def close(self) -> None:
        """Give everything back."""
        for run_id in list(self._held):
            self.give_back(run_id)
        self._remove(lambda *_: True)

    def _remove(self, chosen: Callable[[float, Shape], bool]) -> None:
        left = []
        for since, shape, group in self._idle:
            if not chosen(since, shape):
                left.append((since, shape, group))
                continue
            with contextlib.suppress(Exception):  # its node may have left
                ray.util.remove_placement_group(group)
            self._removed |= dict.fromkeys(shape.nodes, self._clock())
        self._idle = left
