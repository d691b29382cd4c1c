"""What a run holds in the memory of each GPU, term by term: an estimate, stated as a formula.

P parameters, R ranks, b sequences of T tokens a forward pass, L blocks of width d, V tokens in the
vocabulary; w is 4 bytes in float32 and 2 in bf16, k what a block keeps of a token and unit of width
(``activations.py``). "cut" divides by R from the ZeRO stage named.

===============  ==========================================================================
weights          w·P, cut from stage 3; plain bf16 keeps 4·P and casts 2·P
gradients        4·P, cut from stage 2 (2·P for bf16 below it); in CPU memory when offloaded
masters          4·P, cut, from stage 1 or in bf16; in CPU memory when offloaded
moments          8·P, cut from stage 1; in CPU memory when offloaded
gathered         stage 3: w · (two blocks and the embedding)
activations      b·T·d·L·k; with checkpointing b·T·d·(4·L + k): between blocks all is float32
logits           b·T·V·(w + 12) with an output head: themselves, in float32, their logarithms, the
                 gradient of those
probe            4 · 8·n·d for one layer's comparison, 4 · one block to compute states; the
                 states themselves, 12·n·d·(L + 1), are in CPU memory
buckets          2 · 50 M · w for messages between ranks; of offloaded gradients too
fixed            1.5 GiB for the CUDA context and libraries, and 6 % of all for fragmentation
===============  ==========================================================================

Gradients and all activations are there together only where a step has several micro-batches. Where
it has one, that is what ZeRO needs more: its allocator reserves a fifth more than is allocated.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from orchestrator.sizing.activations import Kept, kept_by_config, kept_by_family
from orchestrator.sizing.cost import parameter_count
from sweeps.errors import UserError
from sweeps.sources.catalog import by_hub
from sweeps.sources.model_folder import read_config
from sweeps.spec import PRETRAINING_OBJECTIVES, Execution, HubModel, RunSpec, StandinModel

GIB = 2**30
BUCKET = 50_000_000
CONTEXT = 1.5 * GIB
FRAGMENTATION = 1.06


@dataclass(frozen=True)
class ModelShape:
    """What the formula needs of a model."""

    parameters: int
    layers: int
    width: int
    vocabulary: int
    kept: Kept


@dataclass(frozen=True)
class Memory:
    """Bytes a GPU holds, by term, and bytes each process adds to the machine's CPU memory."""

    terms: dict[str, float]
    host: float

    @property
    def total(self) -> float:
        return FRAGMENTATION * sum(self.terms.values())


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
    """Return what one rank of ``run`` holds when carried out by a settled ``execution``."""
    p, ranks = float(shape.parameters), execution.processes or 1
    bf16 = run.precision == "bf16"
    word = 2 if bf16 else 4
    sequences = 2 if run.objective.kind == "contrastive" else 1
    micro = execution.micro_batch_size or run.batch_size // ranks
    tokens = micro * run.sequence_length * sequences
    block = 12.0 * shape.width**2
    embedding = float(shape.vocabulary * shape.width)
    full = (shape.kept.bf16 if bf16 else shape.kept.fp32) * tokens * shape.width
    again = 4.0 * tokens * shape.width * shape.layers + full
    head = run.objective.kind in PRETRAINING_OBJECTIVES
    rows = run.probe.rows_for(shape.width)
    terms = {
        "activations": again if execution.checkpoint_activations else full * shape.layers,
        "logits": float(tokens * shape.vocabulary * (word + 12)) if head else 0.0,
        "probe": 4 * 8.0 * rows * shape.width,
        "fixed": CONTEXT,
    }
    # Weights as they are loaded, and the probe's states: float64 before, float32 now.
    host = 4 * p + 12.0 * rows * shape.width * (shape.layers + 1)
    if execution.engine == "plain":
        terms |= {"weights": (6 if bf16 else 4) * p, "gradients": 4 * p, "moments": 8 * p}
        return Memory(terms, host)
    stage = execution.zero_stage or 0

    def cut(size: float, first_stage: int) -> float:
        return size / ranks if stage >= first_stage else size

    optimizer = {
        "gradients": cut((2 if bf16 and stage < 2 else 4) * p, 2),
        "masters": cut(4 * p, 1) if bf16 or stage >= 1 else 0.0,
        "moments": cut(8 * p, 1),
    }
    weights = cut(word * p, 3)
    terms["probe"] += 4 * block
    terms["buckets"] = 2.0 * BUCKET * word if ranks > 1 or execution.offload != "none" else 0.0
    if stage == 3:
        terms["gathered"] = word * (2 * block + embedding)
    if execution.offload != "none":
        host += sum(optimizer.values())
    else:
        terms |= optimizer
    if execution.offload == "parameters":
        host += weights
    else:
        terms["weights"] = weights
    return Memory(terms, host)
