"""How many runs share a machine, what each gets, and how a run of a large model is cut to fit."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from orchestrator.sizing.memory import GIB, Memory, ModelShape, estimate_memory, shape_of
from sweeps.errors import UserError
from sweeps.spec import Execution, RunSpec

# From this many parameters on a run goes through DeepSpeed.
LARGE = 1_000_000_000
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


def placed(run: RunSpec, gpu_bytes: float | None, gpus: int) -> RunSpec:
    """Return a run with the execution chosen for these GPUs; as it is where there are none."""
    if not gpus or gpu_bytes is None:
        return run
    choice = choose(run, gpu_bytes, gpus)
    return run if choice is None else run.model_copy(update={"execution": choice.execution})


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


@dataclass(frozen=True)
class Choice:
    """How one run is carried out, what a GPU then holds, and why nothing simpler was taken."""

    execution: Execution
    memory: Memory
    reason: str


def choose(run: RunSpec, gpu_bytes: float, gpus: int) -> Choice | None:
    """Return the simplest way to carry out a run on some GPUs; None for a model of unknown shape.

    Simplest first: one GPU, then more with ZeRO-2, ZeRO-3, then the optimizer and at last the
    weights in CPU memory; at each the largest micro-batch that fits, without activation
    checkpointing before with it. What the run's execution says is kept. Raises UserError with the
    numbers when nothing fits.
    """
    shape = shape_of(run)
    if shape is None:
        return None
    smallest: Choice | None = None
    for execution in _candidates(run, shape, gpus):
        memory = estimate_memory(run, shape, execution)
        if memory.total <= gpu_bytes:
            return Choice(execution, memory, _reason(shape, smallest, gpu_bytes))
        if smallest is None or memory.total < smallest.memory.total:
            smallest = Choice(execution, memory, "")
    if smallest is None:
        raise UserError(
            f"run {run.run_id} ({run.describe()}): no way to carry it out on {gpus} GPUs agrees"
            " with its settings; remove engine, processes, zero_stage or offload, or give more GPUs"
        )
    terms = sorted(smallest.memory.terms.items(), key=lambda term: -term[1])
    listed = ", ".join(f"{name} {size / GIB:.1f}" for name, size in terms if size >= 0.05 * GIB)
    raise UserError(
        f"run {run.run_id} ({run.describe()}) does not fit: at least"
        f" {smallest.memory.total / GIB:.1f} GiB of a GPU's {gpu_bytes / GIB:.1f}, with"
        f" {execution_text(smallest.execution)} ({listed} GiB). Lower sequence_length, use"
        " precision: bf16, or give more or larger GPUs"
    )


def _candidates(run: RunSpec, shape: ModelShape, gpus: int) -> Iterator[Execution]:
    """Yield ways to carry out a run that agree with what it says, simplest first."""
    said = run.execution
    counts = [n for n in range(1, gpus + 1) if run.batch_size % n == 0]
    ways: list[tuple[str, int, int | None, str]] = []
    if shape.parameters < LARGE or said.engine == "plain":
        ways.append(("plain", 1, None, "none"))
    ways += [("deepspeed", n, stage, "none") for stage in (2, 3) for n in counts]
    ways += [("deepspeed", n, 2, "optimizer") for n in counts]
    ways += [
        ("deepspeed", n, 3, offload) for offload in ("optimizer", "parameters") for n in counts
    ]
    if said.zero_stage in (0, 1):
        ways = [("deepspeed", n, said.zero_stage, said.offload or "none") for n in counts]
    for engine, processes, stage, offload in ways:
        fixed = {
            "engine": engine,
            "processes": processes,
            "zero_stage": stage,
            "offload": offload,
        }
        if any(getattr(said, k) not in (None, v) for k, v in fixed.items()):
            continue
        share = run.batch_size // processes
        micros = [n for n in range(share, 0, -1) if share % n == 0]
        checkpoints = [said.checkpoint_activations]
        if said.checkpoint_activations is None:
            checkpoints = [False, True]
        for again in checkpoints:
            for micro in [said.micro_batch_size] if said.micro_batch_size else micros:
                update = {**fixed, "micro_batch_size": micro, "checkpoint_activations": again}
                if share % micro == 0:
                    yield said.model_copy(update=update)


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


def _reason(shape: ModelShape, smallest: Choice | None, gpu_bytes: float) -> str:
    if smallest is None:
        return "from 1B parameters on" if shape.parameters >= LARGE else "the simplest fits"
    return (
        f"{execution_text(smallest.execution)} needs {smallest.memory.total / GIB:.1f}"
        f" of {gpu_bytes / GIB:.1f} GiB"
    )


def execution_text(execution: Execution) -> str:
    """Return how a run is carried out, in few words."""
    parts = ["plain"]
    if execution.engine == "deepspeed":
        parts = [f"ZeRO-{execution.zero_stage} on {execution.processes}"]
    if execution.offload not in (None, "none"):
        parts.append(f"{execution.offload} in CPU memory")
    parts.append(f"micro-batch {execution.micro_batch_size}")
    if execution.checkpoint_activations:
        parts.append("checkpointing")
    return ", ".join(parts)
