"""Does the connected cluster grow by itself, and by which nodes? Asked before any node is there.

Ray 2.60 tells no one: ``state.get_cluster_config()``, which Ray Train and Ray Data ask, is None
(nothing in Ray reports one); ``get_cluster_status()`` and the v1 autoscaler's status name the nodes
there are, not the types; and a monitor runs on every head, with a provider called ``readonly``
where nothing can be started. What does say it, for both versions of the autoscaler and any provider
(KubeRay's container shares the folder of Ray's logs with the head's), is the configuration that the
monitor writes into its log as it starts: a second or two after the head. A task there reads it.
"""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from orchestrator.connection.ray_environment import ray

ANSWER_SECONDS = 60.0
HEAD = "node:__internal_head__"
ACCELERATOR_LABEL = "ray.io/accelerator-type"
NODE_GROUP_LABEL = "ray.io/node-group"
# What profiles of cluster/ give their nodes.
GPU_GIB_LABEL = "depthsweep/gpu-gib"
# v2 as YAML on the lines that follow, v1 as one line of Python.
_CONFIGURATION = re.compile(
    r"Using Autoscaling Config: \n(?P<yaml>.*?)(?=^\d{4}-\d\d-\d\d |\Z)"
    r"|StandardAutoscaler: (?P<python>\{[^\n]*\})$",
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True)
class NodeShape:
    """A type of node that an autoscaler may start; ``most`` is how many there may be at once.

    ``memory`` is the host's in bytes, ``accelerator`` Ray's name of the GPU (A100, L4), ``gpu_gib``
    the memory of each; None where the type does not say. A demand for memory, or for a type of GPU,
    brings no node of a type that does not say it.
    """

    name: str
    cpus: int
    gpus: int
    memory: int | None
    accelerator: str | None
    gpu_gib: float | None
    most: int


@dataclass(frozen=True)
class Growth:
    """What an autoscaler may bring: types of nodes, and how many over all types."""

    shapes: tuple[NodeShape, ...]
    most: int

    def left(self, present: Mapping[str, int]) -> dict[NodeShape, int]:
        """Return how many nodes of each type may still come beside those ``present`` by type.

        The numbers are bounds of each type by itself: together they may be more than ``most``
        leaves. Types of which none may come are left out.
        """
        room = max(0, self.most - sum(present.get(shape.name, 0) for shape in self.shapes))
        left = ((shape, shape.most - present.get(shape.name, 0)) for shape in self.shapes)
        return {shape: min(room, count) for shape, count in left if min(room, count) > 0}


def growth() -> Growth | None:
    """Return what the connected cluster may grow by; None without an autoscaler that can.

    A task on the head: 0.6 s, 6 ms when asked again. What cannot be read, for whatever reason, is
    None too: a sweep can do without, told how many GPUs it may wait for.
    """
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    try:
        alive = [node for node in ray.nodes() if node["Alive"]]
        head = next(node["NodeID"] for node in alive if HEAD in node["Resources"])
        ask = ray.remote(num_cpus=0, max_retries=0)(growth_in_log).options(
            scheduling_strategy=NodeAffinitySchedulingStrategy(head, soft=False)
        )
        found = ray.get(ask.remote(), timeout=ANSWER_SECONDS)
        return found if isinstance(found, Growth) else None
    except Exception:
        return None


def nodes_by_type() -> Counter[str]:
    """Return how many nodes of each type are alive, as ``Growth.left`` wants them."""
    alive = (node["Labels"] for node in ray.nodes() if node["Alive"])
    return Counter(labels.get(NODE_GROUP_LABEL, "") for labels in alive)


def growth_in_log() -> Growth | None:
    """Return the growth of the configuration that this node's monitor has logged last, or None.

    Only what it says of growth leaves the head: the rest may name keys and accounts.
    """
    from ray._private import worker

    log = Path(worker._global_node.get_logs_dir_path()) / "monitor.log"
    return growth_of(last_configuration(log.read_text(encoding="utf-8", errors="replace")))


def last_configuration(log: str) -> dict[str, Any] | None:
    """Return the last configuration in the text of a monitor's log, or None."""
    said: Any = None
    for found in _CONFIGURATION.finditer(log):
        python, text = found["python"], found["yaml"]
        said = ast.literal_eval(python) if python else yaml.safe_load(text)
    return said if isinstance(said, dict) else None


def growth_of(configuration: Mapping[str, Any] | None) -> Growth | None:
    """Return the growth that an autoscaler's configuration allows; None where it is none."""
    if not configuration or configuration["provider"]["type"] == "readonly":
        return None
    types = configuration["available_node_types"]
    head = configuration.get("head_node_type")
    shapes = tuple(
        _shape(name, kind)
        for name, kind in types.items()
        if name != head and kind.get("max_workers", 0) > 0
    )
    every = sum(shape.most for shape in shapes)
    most = min(every, configuration.get("max_workers", every))
    return Growth(shapes, most) if most > 0 else None


def _shape(name: str, kind: Mapping[str, Any]) -> NodeShape:
    resources = kind.get("resources", {})
    named = [key.partition(":")[2] for key in resources if key.startswith("accelerator_type:")]
    labels = kind.get("labels", {})
    memory, gib = resources.get("memory"), labels.get(GPU_GIB_LABEL)
    return NodeShape(
        name=name,
        cpus=int(resources.get("CPU", 0)),
        gpus=int(resources.get("GPU", 0)),
        memory=int(memory) if memory else None,
        accelerator=labels.get(ACCELERATOR_LABEL) or next(iter(named), None),
        gpu_gib=float(gib) if gib else None,
        most=int(kind["max_workers"]),
    )
