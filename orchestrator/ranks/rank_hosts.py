"""The hosts of rank processes, one on each node of the cluster, kept by the driver."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Collection
from typing import Any

from orchestrator.connection.ray_environment import ray
from orchestrator.ranks.rank_host import RankHost

# Measured on Ray 2.60: 10 to 15 s pass until a node whose raylet was killed is said to be dead.
# One that is said to be alive for so long without an answer is given runs again; they may be lost.
DOUBT_SECONDS = 60.0


def host_name(node: str) -> str:
    """Return the name under which a job's actors find the host of a node."""
    return f"depthsweep-ranks-{node}"


def on_node(node: str) -> dict[str, str]:
    """Return the labels that a bundle on this node, and no other, selects."""
    return {"ray.io/node-id": node}


class RankHosts:
    """A host on every node there is; they end with the driver, or when this is closed."""

    def __init__(self) -> None:
        self._hosts: dict[str, Any] = {}
        self._doubted: dict[str, tuple[Any, float]] = {}

    def follow(self, nodes: Collection[str]) -> None:
        """Start a host on each new node; forget those of nodes that left."""
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        for node in [node for node in self._hosts if node not in nodes]:
            _kill(self._hosts.pop(node))
        for node in nodes:
            if node in self._hosts:
                continue
            self._hosts[node] = (
                ray.remote(RankHost)
                .options(
                    name=host_name(node),
                    num_cpus=0,
                    max_restarts=-1,
                    scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False),
                )
                .remote()
            )
            self._hosts[node].ready.remote()

    def assign(self, node: str, trial: str, run: dict[str, Any]) -> None:
        """Give a trial that waits on a node its run; an empty one says that there will be none."""
        if node in self._hosts:
            self._hosts[node].assign.remote(trial, run)

    def doubt(self, nodes: Collection[str]) -> None:
        """Ask nodes on which a run was lost whether they are there, without waiting for it."""
        for node in nodes:
            if node in self._hosts:
                since = self._doubted.get(node, (None, time.monotonic()))[1]
                self._doubted[node] = (self._hosts[node].ready.remote(), since)

    def doubted(self, node: str) -> bool:
        """Return whether a node has not answered yet; its host may be gone, and be started again.

        Ray says of a node that has gone that it is alive for a while: a run that is started there
        would only be lost again.
        """
        if node not in self._doubted:
            return False
        asked, since = self._doubted[node]
        if node in self._hosts and time.monotonic() < since + DOUBT_SECONDS:
            if not ray.wait([asked], timeout=0)[0]:
                return True
            try:
                ray.get(asked)
            except ray.exceptions.RayError:
                self.doubt([node])
                return True
        del self._doubted[node]
        return False

    def end(self, run_id: str) -> None:
        """Kill what there is of a run anywhere, without waiting for it."""
        for host in self._hosts.values():
            host.end.remote(run_id)

    def close(self) -> None:
        """End all hosts, and with them their processes."""
        for host in self._hosts.values():
            _kill(host)
        self._hosts.clear()


def _kill(host: Any) -> None:
    with contextlib.suppress(Exception):
        ray.kill(host)
