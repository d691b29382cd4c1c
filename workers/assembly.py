"""What one run trains with, built in order: objective, data, model under an engine, and probe."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from sweeps.plugins.opened import open_plugins
from sweeps.sources.model_folder import positions_of
from sweeps.spec import HubData, HubModel, RunSpec
from sweeps.spec.run import PROMPTS
from sweeps.store.store import Store
from sweeps.versions.plugin_code import kept_code
from workers.adapters.registry import add_adapter
from workers.agreement import agreed_grouping, agreed_model
from workers.controls.layer_control import LayerControl
from workers.controls.layer_groups import HEAD, group_layers
from workers.controls.registry import build_control, require_effect
from workers.data.array_file import examples_of
from workers.data.datasets import columns_of, examples_read, hub_table
from workers.data.token_cache import objective_arrays
from workers.depth.stacks import Stack, in_twin
from workers.engines.engine import Batch, Engine
from workers.engines.registry import build_engine
from workers.evaluation.evaluator import Evaluator
from workers.evaluation.held_out import HeldOut
from workers.evaluation.refusals import Prompts, Refusals
from workers.loading import folder_of, load_model
from workers.models.fit import require_fit, require_known_tokens
from workers.models.hub import downloaded
from workers.models.pretrained import ModelFacts, PretrainedModel
from workers.objectives.objective import TrainingObjective, few_of
from workers.objectives.registry import build_objective
from workers.probes.capture import reference_states
from workers.probes.displacement import Displacement
from workers.probes.measure import DepthProbe
from workers.probes.rows import ROLES, choose_rows
from workers.ranks.process_group import Ranks
from workers.selection.batches import Batches


@dataclass(frozen=True)
class Assembly:
    """All that the loop needs, before any checkpoint is loaded into ``engine``.

    ``unreached`` are parameters that no loss reaches, which are left out of training. Of a
    ``tied_head`` is frozen what is not the embedding's, and what predicts is trained all the same.
    """

    objective: TrainingObjective
    batches: Batches
    engine: Engine
    probe: DepthProbe
    evaluator: Evaluator | None
    refusals: Refusals | None
    displacement: Displacement
    facts: ModelFacts
    unreached: tuple[str, ...]
    tied_head: bool


def fetch(run: RunSpec, store: Store) -> None:
    """Have what a run needs on this node, its own code, and model and datasets of the hub; no
    collective.

    To be called before ranks meet: one that waits for another in a collective gives up after a
    quarter of an hour, and the hub's patience, or a large model's download, may take longer.
    Processes of a node download once. Raises UserError for what is not there.
    """
    open_plugins(run, partial(kept_code, store.root))
    if isinstance(run.model.source, HubModel):
        downloaded(run.model.name, run.model.source)
    compared = run.model.compared
    if compared is not None and isinstance(compared.source, HubModel):
        downloaded(compared.name, compared.source)
    objective = build_objective(run.objective)
    for of, data in run.datasets.items():
        if isinstance(data, HubData) and not data.stream:
            roles = ROLES if of == "probe" else objective.roles
            # Of prompts, those that they were declared with.
            roles = tuple(data.columns) if of.startswith(PROMPTS) else roles
            hub_table(data, columns_of(data, roles))


def assemble(run: RunSpec, store: Store, device: torch.device, ranks: Ranks) -> Assembly:
    """Build what ``run`` trains with; a collective where there are several ranks.

    torch's generator is seeded here: new parameters, as of a classifier, depend on the run's seed
    alone. Raises UserError when the model or the data cannot be loaded or do not fit the run.
    """
    open_plugins(run, partial(kept_code, store.root))
    torch.manual_seed(run.seed)
    objective = build_objective(run.objective)
    with ranks.first_then_others():
        pretrained = load_model(
            run.model,
            store.cache,
            needs_head=objective.needs_head,
            weights=ranks.leads,
            dropout=run.dropout,
        )
    pretrained = agreed_model(pretrained, ranks)
    add_adapter(run, pretrained, ranks)
    model = objective.build_model(pretrained)
    require_fit(run, pretrained)
    fraction = run.evaluation.fraction if run.evaluation else None
    length = run.sequence_length
    arrays = objective_arrays(objective, pretrained.tokenizer, length, store.cache, fraction)
    held_out = HeldOut(run, pretrained.tokenizer, store.cache) if run.evaluation else None
    prompts = _prompts(run, pretrained, ranks)
    for each in (arrays, *([held_out.arrays] if held_out else ())):
        highest = objective.highest_token(each)
        require_known_tokens(run.model.name, pretrained, highest, needs_head=objective.needs_head)
    sample = few_of(objective.batch(arrays, run, 1))
    freeze = run.model.source.freeze
    grouping = agreed_grouping(
        lambda: group_layers(
            model, lambda: objective.loss_sum(model, sample), pretrained.stacks, freeze
        ),
        model,
        ranks,
    )
    control = build_control(run.control)
    control.prepare(grouping.groups, pretrained.stacks)
    require_effect(control, run.control.kind, grouping.groups, pretrained.facts.layers)
    folder = folder_of(run.model.name, run.model.source, store.cache)
    compared = run.model.compared
    other = folder_of(compared.name, compared.source, store.cache) if compared else None
    displacement = Displacement(folder, model, grouping.groups, ranks, other)
    engine = build_engine(run, model, pretrained, grouping.groups, control, ranks, device)
    read = None
    if control.batches > run.steps:  # what a control is shown may be more than the steps read
        read = examples_read(run, control.batches, examples_of(arrays))
    arrays = objective.completed(arrays, engine, run, pretrained, store.cache, read)
    batches = Batches(run, objective, arrays, engine)
    show_batches(control, engine, lambda step: accumulate(run, objective, batches, engine, step))
    probe = _probe(run, store, pretrained, grouping.stacks, engine, device, ranks)
    if held_out is not None:
        held_out.complete(engine, run, pretrained, store.cache)
    evaluator = Evaluator(run, held_out, engine, ranks) if held_out else None
    refusals = Refusals(prompts, pretrained, engine, ranks, store.cache) if prompts else None
    return Assembly(
        objective,
        batches,
        engine,
        probe,
        evaluator,
        refusals,
        displacement,
        pretrained.facts,
        grouping.unreached,
        objective.needs_head and _trains_its_frozen_head(run, pretrained),
    )


def _prompts(run: RunSpec, pretrained: PretrainedModel, ranks: Ranks) -> Prompts | None:
    """Return the prompts that a run's model is to answer, where there are any; a collective."""
    if run.evaluation is None or run.evaluation.refusal is None:
        return None
    model: Any = pretrained.language_model
    return Prompts(run, pretrained, positions_of(model.config.to_dict()), ranks)


