"""The model that a run ended with, from the weights it kept."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import partial
from pathlib import PurePosixPath
from typing import Any

import torch
from torch import Tensor, nn

from sweeps.errors import UserError
from sweeps.files.whole_files import Place, read_json
from sweeps.plugins.opened import open_plugins
from sweeps.spec import RunSpec
from sweeps.store.run_folder import RunFolder
from sweeps.store.store import Store
from sweeps.versions.plugin_code import kept_code
from workers.adapters.registry import add_adapter
from workers.checkpoints.layer_file import SUFFIX, read_layer
from workers.loading import load_model
from workers.models.pretrained import PretrainedModel
from workers.objectives.registry import build_objective

WEIGHTS = "weights/"


@dataclass(frozen=True)
class Trained:
    """What a run ended with: ``model`` is ``pretrained``'s language model, or a part of it, under
    the run's objective, after ``step`` steps."""

    run: RunSpec
    pretrained: PretrainedModel
    model: nn.Module
    step: int


def recorded_run(folder: RunFolder) -> RunSpec:
    """Return what a store says has run in a folder; raise UserError where it says nothing."""
    record = folder.record()
    if record is None:
        raise UserError(
            f"run {folder.run_id} has no record of what ran yet: `depthsweep resume` its sweep"
        )
    return RunSpec.model_validate_json(json.dumps(record["spec"]))


def kept_checkpoint(folder: RunFolder, run: RunSpec) -> Place:
    """Return the checkpoint of the weights that a run has kept; raise UserError, saying what to do,
    where it has not ended, or kept none."""
    done = folder.done()
    if done is None:
        raise UserError(
            f"run {folder.run_id} has no result yet: `depthsweep resume` its sweep, with `keep:"
            " final` in its file, first"
        )
    found = folder.kept("final" if run.execution.keep == "none" else run.execution.keep)
    if found is None:
        raise UserError(
            f"run {folder.run_id} ({done['status']}) kept no weights: set `keep: final` in its"
            " sweep file and `depthsweep run` it, then `depthsweep resume NAME --only"
            f" {folder.run_id} --force` trains it once more"
        )
    return found


def kept_model(run: RunSpec, store: Store) -> Trained:
    """Return the model of a run with the weights that it kept, in float32 on the CPU, in eval mode.

    Raises UserError where it kept none, they are damaged, or the base model is not there any more.
    """
    checkpoint = kept_checkpoint(store.run(run.run_id), run)
    return with_kept(run, base_of(run, store), checkpoint)


def base_of(run: RunSpec, store: Store) -> PretrainedModel:
    """Return the model that a run began with; raises as ``load_model``."""
    open_plugins(run, partial(kept_code, store.root))
    needs_head = build_objective(run.objective).needs_head
    return load_model(run.model, store.cache, needs_head=needs_head)


def with_kept(run: RunSpec, pretrained: PretrainedModel, checkpoint: Place) -> Trained:
    """Give the model that a run began with, in place, the weights of one of its checkpoints."""
    torch.manual_seed(run.seed)
    add_adapter(run, pretrained)
    model = build_objective(run.objective).build_model(pretrained)
    _fill(model, _weights(checkpoint), checkpoint)
    return Trained(run, pretrained, model.eval(), RunFolder.step_of(checkpoint))


def _weights(checkpoint: Place) -> dict[str, Tensor]:
    """Return the float32 weights of a checkpoint by the names of parameters."""
    found: dict[str, Tensor] = {}
    accounts: dict[str, Any] = read_json(checkpoint / "manifest.json")["files"]
    for name, account in accounts.items():
        if not name.endswith(SUFFIX):
            continue
        tensors = read_layer(checkpoint / PurePosixPath(name).name, account)
        if tensors is None:
            raise UserError(f"{checkpoint}: {name} is not what was written; it is damaged")
        found |= {
            key.removeprefix(WEIGHTS): tensor
            for key, tensor in tensors.items()
            if key.startswith(WEIGHTS)
        }
    return found


@torch.no_grad()
def _fill(model: nn.Module, weights: dict[str, Tensor], checkpoint: Place) -> None:
    parameters = dict(model.named_parameters())
    unknown = sorted(weights.keys() - parameters.keys())
    if unknown:
        raise UserError(
            f"{checkpoint}: the model has no {unknown[0]}; its base or transformers is another than"
            " when it was trained"
        )
    for name, tensor in weights.items():
        parameters[name].copy_(tensor)
