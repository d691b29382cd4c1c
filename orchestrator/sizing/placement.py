"""How many runs share a machine, and what each gets of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from orchestrator.sizing.choice import Host
from sweeps.errors import UserError
from sweeps.spec import RunSpec

# More CPUs than this beside a GPU gain a run nothing: its arithmetic is on the GPU.
MOST_CPUS = 8


@dataclass(frozen=True)
class Node:
    """A machine, and how much of it nobody holds now. ``memory`` is in bytes, as Ray counts it;
    ``gpu_bytes`` of its smallest GPU, None where that is not known; ``group`` the type of node that
    an autoscaler started."""

    name: str
    cpus: int
    gpus: int
    free_cpus: float = 0.0
    free_gpus: float = 0.0
    memory: float = 0.0
    gpu_bytes: float | None = None
    group: str = ""


@dataclass(frozen=True)
class Placement:
    """What a run of one process holds: a GPU and the CPUs beside it, or one CPU where no node has
    GPUs.

    ``threads`` is how many CPU threads its arithmetic uses. On a CPU it is one, whatever the
    machine: the order of a parallel reduction depends on the thread count, and with it the last
    bits of every row.
    """

    gpus: bool
    cpus: int

    @property
    def threads(self) -> int:
        return self.cpus if self.gpus else 1

    def holds(self, share: float = 1.0, memory: float = 0.0) -> dict[str, float]:
        """Return the resources of a rank as Ray names them, for a share of a GPU and so many bytes
        of the machine's memory."""
        if not self.gpus:
            return {"CPU": 1.0}
        return {"GPU": share, "CPU": self.cpus * share, "memory": float(int(memory))}

    def size_of(self, node: Node) -> int:
        """Return how many such runs a node has room for when nobody else uses it."""
        return min(node.gpus, node.cpus // self.cpus) if self.gpus else node.cpus

    def free_on(self, node: Node) -> float:
        """Return how many it has room for now."""
        return min(node.free_gpus, node.free_cpus / self.cpus) if self.gpus else node.free_cpus


def place(nodes: Sequence[Node]) -> Placement:
    """Return what runs hold on some nodes.

    Where any node has GPUs, runs go to those nodes only; the CPUs beside a GPU are what the node
    with the fewest has. Raises UserError for nodes with neither GPUs nor CPUs.
    """
    with_gpus = [node for node in nodes if node.gpus and node.cpus]
    if with_gpus:
        fewest = min(node.cpus // node.gpus for node in with_gpus)
        return Placement(True, max(1, min(fewest, MOST_CPUS)))
    if any(node.gpus for node in nodes):
        raise UserError("the nodes with GPUs offer no CPUs: start them with `--num-cpus`")
    if not any(node.cpus for node in nodes):
        raise UserError("the cluster has neither a GPU nor a CPU: add a node, or wait for one")
    return Placement(False, 1)


def pools(nodes: Sequence[Node], placement: Placement) -> dict[float | None, int]:
    """Return how many GPUs (or CPUs) there are of each size in bytes, None for a size not known."""
    found: dict[float | None, int] = {}
    for node in nodes:
        room = placement.size_of(node)
        if room:
            size = node.gpu_bytes if placement.gpus else None
            found[size] = found.get(size, 0) + room
    return found


def hosts(nodes: Sequence[Node], placement: Placement) -> dict[float | None, Host]:
    """Return of each size of GPU the machine that has most memory for each, where all say it."""
    found: dict[float | None, Host] = {}
    for node in nodes:
        room = placement.size_of(node)
        if not placement.gpus or not room or not all(other.memory for other in nodes):
            continue
        best = found.get(node.gpu_bytes)
        if best is None or node.memory / room > best.bytes / best.gpus:
            found[node.gpu_bytes] = Host(node.memory, room)
    return found


def rank_processes(run: RunSpec, slots: int) -> int:
    """Return how many ranks share a run of DeepSpeed: none of the plain engine's.

    Raises UserError when it asks for more than can run side by side.
    """
    execution = run.execution.settled()
    if execution.engine == "plain":
        return 0
    processes = execution.processes or 1
    if processes > slots:
        raise UserError(
            f"run {run.run_id} ({run.describe()}) needs {processes} processes and {slots} can run"
            f" side by side here: set `processes: {slots}`, or use a larger machine"
        )
    return processes


def with_half_the_micro_batch(spec: str) -> str | None:
    """Return a run's JSON with its micro-batch halved, or, where that does not divide the batch,
    with the next smaller one that does; None where there is none."""
    run = RunSpec.model_validate_json(spec)
    share = run.batch_size // (run.execution.processes or 1)
    less = range(run.micro_batch_size // 2, 0, -1)
    half = next((size for size in less if share % size == 0), None)
    if half is None:
        return None
    execution = run.execution.model_copy(update={"micro_batch_size": half})
    return run.model_copy(update={"execution": execution}).model_dump_json()
