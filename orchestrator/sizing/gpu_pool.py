"""GPUs that a plan is made for, as the command line says them: ``8x80``, ``64x80/8``."""

from __future__ import annotations

import re
from dataclasses import dataclass

from sweeps.errors import UserError

GPUS_PER_NODE = 8


@dataclass(frozen=True)
class GpuPool:
    """So many GPUs of so many GiB, on nodes of ``per_node`` (the last may have fewer)."""

    count: int
    gib: float
    per_node: int

    @property
    def nodes(self) -> list[tuple[str, int]]:
        """Return the nodes, each with its name and how many GPUs it has."""
        sizes = [self.per_node] * (self.count // self.per_node)
        sizes += [self.count % self.per_node] if self.count % self.per_node else []
        return [(f"node {number}", size) for number, size in enumerate(sizes, start=1)]

    def __str__(self) -> str:
        several = f", {self.per_node} a node" if self.per_node < self.count else ""
        return f"{self.count} GPUs of {self.gib:g} GiB{several}"


def gpu_pool(text: str) -> GpuPool:
    """Read ``COUNTxGIB`` (nodes of 8) or ``COUNTxGIB/PER_NODE``; raise UserError for others."""
    found = re.fullmatch(r"(\d+)x(\d+(?:\.\d+)?)(?:/(\d+))?", text.strip())
    if found is None:
        raise UserError(f"--gpus {text}: write 8x80 for 8 GPUs of 80 GiB, 64x80/4 for 4 a node")
    count, gib = int(found[1]), float(found[2])
    per_node = int(found[3]) if found[3] else min(count, GPUS_PER_NODE)
    if gib < 1 or not 1 <= per_node <= count:
        raise UserError(
            f"--gpus {text}: at least one GPU of 1 GiB, and no more on a node than there are"
        )
    return GpuPool(count, gib, per_node)
