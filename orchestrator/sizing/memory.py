"""What a run holds in the memory of each GPU, term by term, and in the machine's.

A traced step says it exactly where nothing is cut: the plan of the plain engine is the tracker's
peak. Of a model that cannot be traced a formula says how much its passes need; P parameters, b
sequences of T tokens a forward pass, L blocks of width d, V tokens in the vocabulary, w bytes of a
number (4, and 2 in bf16), k what a block keeps of a token and unit of width (``activations.py``):

===============  ==========================================================================
activations      b·T·d·L·k; with checkpointing b·T·d·(4·L + k): between blocks all is float32
logits           b·T·V·(w + 12) with an output head: themselves, in float32, their logarithms, the
                 gradient of those
probe            4 · 8·n·d for one layer's comparison
===============  ==========================================================================

What ZeRO cuts of either is in ``zero.py``. Beside it are the CUDA context and libraries, and what
an allocator reserves over what is allocated.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from orchestrator.sizing.activations import Kept, kept_by_config, kept_by_family
from orchestrator.sizing.cost import parameter_count
from orchestrator.sizing.traces import EngineName, Footprint, footprint_of, size_of
from orchestrator.sizing.zero import Passes, Sizes, later, offloaded, phases
from sweeps.errors import UserError
from sweeps.sources.catalog import by_hub
from sweeps.sources.model_folder import read_config
from sweeps.spec import (
    WITH_HEAD,
    Adapter,
    Execution,
    HubModel,
    Lora,
    ModelSpec,
    RunSpec,
    StandinModel,
)

GIB = 2**30
CONTEXT = 1.6 * GIB
# What torch's allocator reserves of a GPU for a byte that is allocated: measured on an H100.
RESERVED = 1.06


@dataclass(frozen=True)
class ModelShape:
    """What the formula needs of a model."""

    parameters: int
    layers: int
    width: int
    vocabulary: int
    kept: Kept

    def sizes(self, adapter: Adapter) -> Sizes:
        """The embedding, and blocks of equal size: of six matrices that are alike each. Of an
        adapter the two of each such matrix, four of them d wide at both ends and two 4·d at one."""
        if isinstance(adapter, Lora):
            one = tuple(adapter.rank * self.width * ends for ends in (2.0, 2.0, 2.0, 2.0, 5.0, 5.0))
            return Sizes((one,) * self.layers, float(self.parameters))
        embedding = min(float(self.vocabulary * self.width), 0.9 * self.parameters)
        block = ((self.parameters - embedding) / self.layers / 6,) * 6
        return Sizes(((embedding,), *([block] * self.layers)))


@dataclass(frozen=True)
class Memory:
    """Bytes a GPU holds at the fullest moment, by term, and bytes each process adds to the
    machine's memory; ``later`` is what comes after that moment, and finds no room in what the
    allocator has."""

    terms: dict[str, float]
    host: float
    later: float = 0.0

    @property
    def allocated(self) -> float:
        """Bytes in tensors."""
        return sum(self.terms.values())

    @property
    def total(self) -> float:
        """Bytes of the GPU."""
        return RESERVED * (self.allocated + self.later) + CONTEXT


def memory_of(run: RunSpec, execution: Execution) -> Memory | None:
    """Return what one rank of a run holds, traced where its step is known, by the formula where it
    is not; None for a model of unknown size. Raises UserError where it cannot be carried out."""
    how = execution.settled()
    rows = how.micro_batch_size or run.batch_size // (how.processes or 1)
    again = bool(how.checkpoint_activations)
    footprint = footprint_of(run, engine_of(how), again, rows)
    if footprint is not None:
        return _beside_judge(run, traced_memory(run, footprint, how))
    shape = shape_of(run)
    return None if shape is None else _beside_judge(run, estimate_memory(run, shape, how))


def _beside_judge(run: RunSpec, memory: Memory) -> Memory | None:
    """Return what a run holds with the model that judges its answers, in float32 and all the time;
    None where nobody knows how large that is."""
    for judge in run.judges:
        parameters = parameter_count(judge.source)
        if parameters is None:
            alone = ModelSpec(name=judge.name, source=judge.source)
            size = size_of(run.model_copy(update={"model": alone}))
            parameters = None if size is None else int(size["parameters"])
        if parameters is None:
            return None
        held = 4.0 * parameters
        memory = replace(memory, terms={**memory.terms, "judge": held}, host=memory.host + held)
    return memory


def engine_of(execution: Execution) -> EngineName:
    return "deepspeed" if execution.engine == "deepspeed" else "plain"


# ----------------------------------------------------------------------------------------- traced
def traced_memory(run: RunSpec, footprint: Footprint, execution: Execution) -> Memory:
    """Return what one rank holds by a traced step."""
    share = run.batch_size // (execution.processes or 1)
    micro = execution.micro_batch_size or share
    several = micro < share
    about = footprint.any
    probe = max(footprint.number("probe", micro), footprint.number("metrics", micro))
    groups = tuple(tuple(group) for group in about["groups"])
    sizes = Sizes(groups, float(about["frozen"]), run.optimizer.kept)
    host = _loaded(run, sizes.parameters, about["layers"], about["width"])
    if execution.engine == "plain":
        training = footprint.kinds("second" if several else "first", micro)
        step = footprint.kinds("step", micro)
        state = ("weights", "buffers", "moments", "other")
        probing = {**{kind: step.get(kind, 0.0) for kind in state}, "probe": probe}
        return Memory(_fullest((training, step, probing)), host)
    first = footprint.kinds("first", micro)
    passes = Passes(
        training=footprint.number("extra", micro),
        with_gradients=first["gradients"] + first["activations"],
        probe=probe,
        several=several,
    )
    return _under_zero(sizes, passes, run.precision == "bf16", execution, host)


def _under_zero(
    sizes: Sizes, passes: Passes, bf16: bool, execution: Execution, host: float
) -> Memory:
    terms = _fullest(phases(sizes, passes, bf16, execution))
    host += offloaded(sizes, bf16, execution)
    return Memory(terms, host, later(sizes, passes, bf16, execution))


def _fullest(moments: tuple[Mapping[str, float], ...]) -> dict[str, float]:
    """Return the moment at which most is held, without the terms that nothing is held of."""
    most = max(moments, key=lambda terms: sum(terms.values()))
    return {name: float(size) for name, size in most.items() if size}


def _loaded(run: RunSpec, parameters: float, layers: int, width: int) -> float:
    """Return the host's bytes of any run: weights as they are loaded, and the probe's states, in
    float64 before and float32 now."""
    return 4 * parameters + 12.0 * run.probe.rows_for(width) * width * (layers + 1)


# ---------------------------------------------------------------------------------- by the formula
def shape_of(run: RunSpec) -> ModelShape | None:
    """Return the shape of a run's model, or None where it is not known before loading."""
    source = run.model.source
    parameters = parameter_count(source)
    if parameters is None:
        return None
    if isinstance(source, StandinModel):
        kept = kept_by_family(source.standin)
        return ModelShape(parameters, source.layers, source.width, source.vocabulary, kept)
    if isinstance(source, HubModel):
        known = by_hub(source.hub)
        assert known is not None
        kept = kept_by_family(known.family)
        return ModelShape(parameters, known.layers, known.width, known.vocabulary, kept)
    try:
        config = read_config(Path(source.folder))
        layers, width = config["num_hidden_layers"], config["hidden_size"]
        kept = kept_by_config(config)
        return ModelShape(parameters, layers, width, config["vocab_size"], kept)
    except (UserError, KeyError):
        return None


