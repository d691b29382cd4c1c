"""What runs hold of the cluster: placement groups, kept by the driver and used again.

A group of the same shape on the same nodes is handed from one run to the next. One of another shape
is asked for once Ray knows that what was given back is free. Measured on Ray 2.60: asked for within
0.1 s of another group's removal, it finds the node still full, and waits a second for the next try.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from orchestrator.rank_hosts import on_node
from orchestrator.ray_environment import ray

# After so long it is asked for in any case: others may have taken what was free.
SETTLE_SECONDS = 1.0
# A group that nobody used for so long goes back to the cluster, which others may share.
IDLE_SECONDS = 2.0
ROUNDING = 1e-6


@dataclass(frozen=True)
class Shape:
    """A bundle on each of ``nodes`` (one a rank), with CPUs and a share of a GPU in each."""

    nodes: tuple[str, ...]
    cpus: float
    gpus: float


def free_resources() -> dict[str, dict[str, float]]:
    """Return what each node has free as the scheduler of placement groups knows it."""
    from ray._private.state import available_resources_per_node

    found: dict[str, dict[str, float]] = available_resources_per_node()
    return found


class Reservations:
    """Hands out placement groups; ``clock`` is in seconds, ``free`` as ``free_resources``."""

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        free: Callable[[], dict[str, dict[str, float]]] = free_resources,
    ) -> None:
        self._clock = clock
        self._free = free
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
        settling = [
            node
            for node in dict.fromkeys(shape.nodes)
            if now - self._removed.get(node, -SETTLE_SECONDS) < SETTLE_SECONDS
        ]
        if settling and not self._room(shape, settling):
            return None
        bundle = {"CPU": shape.cpus, **({"GPU": shape.gpus} if shape.gpus else {})}
        group = ray.util.placement_group(
            [bundle] * len(shape.nodes),
            bundle_label_selector=[on_node(node) for node in shape.nodes],
        )
        self._held[run_id] = (shape, group)
        return group

    def _room(self, shape: Shape, nodes: list[str]) -> bool:
        free = self._free()
        for node in nodes:
            ranks = shape.nodes.count(node)
            has = free.get(node, {})
            if has.get("CPU", 0.0) < ranks * shape.cpus - ROUNDING:
                return False
            if has.get("GPU", 0.0) < ranks * shape.gpus - ROUNDING:
                return False
        return True

    def give_back(self, run_id: str, whole: bool = True) -> None:
        """Take back what a run held; not ``whole`` where a node or process of it was lost."""
        shape, group = self._held.pop(run_id)
        if whole:
            self._idle.append((self._clock(), shape, group))
        else:
            self._remove_group(shape, group)

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
            self._remove_group(shape, group)
        self._idle = left

    def _remove_group(self, shape: Shape, group: Any) -> None:
        with contextlib.suppress(Exception):  # its node may have left
            ray.util.remove_placement_group(group)
        self._removed |= dict.fromkeys(shape.nodes, self._clock())
