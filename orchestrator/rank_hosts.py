"""The hosts of rank processes, one on each node of the cluster, kept by the driver."""

from __future__ import annotations

import contextlib
from collections.abc import Collection
from typing import Any

from orchestrator.rank_host import RankHost
from orchestrator.ray_environment import ray


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
