"""GPUs that a plan is made for, as the command line says them: ``8x80``, ``64x80/8@1024``."""

from __future__ import annotations

import re
from dataclasses import dataclass

from orchestrator.sizing.choice import Host
from orchestrator.sizing.memory import GIB
from sweeps.errors import UserError

GPUS_PER_NODE = 8


@dataclass(frozen=True)
class GpuPool:
    """So many GPUs of so many GiB, on nodes of ``per_node`` (the last may have fewer), which have
    ``node_gib`` of memory, where that is said."""

    count: int
    gib: float
    per_node: int
    node_gib: float | None = None

    @property
    def host(self) -> Host | None:
        """Return a node as the runs on its GPUs share it."""
        return None if self.node_gib is None else Host(self.node_gib * GIB, self.per_node)

    @property
    def nodes(self) -> list[tuple[str, int]]:
        """Return the nodes, each with its name and how many GPUs it has."""
        sizes = [self.per_node] * (self.count // self.per_node)
        sizes += [self.count % self.per_node] if self.count % self.per_node else []
        return [(f"node {number}", size) for number, size in enumerate(sizes, start=1)]

    def __str__(self) -> str:
        several = f", {self.per_node} a node" if self.per_node < self.count else ""
        memory = "" if self.node_gib is None else f", nodes of {self.node_gib:g} GiB"
        return f"{self.count} GPUs of {self.gib:g} GiB{several}{memory}"


def gpu_pool(text: str) -> GpuPool:
    """Read ``COUNTxGIB`` (nodes of 8), ``COUNTxGIB/PER_NODE``, either with ``@NODE_GIB``, what a
    node has of memory; raise UserError for others."""
    number = r"(\d+(?:\.\d+)?)"
    found = re.fullmatch(rf"(\d+)x{number}(?:/(\d+))?(?:@{number})?", text.strip())
    if found is None:
        raise UserError(
            f"--gpus {text}: write 8x80 for 8 GPUs of 80 GiB, 64x80/4 for 4 a node, 8x80@1024 for"
            " nodes of 1024 GiB of memory"
        )
    count, gib = int(found[1]), float(found[2])
    per_node = int(found[3]) if found[3] else min(count, GPUS_PER_NODE)
    if gib < 1 or not 1 <= per_node <= count:
        raise UserError(
            f"--gpus {text}: at least one GPU of 1 GiB, and no more on a node than there are"
        )
    return GpuPool(count, gib, per_node, float(found[4]) if found[4] else None)
