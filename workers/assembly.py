"""What one run trains with, built in order: objective, data, model under an engine, and probe."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch

from sweeps.plugins.opened import open_plugins
from sweeps.spec import HubData, HubModel, RunSpec
from sweeps.store.store import Store
from sweeps.versions.plugin_code import kept_code
from workers.agreement import agreed_grouping, agreed_model
from workers.controls.layer_groups import group_layers
from workers.controls.registry import build_control, require_effect
from workers.data.array_file import Arrays
from workers.data.datasets import columns_of, hub_table
from workers.data.token_cache import objective_arrays
from workers.depth.stacks import Stack, in_twin
from workers.engines.engine import Engine
from workers.engines.registry import build_engine
from workers.loading import load_model
from workers.models.fit import require_fit, require_known_tokens
from workers.models.hub import downloaded
from workers.models.pretrained import ModelFacts, PretrainedModel
from workers.objectives.objective import TrainingObjective, few_of
from workers.objectives.registry import build_objective
from workers.probes.capture import reference_states
from workers.probes.measure import DepthProbe
from workers.probes.rows import ROLES, choose_rows
from workers.ranks.process_group import Ranks


@dataclass(frozen=True)
class Assembly:
    """All that the loop needs, before any checkpoint is loaded into ``engine``.

    ``unreached`` are parameters that no loss reaches, which are left out of training.
    """

    objective: TrainingObjective
    arrays: Arrays
    engine: Engine
    probe: DepthProbe
    facts: ModelFacts
    unreached: tuple[str, ...]


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
    objective = build_objective(run.objective)
    for data, roles in ((run.objective.data, objective.roles), (run.probe.data, ROLES)):
        if isinstance(data, HubData):
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
            run.model, store.cache, needs_head=objective.needs_head, weights=ranks.leads
        )
    pretrained = agreed_model(pretrained, ranks)
    model = objective.build_model(pretrained)
    require_fit(run, pretrained)
    arrays = objective_arrays(objective, pretrained.tokenizer, run.sequence_length, store.cache)
    highest = objective.highest_token(arrays)
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
    require_effect(control, run.control.kind, grouping.groups, pretrained.facts.layers)
    engine = build_engine(run, model, pretrained, grouping.groups, ranks, device)
    probe = _probe(run, store, pretrained, grouping.stacks, engine, device, ranks)
    return Assembly(objective, arrays, engine, probe, pretrained.facts, grouping.unreached)


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
