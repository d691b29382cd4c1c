"""What one rank of a run is given of the cluster."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Slot:
    """A bundle of a placement group on a node, with a GPU or without; runs may share one."""

    node: str
    group: Any
    bundle: int
    gpu: bool
