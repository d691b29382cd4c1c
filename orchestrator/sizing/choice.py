"""How a run is cut to fit: the simplest way that the GPUs and their machines hold."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from orchestrator.sizing.cost import parameter_count
from orchestrator.sizing.memory import GIB, Memory, engine_of, memory_of
from orchestrator.sizing.traces import alike, footprint_of, require_usable, size_of
from sweeps.errors import UserError
from sweeps.sources.catalog import by_hub
from sweeps.spec import Execution, HubModel, LayerRates, ModelSource, RunSpec, StandinModel

# From this many parameters on a run goes through DeepSpeed.
LARGE = 1_000_000_000


@dataclass(frozen=True)
class Host:
    """A machine that GPUs are in: bytes of its memory, and how many GPUs."""

    bytes: float
    gpus: int

    def needs(self, memory: Memory, execution: Execution) -> float:
        """Return the bytes that the ranks of a run take of it, as many as it has GPUs for."""
        return memory.host * min(execution.processes or 1, self.gpus)


def placed(run: RunSpec, gpu_bytes: float | None, gpus: int, host: Host | None = None) -> RunSpec:
    """Return a run with the execution chosen for these GPUs; as it is where there are none."""
    if not gpus or gpu_bytes is None:
        return run
    choice = choose(run, gpu_bytes, gpus, host)
    return run if choice is None else run.model_copy(update={"execution": choice.execution})


@dataclass(frozen=True)
class Choice:
    """How one run is carried out, what a GPU then holds, and why nothing simpler was taken."""

    execution: Execution
    memory: Memory
    reason: str


def choose(run: RunSpec, gpu_bytes: float, gpus: int, host: Host | None = None) -> Choice | None:
    """Return the simplest way to carry out a run on some GPUs; None for a model of unknown size.

    Simplest first: one GPU, then more with ZeRO-2, ZeRO-3, then the optimizer and at last the
    weights in CPU memory; at each the largest micro-batch that fits, without activation
    checkpointing before with it. What the run's execution says is kept. ``host`` is the machine
    that the GPUs are in, where that is known. Raises UserError with the numbers when nothing fits.
    """
    parameters = _parameters(run)
    if parameters is None:
        return None
    ways = 0
    smallest: Choice | None = None
    cramped: Choice | None = None
    for execution in _candidates(run, parameters, gpus):
        ways += 1
        memory = _memory(run, execution)
        if memory is None:
            continue
        if memory.total > gpu_bytes:
            if smallest is None or memory.total < smallest.memory.total:
                smallest = Choice(execution, memory, "")
        elif host is not None and host.needs(memory, execution) > host.bytes:
            if cramped is None or memory.host < cramped.memory.host:
                cramped = Choice(execution, memory, "")
        else:
            reason = _reason(run, parameters, smallest, gpu_bytes)
            return Choice(execution, memory, reason)
    if not ways:
        raise UserError(
            f"run {run.run_id} ({run.describe()}): no way to carry it out on {gpus} GPUs agrees"
            " with its settings; remove engine, processes, zero_stage or offload, or give more GPUs"
        )
    if cramped is not None and host is not None:
        raise _too_little_host(run, cramped, host)
    if smallest is None:
        return None
    terms = sorted(smallest.memory.terms.items(), key=lambda term: -term[1])
    listed = ", ".join(f"{name} {size / GIB:.1f}" for name, size in terms if size >= 0.05 * GIB)
    raise UserError(
        f"run {run.run_id} ({run.describe()}) does not fit: at least"
        f" {smallest.memory.total / GIB:.1f} GiB of a GPU's {gpu_bytes / GIB:.1f}, with"
        f" {execution_text(smallest.execution)} ({listed} GiB). {_remedy(run)}"
    )


def _remedy(run: RunSpec) -> str:
    if run.optimizer.whole_matrices:
        return f"Give larger GPUs, or another optimizer than {run.optimizer.rule}, which needs one"
    return "Lower sequence_length, use precision: bf16, or give more or larger GPUs"


def require_feasible(runs: Iterable[RunSpec]) -> None:
    """Raise UserError where a run's model says, by its code or its files, that it cannot be
    carried out.

    A step of each is traced, once for those that are alike, and model folders are read. Stand-ins
    are ours, and the catalogue's models have been tried: they are not asked, but for dropout, which
    not all have, and for what of them a run names.
    """
    seen: set[str] = set()
    for run in runs:
        _require_rates(run)
        if _tried(run.model.source) and not (run.dropout or run.says_what_is_trained):
            continue
        shape = alike(run.model_copy(update={"steps": 1}))
        if shape in seen:
            continue
        seen.add(shape)
        require_usable(run)
        parameters = _parameters(run)
        if parameters is not None:
            said = run.execution.settled()
            large = parameters >= LARGE and run.execution.engine != "plain"
            large = large and not run.optimizer.whole_matrices
            engine = "deepspeed" if large else engine_of(said)
            again = bool(said.checkpoint_activations)
            footprint_of(run, engine, again, run.execution.micro_batch_size or run.batch_size)


def _require_rates(run: RunSpec) -> None:
    """Refuse a list of rates that is not as long as the model has layers."""
    if not isinstance(run.control, LayerRates) or not isinstance(run.control.rates, tuple):
        return
    size = size_of(run)
    if size is not None:
        try:
            run.control.require_blocks(int(size["layers"]))
        except ValueError as error:
            raise UserError(f"run {run.run_id} ({run.describe()}): {error}") from None


def _tried(source: ModelSource) -> bool:
    if isinstance(source, HubModel):
        return by_hub(source.hub) is not None
    return isinstance(source, StandinModel)


def _parameters(run: RunSpec) -> int | None:
    """Return how many parameters a run's model has, from its files or its configuration."""
    known = parameter_count(run.model.source)
    if known is not None:
        return known
    size = size_of(run)
    return None if size is None else int(size["parameters"])


def _memory(run: RunSpec, execution: Execution) -> Memory | None:
    """Return what a way of carrying out a run takes; None where it is unknown, or where the model
    cannot compute its activations again, which nobody asked for."""
    try:
        return memory_of(run, execution)
    except UserError:
        if execution.checkpoint_activations and not run.execution.checkpoint_activations:
            return None
        raise


def _too_little_host(run: RunSpec, cramped: Choice, host: Host) -> UserError:
    needs = host.needs(cramped.memory, cramped.execution)
    return UserError(
        f"run {run.run_id} ({run.describe()}) does not fit: {execution_text(cramped.execution)}"
        f" needs {needs / GIB:.1f} GiB of a machine's memory, which has {host.bytes / GIB:.1f}."
        " Give more GPUs, or machines with more memory"
    )


def _candidates(run: RunSpec, parameters: int, gpus: int) -> Iterator[Execution]:
    """Yield ways to carry out a run that agree with what it says, simplest first."""
    said = run.execution
    counts = [n for n in range(1, gpus + 1) if run.batch_size % n == 0]
    ways: list[tuple[str, int, int | None, str]] = []
    alone = run.optimizer.whole_matrices
    if parameters < LARGE or said.engine == "plain" or alone:
        ways.append(("plain", 1, None, "none"))
    counts = [] if alone else counts
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


def _reason(run: RunSpec, parameters: int, smallest: Choice | None, gpu_bytes: float) -> str:
    if run.optimizer.whole_matrices:
        return f"{run.optimizer.rule} needs whole matrices"
    if smallest is None:
        return "from 1B parameters on" if parameters >= LARGE else "the simplest fits"
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
