"""From how a run is to be carried out to the engine that does it."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from sweeps.errors import UserError
from sweeps.spec import RunSpec
from workers.controls.layer_control import LayerControl
from workers.controls.layer_groups import LayerGroup
from workers.engines.engine import Engine
from workers.engines.plain import PlainEngine
from workers.models.pretrained import SAMPLES_IN_TRAINING, PretrainedModel
from workers.ranks.process_group import Ranks


def build_engine(
    run: RunSpec,
    model: nn.Module,
    pretrained: PretrainedModel,
    groups: tuple[LayerGroup, ...],
    control: LayerControl,
    ranks: Ranks,
    device: torch.device,
) -> Engine:
    """Return the engine of this rank, which takes over ``model``, still whole and in float32.

    Raises UserError when the specification asks for another number of processes than there are.
    """
    execution = run.execution.settled()
    if execution.processes != ranks.size:
        raise UserError(
            f"run {run.run_id} is for {execution.processes} processes and was started with"
            f" {ranks.size}: set `processes: {ranks.size}`, or start as many"
        )
    kind = pretrained.facts.family
    if kind in SAMPLES_IN_TRAINING and (
        execution.checkpoint_activations or execution.engine != "plain"
    ):
        raise UserError(
            f"model {run.model.name}: {kind} routes at random in training mode, which"
            " checkpoint_activations and DeepSpeed need: carry it out with `engine: plain`"
        )
    if execution.checkpoint_activations:
        checkpoint_activations(model, pretrained, run.model.name)
    if execution.engine == "plain":
        model.to(device).train(model.training or run.dropout)
        return PlainEngine(model, groups, control, run.optimizer, run.precision)
    from workers.engines.deepspeed import DeepSpeedEngine

    return DeepSpeedEngine(
        model,
        pretrained.backbone,
        groups,
        control,
        run.optimizer,
        run.precision,
        execution,
        ranks,
        device,
    )


def checkpoint_activations(model: nn.Module, pretrained: PretrainedModel, name: str) -> None:
    """Have a model compute its blocks again in the backward pass; raise UserError if it cannot."""
    language_model: Any = pretrained.language_model
    if not language_model.supports_gradient_checkpointing:
        raise UserError(
            f"model {name}: {type(language_model).__name__} cannot compute its blocks again in the"
            " backward pass; leave out checkpoint_activations"
        )
    # Blocks are computed again in training mode only; without dropout it changes nothing else.
    model.train()
    language_model.gradient_checkpointing_enable({"use_reentrant": False})
