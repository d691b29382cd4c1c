"""The memory and the floating-point operations of a run's own step, found without memory.

One step of the run's model, objective, precision, optimizer and control is carried out on fake
tensors, by the code that carries it out on real ones; torch's tracker sees what is alive.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

from sweeps.errors import UserError
from sweeps.spec import PROBE_SEQUENCES, RunSpec
from workers.adapters.registry import add_adapter
from workers.controls.layer_groups import LayerGroup, group_layers
from workers.controls.registry import build_control, require_effect
from workers.engines.bf16_weights import compute_as_under_autocast
from workers.engines.engine import Batch, Engine
from workers.engines.layer_optimizer import LayerOptimizer
from workers.engines.layer_step import LayerStep, no_step
from workers.engines.plain import PlainEngine
from workers.engines.registry import checkpoint_activations
from workers.footprint.device_autocast import autocast_as_on_a_gpu
from workers.footprint.fake_numbers import fake_numbers
from workers.footprint.skeleton import SizeUnknown, require_causal_head, skeleton
from workers.footprint.tracker import Tracker
from workers.footprint.word_tokenizer import word_cell, word_tokenizer
from workers.models.fit import require_fit
from workers.models.pretrained import PretrainedModel, inputs_of
from workers.objectives.objective import TrainingObjective, few_of
from workers.objectives.registry import build_objective
from workers.probes.capture import SEQUENCES_A_FORWARD
from workers.probes.similarity import Reference, compare
from workers.updates.slabs import DEVICE_SLAB

CPU = torch.device("cpu")
# Operations that torch's counter knows nothing of.
COUNTED = {
    torch.ops.aten._grouped_mm: lambda left, right, *_, **__: 2 * left[-2] * left[-1] * right[-1],
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: (
        lambda query, key, value, *_, **__: sdpa_flop_count(query, key, value)  # type: ignore[no-untyped-call]
    ),
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: (
        lambda grad, query, key, value, *_, **__: sdpa_backward_flop_count(  # type: ignore[no-untyped-call]
            grad, query, key, value
        )
    ),
}


@dataclass(frozen=True)
class Trace:
    """What a step of one micro-batch size takes, in bytes by kind.

    ``first`` is the fullest moment of a step's first micro-batch, ``second`` that of each after,
    which finds gradients; ``extra`` is what a later one needs over what is there before it;
    ``step`` the fullest moment of the optimizer's step, empty where no optimizer was traced.
    ``groups`` are the elements of each parameter, group by group. ``probe`` and ``metrics`` are
    bytes over the weights and the optimizer's state. ``flops`` are of one micro-batch,
    ``probe_flops`` of the forward passes of a probe.
    """

    parameters: int
    layers: int
    width: int
    groups: tuple[tuple[int, ...], ...]
    frozen: int
    first: dict[str, int]
    second: dict[str, int]
    extra: int
    step: dict[str, int]
    probe: int
    metrics: int
    flops: int
    probe_flops: int
    seconds: float

    def as_record(self) -> dict[str, Any]:
        return asdict(self)


class Unstepped(Engine):
    """An engine whose step is another's: gradients stay where autograd leaves them."""

    def __init__(
        self, model: nn.Module, groups: Sequence[LayerGroup], run: RunSpec, control: Any
    ) -> None:
        optimizer = LayerOptimizer(groups, control, run.optimizer)
        super().__init__(model, groups, optimizer, run.precision)

    @property
    def device(self) -> torch.device:
        return CPU

    def backward(self, loss: Tensor) -> None:
        loss.backward()  # type: ignore[no-untyped-call]

    def step(self, learning_rate: float, record: bool = True) -> LayerStep:
        del learning_rate, record
        return no_step(len(self.groups))


def trace(run: RunSpec) -> Trace:
    """Trace one step of a run with micro-batches of all its batch, as a settled execution says.

    Under DeepSpeed it is a rank's forward and backward pass, before anything is cut. Raises
    UserError where the run cannot be carried out, SizeUnknown where the model's configuration is
    not at hand, and whatever a model's code trips over where tensors have no values.
    """
    began = time.monotonic()
    execution = run.execution.settled()
    plain = execution.engine == "plain"
    narrow = run.precision == "bf16" and not plain
    objective = build_objective(run.objective)
    shapes = {name: (t.shape, t.dtype) for name, t in _real_batch(run, objective).items()}
    if objective.needs_head:
        require_causal_head(run.model)
    with autocast_as_on_a_gpu(), fake_numbers():
        pretrained, model = _built(run, objective, torch.bfloat16 if narrow else torch.float32)
        batch = {name: torch.empty(size, dtype=kind) for name, (size, kind) in shapes.items()}
        sample = few_of(batch)
        groups = group_layers(
            model,
            lambda: objective.loss_sum(model, sample),
            pretrained.stacks,
            run.model.source.freeze,
        ).groups
        control = build_control(run.control)
        require_effect(control, run.control.kind, groups, pretrained.facts.layers)
        if execution.checkpoint_activations:
            checkpoint_activations(model, pretrained, run.model.name)
        if run.dropout:
            model.train()
        if narrow:
            compute_as_under_autocast(model, CPU)
        engine: Engine
        if plain:
            optimizer = run.optimizer
            engine = PlainEngine(model, groups, control, optimizer, run.precision, DEVICE_SLAB)
        else:
            engine = Unstepped(model, groups, run, control)
        sizes = tuple(tuple(p.numel() for p in group.parameters) for group in groups)
        frozen = sum(p.numel() for p in model.parameters()) - sum(map(sum, sizes))
        stepped = _stepped(engine, objective, batch)
        probe, probe_flops = _probe(run, objective, pretrained, narrow)
        metrics = _metrics(run, pretrained.facts.width)
    facts = pretrained.facts
    return Trace(
        parameters=facts.parameters,
        layers=facts.layers,
        width=facts.width,
        groups=sizes,
        frozen=frozen,
        probe=probe,
        metrics=metrics,
        probe_flops=probe_flops,
        seconds=round(time.monotonic() - began, 1),
        **stepped,
    )


