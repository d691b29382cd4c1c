"""What an admission looks at of the cluster it is on: its nodes, what an autoscaler may bring, and
whether other sweeps wait."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace

from orchestrator.connection.autoscaler import growth, nodes_by_type
from orchestrator.connection.nodes import cluster_nodes
from orchestrator.connection.ray_environment import ray
from orchestrator.ranks.node_probe import NodeProbes
from orchestrator.sizing.memory import GIB
from orchestrator.sizing.placement import Node
from sweeps.errors import UserError

# Placement groups of all sweeps are named by it, those of this one with a number of its own.
PREFIX = "depthsweep-"
# How often others are looked for: Ray's table of placement groups has all there ever were.
OTHERS_SECONDS = 5.0
POLL_SECONDS = 1.0
# How long after a cluster's head its autoscaler may take to say what it can bring.
MONITOR_SECONDS = 15.0
# How long after a placement group was removed its nodes may take to say that they are free.
FREED_SECONDS = 0.5


@dataclass(frozen=True)
class View:
    """One look: the nodes that may carry out runs, those that must not and why, those that an
    autoscaler may bring beside, and how many sweeps wait beside this one."""

    nodes: Sequence[Node]
    wrong: dict[str, str]
    to_come: Sequence[Node] = ()
    waiting: int = 0


class OwnCluster:
    """The Ray that this process started for itself: nobody else uses it, and it does not change."""

    group = ""

    def __init__(self, living: Callable[[], Sequence[Node]], gpu_bytes: float | None) -> None:
        self._living = living
        self._gpu_bytes = gpu_bytes

    def look(self) -> View:
        """Return what there is; raises RayDied where this Ray is gone."""
        # What processes hold that wait for their next run is not held by others.
        nodes = [
            replace(node, gpu_bytes=self._gpu_bytes, free_cpus=node.cpus, free_gpus=node.gpus)
            for node in self._living()
        ]
        return View(nodes, {})

    def doubt(self, node: str, why: str) -> None:
        """Nothing: there is no other node, and the store is watched from here."""

    def leaving(self, groups: Collection[str]) -> set[str]:
        """Return none: nobody brings another node meanwhile."""
        del groups
        return set()


class SharedCluster:
    """A cluster that others may use, too, and that nodes join and leave.

    Where it can grow, what may come is looked at along with what there is.
    """

    def __init__(self, location: str, store_id: str, most_gpus: int | None = None) -> None:
        self._probes = NodeProbes(location, store_id)
        self.group = f"{PREFIX}{secrets.token_hex(4)}-"
        self._growth = growth()
        self._most_gpus = most_gpus
        self._others = 0
        self._looked = float("-inf")
        self._removed_at: dict[str, float] = {}

    def first_look(self, say: Callable[[str], None]) -> View:
        """Return what there is once there is a node, and every node has said whether it can carry
        out runs. Where there is none and an autoscaler may bring one, it is asked for and waited
        for, which ``say`` is told.

        Raises UserError where no node can carry out runs, or none is to be had.
        """
        if not _workers():
            self._bring_one(say)
        self._probes.wait([node.name for node in _workers()])
        view = self.look()
        if not view.nodes and view.wrong:
            node, wrong = next(iter(view.wrong.items()))
            raise UserError(f"no node of the cluster can carry out runs; {node[:12]}: {wrong}")
        return view

    def doubt(self, node: str, why: str) -> None:
        """Have no run on a node before it has shown that it sees the store: it is asked again."""
        self._probes.doubt(node, why)

    def leaving(self, groups: Collection[str]) -> set[str]:
        """Return those of some placement groups whose place is not free yet, where an autoscaler
        would bring another node for what is asked for meanwhile, and GPUs are limited."""
        if self._growth is None or self._most_gpus is None or not groups:
            return set()
        now = time.monotonic()
        held = {
            table["name"]
            for table in ray.util.placement_group_table().values()
            if table["state"] != "REMOVED"
        }
        removed = {group: self._removed_at.get(group, now) for group in set(groups) - held}
        self._removed_at = removed
        return {one for one in groups if now - removed.get(one, now) < FREED_SECONDS}

    def _bring_one(self, say: Callable[[str], None]) -> None:
        """Ask for a first node, and wait for it: what it is decides how runs are cut."""
        until = time.monotonic() + MONITOR_SECONDS
        while self._growth is None and time.monotonic() < until:
            time.sleep(POLL_SECONDS)
            self._growth = growth()
        shapes = self._growth.shapes if self._growth else ()
        if not shapes and self._most_gpus is None:
            raise UserError(
                "the cluster has neither a GPU nor a CPU, and nothing that brings nodes: add one,"
                " or say with --max-gpus how many GPUs to wait for"
            )
        gpus = not shapes or any(shape.gpus for shape in shapes)
        what = "GPU" if gpus else "CPU"
        say(f"waiting: the cluster has no {what} yet; a node was asked for")
        wanted = {"GPU": 1.0, "CPU": 1.0} if gpus else {"CPU": 1.0}
        group = ray.util.placement_group([wanted], name=f"{self.group}first-node")
        try:
            while not _workers():
                time.sleep(POLL_SECONDS)
        finally:
            ray.util.remove_placement_group(group)

    def look(self) -> View:
        """Return what there is; a node that has not answered yet is not among it."""
        found = _workers()
        self._probes.follow([node.name for node in found])
        facts = self._probes.facts
        wrong = {name: fact.wrong for name, fact in facts.items() if fact.wrong is not None}
        nodes = [
            replace(node, gpu_bytes=facts[node.name].gpu_bytes)
            for node in found
            if node.name in facts and node.name not in wrong
        ]
        return View(nodes, wrong, self._to_come(), self._others_waiting())

    def _to_come(self) -> list[Node]:
        """Return a node for each that may still come."""
        if self._growth is None:
            return []
        return [
            Node(
                name=f"{shape.name} {number}",
                cpus=shape.cpus,
                gpus=shape.gpus,
                memory=float(shape.memory or 0),
                gpu_bytes=shape.gpu_gib and shape.gpu_gib * GIB,
                group=shape.name,
            )
            for shape, count in self._growth.left(nodes_by_type()).items()
            for number in range(count)
        ]

    def _others_waiting(self) -> int:
        """Return how many other sweeps wait for a placement group now."""
        if time.monotonic() - self._looked > OTHERS_SECONDS:
            self._looked = time.monotonic()
            self._others = len(
                {
                    table["name"][: len(self.group)]
                    for table in ray.util.placement_group_table().values()
                    if table["state"] in ("PENDING", "RESCHEDULING")
                    and table["name"].startswith(PREFIX)
                    and not table["name"].startswith(self.group)
                }
            )
        return self._others


def _workers() -> list[Node]:
    return [node for node in cluster_nodes() if node.cpus or node.gpus]