def estimate_memory(run: RunSpec, shape: ModelShape, execution: Execution) -> Memory:
    """Return what one rank of ``run`` holds by the formula, under a settled ``execution``."""
    bf16 = run.precision == "bf16"
    share = run.batch_size // (execution.processes or 1)
    micro = execution.micro_batch_size or share
    needs = formula(run, shape, micro, bool(execution.checkpoint_activations))
    probe = 4 * 8.0 * run.probe.rows_for(shape.width) * shape.width
    host = _loaded(run, shape.parameters, shape.layers, shape.width)
    sizes = replace(shape.sizes(run.adapter), kept=run.optimizer.kept)
    if execution.engine == "plain":
        weights = (6 if bf16 else 4) * sizes.parameters
        moments = 4.0 * sizes.kept * sizes.trained
        state = {"weights": weights, "gradients": 4 * sizes.trained, "moments": moments}
        return Memory({**needs, **state, "probe": probe}, host)
    most, gradients = sum(needs.values()), (2.0 if bf16 else 4.0) * sizes.trained
    passes = Passes(most, max(most, gradients), probe, micro < share)
    return _under_zero(sizes, passes, bf16, execution, host)


def formula(
    run: RunSpec, shape: ModelShape, micro_batch: int, checkpointing: bool
) -> dict[str, float]:
    """Return what the passes of one micro-batch need, by term."""
    bf16 = run.precision == "bf16"
    sequences = run.objective.sequences
    tokens = micro_batch * run.sequence_length * sequences
    full = (shape.kept.bf16 if bf16 else shape.kept.fp32) * tokens * shape.width
    again = 4.0 * tokens * shape.width * shape.layers + full
    head = run.objective.kind in WITH_HEAD
    word = 2 if bf16 else 4
    return {
        "activations": again if checkpointing else full * shape.layers,
        "logits": float(tokens * shape.vocabulary * (word + 12)) if head else 0.0,
    }
