"""What a run costs before it has run: parameters, floating-point operations, bytes of state."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from orchestrator.sizing.traces import size_of, stored_trace
from sweeps.errors import UserError
from sweeps.sources.catalog import by_hub
from sweeps.sources.model_folder import read_config, stored_parameters
from sweeps.spec import (
    PROBE_SEQUENCES,
    All,
    FolderModel,
    HubModel,
    Lora,
    ModelSource,
    Random,
    RunSpec,
    StandinModel,
)
from workers.checkpoints.cadence import checkpoint_bytes, seconds_for_notice
from workers.ranks.notice import LEAST_SECONDS

# Of a parameter: float32 weights, gradients, and what the optimizer keeps of it; of a model beside
# which an adapter is trained the weights alone, next to which the adapter's own is little.
NUMBER_BYTES = 4
# Operations a parameter and token: forward, back through it, and for its own gradient.
TRAINED_FLOPS, BASE_FLOPS = 6, 4
# Of a model whose parameters or width are not known before loading.
ASSUMED_PARAMETERS = 100_000_000
ASSUMED_WIDTH = 1024
# What a machine that is taken away is asked to leave in any case, in seconds.
LEAST_NOTICE = 90
# As configurations of transformers call the width of a block.
WIDTH_NAMES = ("hidden_size", "n_embd", "d_model")


@dataclass(frozen=True)
class Cost:
    """An estimate: parameters, tokens trained on, FLOPs, and bytes of weights and optimizer.

    FLOPs are those of a traced step where one is known. Else they are 6 a parameter and token of
    training and 2 of probing and evaluating (Kaplan et al. 2020, arXiv 2001.08361, with the
    embedding counted in), 4 where an adapter is trained in place of the model; attention's own
    products are left out. Candidates whose gradients are measured cost as much as if all were
    trained on.
    """

    parameters: int | None
    tokens: int
    flops: float
    state_bytes: int | None


def estimate(run: RunSpec) -> Cost:
    """Return the cost of one run; parameters are None where nobody knows them before loading."""
    parameters = parameter_count(run.model.source)
    if parameters is None:
        size = size_of(run)
        parameters = None if size is None else int(size["parameters"])
    tokens = run.steps * batch_tokens(run)
    passed = tokens * passes(run)
    # One probe more is the reference.
    probed = probed_tokens(run) * (len(run.probe_steps) + 1)
    adapted = isinstance(run.adapter, Lora)
    operations = BASE_FLOPS if adapted else TRAINED_FLOPS
    numbers = 1 if adapted else 2 + run.optimizer.kept
    probed += evaluated_tokens(run)
    assumed = parameters if parameters is not None else ASSUMED_PARAMETERS
    return Cost(
        parameters=parameters,
        tokens=tokens,
        flops=_traced_flops(run) or float(assumed) * (operations * passed + 2 * probed),
        state_bytes=None if parameters is None else NUMBER_BYTES * numbers * parameters,
    )


def _traced_flops(run: RunSpec) -> float | None:
    """Return the FLOPs of a run whose step has been traced."""
    traced = stored_trace(run)
    if traced is None:
        return None
    probes = len(run.probe_steps) + 1
    # Forward alone is a third of a step.
    evaluations = len(run.evaluation_steps) * ((run.evaluation and run.evaluation.batches) or 0)
    steps = run.steps * passes(run) + evaluations / 3
    return float(steps * traced["flops"] + probes * traced["probe_flops"])


def passes(run: RunSpec) -> float:
    """Return how many batches a step goes through, forward and back, to train on one: those that
    the candidates make whose gradients are measured, and that one."""
    if isinstance(run.selection, (All, Random)):
        return 1.0
    return 1.0 + run.candidates / run.batch_size


def evaluated_tokens(run: RunSpec) -> int:
    """Return how many tokens all evaluations of a run read, where it says how many batches each
    takes; 0 where that is as many as there are examples, which is known once they are read."""
    if run.evaluation is None or run.evaluation.batches is None:
        return 0
    return run.evaluation.batches * batch_tokens(run) * len(run.evaluation_steps)


def batch_tokens(run: RunSpec) -> int:
    """Return how many tokens a batch has: an example may be several sequences."""
    return run.batch_size * run.sequence_length * run.objective.sequences


def probed_tokens(run: RunSpec) -> int:
    """Return how many tokens a probe reads: whole sequences, of which it measures some rows."""
    rows = run.probe.rows_for(width_of(run.model.source) or ASSUMED_WIDTH)
    return max(min(rows, PROBE_SEQUENCES) * run.probe.sequence_length, rows)


def width_of(source: ModelSource) -> int | None:
    """Return the width of a model's blocks where it is known before loading."""
    if isinstance(source, HubModel):
        known = by_hub(source.hub)
        return known.width if known else None
    if isinstance(source, StandinModel):
        return source.width
    try:
        config = read_config(Path(source.folder))
    except UserError:
        return None
    width = next((config[name] for name in WIDTH_NAMES if name in config), None)
    return width if isinstance(width, int) else None


def parameter_count(source: ModelSource) -> int | None:
    """Return how many parameters a model has: known, from its shape, or from its files."""
    if isinstance(source, HubModel):
        known = by_hub(source.hub)
        return known.parameters if known else None
    if isinstance(source, StandinModel):
        return 12 * source.blocks_of_its_own * source.width**2 + source.vocabulary * source.width
    assert isinstance(source, FolderModel)
    return stored_parameters(Path(source.folder))


def largest_checkpoint(runs: Iterable[RunSpec]) -> int:
    """Return the bytes of the largest checkpoint of some runs: next to a model an adapter is
    nothing."""
    whole = (run for run in runs if not isinstance(run.adapter, Lora))
    sizes = (
        checkpoint_bytes(parameter_count(run.model.source) or 0, run.optimizer.kept)
        for run in whole
    )
    return max(sizes, default=0)


def notice_seconds(runs: Iterable[RunSpec]) -> int:
    """Return how long each of some runs should be given between the notice that its machine is
    taken away and its end: for the step that it is in, and its checkpoint on a slow disk."""
    seconds = LEAST_SECONDS + seconds_for_notice(largest_checkpoint(runs))
    return max(LEAST_NOTICE, 10 * math.ceil(seconds / 10))