def _trains_its_frozen_head(run: RunSpec, pretrained: PretrainedModel) -> bool:
    """Return whether ``freeze`` names the head and its matrix is trained as the embedding's own."""
    model: Any = pretrained.language_model
    head = model.get_output_embeddings()
    weight = getattr(head, "weight", None)
    return HEAD in run.model.source.freeze and weight is not None and bool(weight.requires_grad)


def accumulate(
    run: RunSpec, objective: TrainingObjective, batches: Batches, engine: Engine, step: int
) -> tuple[Batch, Tensor, list[dict[str, Any]]]:
    """Add the gradient of a step's batch to the engine; return the batch, its mean loss, and the
    rows of ``samples`` that say what it was chosen from."""
    batch, rows = batches.of(step)
    if run.dropout:
        engine.draw_dropout(run.seed, step)
    return batch, objective.accumulate(engine, batch, run.micro_batch_size), rows


def show_batches(
    control: LayerControl, engine: Engine, accumulate: Callable[[int], object]
) -> None:
    """Show a control that asks for it gradients at the weights of the start; nothing moves.

    ``accumulate`` adds the gradient of a step's batch to the engine. The batches are those of the
    first steps, so what it learns is a function of the run: one that is resumed learns it again.
    """
    seen = []
    for step in range(1, control.batches + 1):
        accumulate(step)
        seen.append(engine.measure())
    if seen:
        mine = [i for i, group in enumerate(engine.groups) if control.controls(group.kind)]
        gradients, weights = (
            torch.tensor([[norms[i] for i in mine] for norms in each])
            for each in ([s.gradient_norms for s in seen], [s.weight_norms for s in seen])
        )
        control.learn(gradients, weights)


def _probe(
    run: RunSpec,
    store: Store,
    pretrained: PretrainedModel,
    stacks: Sequence[Stack],
    engine: Engine,
    device: torch.device,
    ranks: Ranks,
) -> DepthProbe:
    backbone = engine.in_float32(pretrained.backbone)
    if backbone is pretrained.backbone:
        backbone.to(device)  # the objective may train a part of it alone, as an encoder
    stacks = in_twin(stacks, pretrained.backbone, backbone)
    rows = choose_rows(run.probe, pretrained.facts.width, pretrained.tokenizer, store.cache)
    highest = int(rows.input_ids.max())
    require_known_tokens(run.model.name, pretrained, highest, needs_head=False)
    reference = reference_states(
        pretrained, run.model.name, store.cache, backbone, stacks, rows, device, ranks
    )
    return DepthProbe(run.probe, reference, backbone, stacks, device)
