"""How far fine-tuning asks for something else than pretraining did, before any training.

Definition ("Profile"): 1 − mean over blocks of the cosine between the gradient of the pretraining
objective and that of the fine-tuning objective, at initialisation, on the probe data.

An objective that reads plain text takes the probe's; one that needs labels or pairs, which the
probe's text does not have, takes its own examples. So fine-tuning with the pretraining objective
has distance 0 by definition. Gradients are means over ``BATCHES`` batches, in float32 without
dropout; a new head is initialised from the probe's seed.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sweeps.reading.objective_distance import record_distance
from sweeps.spec import OBJECTIVE_DEFAULTS, Objective, RunSpec
from sweeps.store.store import Store
from workers.data.token_cache import objective_arrays
from workers.loading import load_model
from workers.models.pretrained import PretrainedModel
from workers.objectives.registry import build_objective

BATCHES = 8


def measure_objective_distance(run: RunSpec, store: Store, device: torch.device) -> float:
    """Measure the distance of a run's model and objective, and record it in the store.

    Control, seed, steps and optimizer of the run do not matter. The model is loaded with its
    pretrained output head; raises UserError when the checkpoint has none.
    """
    kind = run.model.source.pretraining
    if run.objective.kind == kind:
        return record_distance(store, run, [1.0], batches=0)
    run = run.model_copy(update={"seed": run.probe.seed})
    pretrained = load_model(run.model, store.cache, needs_head=True)
    pretraining = Objective(kind=kind, data=run.probe.data, **OBJECTIVE_DEFAULTS[kind])
    # One after the other on the same weights, which no step changes.
    reference = block_gradients(pretrained, pretraining, run, store, device)
    current = block_gradients(pretrained, run.objective, run, store, device)
    cosines = [cosine(a, b) for a, b in zip(reference, current, strict=True)]
    return record_distance(store, run, cosines, batches=BATCHES)


def block_gradients(
    pretrained: PretrainedModel,
    wanted: Objective,
    run: RunSpec,
    store: Store,
    device: torch.device,
) -> list[Tensor]:
    """Return the mean gradient of an objective for each block 1..L, flat, on the CPU."""
    torch.manual_seed(run.seed)
    objective = build_objective(wanted)
    model = objective.build_model(pretrained).to(device)
    model.eval()
    arrays = objective_arrays(objective, pretrained.tokenizer, run.sequence_length, store.cache)
    model.zero_grad()
    for step in range(1, BATCHES + 1):
        # Whole batches: in-batch negatives are part of what a contrastive loss asks for.
        batch = {k: tensor.to(device) for k, tensor in objective.batch(arrays, run, step).items()}
        loss = objective.loss_sum(model, batch) / max(1, objective.targets(batch))
        loss.backward()  # type: ignore[no-untyped-call]
    gradients = [_flat(block) / BATCHES for block in pretrained.blocks]
    model.zero_grad()
    return gradients


def cosine(a: Tensor, b: Tensor) -> float:
    """Return the cosine of two flat gradients, in float64; 0 where one of them is zero."""
    a, b = a.double(), b.double()
    norms = float(a.norm() * b.norm())
    return float(a @ b) / norms if norms > 0 else 0.0


def _flat(block: nn.Module) -> Tensor:
    """Return the gradient of a block's parameters; one the loss does not reach counts as zero."""
    return torch.cat(
        [
            torch.zeros(parameter.numel())
            if parameter.grad is None
            else parameter.grad.detach().float().cpu().flatten()
            for parameter in block.parameters()
        ]
    )