def size(run: RunSpec) -> dict[str, int]:
    """Return ``parameters``, ``layers`` and ``width`` of a run's model; raises as ``trace``."""
    with fake_numbers():
        facts = skeleton(run.model, torch.float32).facts
    return {"parameters": facts.parameters, "layers": facts.layers, "width": facts.width}


def _built(
    run: RunSpec, objective: TrainingObjective, dtype: torch.dtype
) -> tuple[PretrainedModel, nn.Module]:
    """Return a run's model, and it under the objective, all in one type."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        head = objective.needs_head
        pretrained = skeleton(run.model, dtype, needs_head=head, dropout=run.dropout)
        require_fit(run, pretrained)
        add_adapter(run, pretrained)
        return pretrained, objective.build_model(pretrained)
    finally:
        torch.set_default_dtype(before)


def _real_batch(run: RunSpec, objective: TrainingObjective) -> Batch:
    """Return a batch of the objective's own making, all of one word."""
    cells, count = run.objective.cells, max(run.objective.labels or 1, run.batch_size)
    rows: dict[str, list[Any]] = {
        role: [word_cell(cell, run.sequence_length) for _ in range(count)]
        for role, cell in cells.items()
    }
    try:
        arrays = objective.tokenise(word_tokenizer(), rows, run.sequence_length)
    except UserError as error:
        if run.objective.code is None:
            raise
        raise SizeUnknown(f"objective {run.objective.kind} reads no words: {error}") from error
    return objective.batch(arrays, run, 1)


def _stepped(engine: Engine, objective: TrainingObjective, batch: Batch) -> dict[str, Any]:
    """Return what two micro-batches and a step take."""
    tracker = Tracker(engine.model)
    optimizer = engine.optimizer
    there = [*batch.values()]
    if optimizer.layers:
        tracker.track_external(optimizer)
        there += optimizer.held_beside_state()
    tracker.track_external(*there)
    rows = len(next(iter(batch.values())))
    with tracker.watching():
        objective.accumulate(engine, batch, rows)
    first = tracker.peak()
    before = sum(tracker.now().values())
    with tracker.watching():
        objective.accumulate(engine, batch, rows)
    second = tracker.peak()
    step: dict[str, int] = {}
    if optimizer.layers:
        with tracker.watching():
            engine.step(1.0)
        step = tracker.peak()
    # By itself: under it tensors live longer.
    counter = FlopCounterMode(display=False, custom_mapping=COUNTED)
    with counter:
        objective.accumulate(engine, batch, rows)
    return {
        "first": first,
        "second": second,
        "extra": sum(second.values()) - before,
        "step": step,
        "flops": counter.get_total_flops(),
    }


def _probe(
    run: RunSpec, objective: TrainingObjective, pretrained: PretrainedModel, narrow: bool
) -> tuple[int, int]:
    """Return the bytes that a float32 forward pass of the probe needs beside the weights, and the
    operations of all of them."""
    if narrow:
        pretrained, _ = _built(run, objective, torch.float32)
    backbone = pretrained.backbone.eval()
    wanted = run.probe.rows_for(pretrained.facts.width)
    length = run.probe.sequence_length
    each = min(length - 1, max(1, wanted // PROBE_SEQUENCES))
    sequences = -(-wanted // each)
    ids = torch.ones(min(SEQUENCES_A_FORWARD, sequences), length, dtype=torch.long)
    tracker = Tracker(backbone)
    before = sum(tracker.now().values())
    counter = FlopCounterMode(display=False, custom_mapping=COUNTED)
    with tracker.watching(), counter, torch.no_grad():
        backbone(**inputs_of(backbone, ids))
    needed = sum(tracker.peak().values()) - before
    return needed, counter.get_total_flops() * sequences // len(ids)


def _metrics(run: RunSpec, width: int) -> int:
    """Return the bytes that comparing one layer's rows needs."""
    rows = run.probe.rows_for(width)
    tracker = Tracker(nn.Module())
    with tracker.watching(), torch.no_grad():
        state = torch.empty(rows, width)
        compare(Reference.of(state), state)
    return sum(tracker.peak().values())
