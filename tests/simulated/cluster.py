"""A cluster and its Ray that are not there, event by event: nodes that come, go and are full.

This Ray places what it is asked for by rules of its own: in the order it was asked, whatever fits,
on the node that was wished for where that has room, else on the first that has (or one drawn).
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING

from orchestrator.policy.occupancy import UNITS
from orchestrator.sizing.memory import GIB
from orchestrator.sizing.placement import Node
from orchestrator.tuning.cluster_view import View

if TYPE_CHECKING:
    from tests.simulated.sweep import SimulatedSweep, Trial


@dataclass(eq=False)
class Asked:
    """What somebody has asked this Ray for: units on each of so many GPUs; where it was put."""

    units: int
    gpus: int
    placed: Callable[[], None]
    wished: str | None = None
    barred: tuple[str, ...] = ()
    spread: bool = False
    owner: Trial | None = None
    group: str = ""
    seats: list[tuple[str, int]] = field(default_factory=list)


class SimulatedRay:
    """Nodes of so many GPUs, a clock, and who holds what. ``brings`` is how many nodes of which
    size an autoscaler may start, each after ``bring_seconds`` once something waits in vain; what
    was given back is free after ``leave_seconds``."""

    def __init__(
        self,
        nodes: Mapping[str, int],
        brings: tuple[int, int] = (0, 0),
        bring_seconds: float = 60.0,
        draw: random.Random | None = None,
        leave_seconds: float = 0.0,
    ) -> None:
        self.now = 0.0
        self.free = {name: [UNITS] * gpus for name, gpus in nodes.items()}
        self.asked: list[Asked] = []
        self.sweeps: list[SimulatedSweep] = []
        self.broken: dict[str, str] = {}
        self._brings, self._bring_seconds, self._draw = brings, bring_seconds, draw
        self._leave_seconds = leave_seconds
        self._brought: list[str] = []
        self._coming = 0
        self.leaving: set[str] = set()
        self._moments: list[tuple[float, int, Callable[[], None]]] = []
        self._number = count()

    # ------------------------------------------------------------------------------------- events
    def at(self, moment: float, do: Callable[[], None]) -> None:
        """Have something happen at a moment."""
        heapq.heappush(self._moments, (max(self.now, moment), next(self._number), do))

    def run(self, until: float = 1e6) -> None:
        """Let time pass until every sweep has ended, or some moment."""
        while self.now < until and not all(sweep.over for sweep in self.sweeps):
            second = self.now + 1.0
            while self._moments and self._moments[0][0] <= second:
                self.now, _, do = heapq.heappop(self._moments)
                do()
                self.place()
                for sweep in self.sweeps:
                    sweep.turn()
            self.now = second
            self.place()  # what finds a place at once brings no node
            self._scale()
            for sweep in self.sweeps:
                sweep.turn()

    def join(self, name: str, gpus: int) -> None:
        self.free[name] = [UNITS] * gpus

    def leave(self, name: str) -> None:
        """A node is gone, and with it every process that had a part there."""
        del self.free[name]
        if name in self._brought:
            self._brought.remove(name)
        for one in [one for one in self.asked if any(node == name for node, _ in one.seats)]:
            self.give_back(one)
            if one.owner is not None:
                one.owner.sweep.is_lost(one.owner, f"node {name} died")

    def _scale(self) -> None:
        most, size = self._brings
        wanted = sum(one.units * one.gpus for one in self.asked if not one.seats) / UNITS
        while self._coming * size < wanted and len(self._brought) + self._coming < most:
            self._coming += 1
            self.at(self.now + self._bring_seconds, self._bring)

    def _bring(self) -> None:
        self._coming -= 1
        name = f"brought {next(self._number)}"
        self._brought.append(name)
        self.join(name, self._brings[1])

    # ---------------------------------------------------------------------------- who holds what
    def hold(self, gpus: int, on: str | None = None) -> Asked:
        """Have a tenant, who is nobody's run, ask for GPUs of one node."""
        one = Asked(UNITS, gpus, lambda: None, on)
        self.asked.append(one)
        self.place()
        return one

    def give_back(self, one: Asked) -> None:
        if one not in self.asked:
            return  # its node is gone
        self.asked.remove(one)
        if not self._leave_seconds:
            self._free(one)
            return
        self.leaving.add(one.group)
        self.at(self.now + self._leave_seconds, lambda: self._free(one))

    def _free(self, one: Asked) -> None:
        self.leaving.discard(one.group)
        for node, gpu in one.seats:
            if node in self.free:
                self.free[node][gpu] += one.units

    @property
    def brought(self) -> int:
        """How many nodes the autoscaler has brought, or is bringing."""
        return len(self._brought) + self._coming

    def place(self) -> None:
        for one in [one for one in self.asked if not one.seats]:
            one.seats = self._seats(one)
            for node, gpu in one.seats:
                self.free[node][gpu] -= one.units
                assert self.free[node][gpu] >= 0
            if one.seats:
                one.placed()

    def _seats(self, one: Asked) -> list[tuple[str, int]]:
        names = [name for name in self.free if name not in one.barred]
        if self._draw is not None:
            self._draw.shuffle(names)
        names.sort(key=lambda name: name != one.wished)
        room = {
            name: [(name, gpu) for gpu, free in enumerate(self.free[name]) if free >= one.units]
            for name in names
        }
        for gpus in room.values():
            if self._draw is not None:
                self._draw.shuffle(gpus)
            else:  # the fullest GPU that has room, as Ray does
                gpus.sort(key=lambda seat: self.free[seat[0]][seat[1]])
        if one.spread:
            every = [seat for name in names for seat in room[name]]
            return every[: one.gpus] if len(every) >= one.gpus else []
        return next((room[n][: one.gpus] for n in names if len(room[n]) >= one.gpus), [])

    def view(self, seen_by: SimulatedSweep) -> View:
        """Return what a sweep is told when it looks."""
        waiting = {one.owner.sweep for one in self.asked if not one.seats and one.owner is not None}
        most, size = self._brings
        return View(
            [node(name, gpus) for name, gpus in self.free.items() if name not in self.broken],
            dict(self.broken),
            [node(f"to come {k}", [0] * size) for k in range(most - len(self._brought))],
            len(waiting - {seen_by}),
        )


def node(name: str, gpus: Sequence[int]) -> Node:
    """Return a node as it is seen, by the units that are free on each of its GPUs."""
    free = sum(gpus) / UNITS
    return Node(name, len(gpus), len(gpus), free, free, gpu_bytes=80 * GIB)
