"""Two checkpoints of one architecture, compared as a run's end is compared with its beginning.

Neither is trained here, so the tables have one step, 1, with what is known of it: the change of the
hidden states, and of each layer ‖W‖ before and ‖ΔW‖. There is no loss and no gradient.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from sweeps.attempts.writer import RunWriter
from sweeps.errors import UserError
from sweeps.spec import ModelSpec, RunSpec
from sweeps.store.store import Store
from workers.controls.layer_groups import group_layers
from workers.loading import load_model
from workers.models.fit import require_fit, require_known_tokens
from workers.models.pretrained import FEW_TOKENS, PretrainedModel, input_rows, inputs_of
from workers.probes.capture import reference_states
from workers.probes.displacement import displaced
from workers.probes.measure import DepthProbe
from workers.probes.rows import choose_rows
from workers.run_record import provenance, write_run_record
from workers.weights.measuring import measuring

STEP = 1


def measure_two(run: RunSpec, tuned: ModelSpec, store: Store, device: torch.device) -> None:
    """Record how ``tuned`` differs from the model of a run that says it became that.

    Raises UserError where one cannot be loaded, they are of two shapes, or the probe does not fit.
    What is there already is left as it is.
    """
    folder = store.run(run.run_id)
    with measuring(run, store) as attempt:
        if folder.done() is not None:
            attempt.end("not needed")
            return
        attempt.describe(**provenance(device))
        before = load_model(run.model, store.cache, needs_head=False)
        require_fit(run, before)
        after = load_model(tuned, store.cache, needs_head=False)
        _require_alike(run.model.name, before, tuned.name, after)
        layers = list(_layer_rows(before, after))
        rows = choose_rows(run.probe, before.facts.width, before.tokenizer, store.cache)
        highest = int(rows.input_ids.max())
        for name, model in ((run.model.name, before), (tuned.name, after)):
            require_known_tokens(name, model, highest, needs_head=False)
        backbone = before.backbone.to(device).eval()
        reference = reference_states(
            before, run.model.name, store.cache, backbone, before.stacks, rows, device
        )
        backbone.to("cpu")
        changed = after.backbone.to(device).eval()
        probe = DepthProbe(run.probe, reference, changed, after.stacks, device)
        measured = probe.measure(STEP, jackknife=True)
        attempt.require_ownership()
        write_run_record(folder, run, before.facts, device)
        attempt.resumed_from(STEP)  # its seconds are not those of a training
        writer = RunWriter(run, folder, attempt)
        writer.add("steps", STEP, [{"loss": None, "targets": 0}])
        writer.add("layers", STEP, layers)
        for table, found in measured.by_table().items():
            writer.add(table, STEP, found)
        writer.finish("finished", STEP)
        attempt.end("finished")


def _require_alike(name: str, before: PretrainedModel, other: str, after: PretrainedModel) -> None:
    """Raise UserError unless each state, parameter and token of one model has its like in the
    other: what differs between models of two makings is no change that a training made."""
    differs = (
        _differing_kind(before, after)
        or _differing_stacks(before, after)
        or _differing_parameters(before, after)
        or _differing_tokens(before, after)
    )
    if differs:
        here, there = differs
        raise UserError(
            f"{name} has {here}, and {other} {there}: give a checkpoint that was trained from the"
            " other one"
        )


def _differing_kind(before: PretrainedModel, after: PretrainedModel) -> tuple[str, str] | None:
    kinds = [
        (model.facts.family, type(model.backbone).__name__)  # what transformers builds from it
        for model in (before, after)
    ]
    if kinds[0] == kinds[1]:
        return None
    here, there = (f"the architecture {family} ({made})" for family, made in kinds)
    return here, there


def _differing_stacks(before: PretrainedModel, after: PretrainedModel) -> tuple[str, str] | None:
    one, two = (
        [(stack.name, stack.calls, stack.width) for stack in model.stacks]
        for model in (before, after)
    )
    if one == two:
        return None
    here, there = (
        " and ".join(f"{len(calls)} blocks of width {width}" for _, calls, width in shape)
        for shape in (one, two)
    )
    return here, there


def _differing_parameters(
    before: PretrainedModel, after: PretrainedModel
) -> tuple[str, str] | None:
    """Compare the backbones alone: a fine-tuned model may have another head, or none."""
    one, two = (
        {name: tuple(p.shape) for name, p in model.backbone.named_parameters()}
        for model in (before, after)
    )
    for name in (*one, *two):
        if one.get(name) != two.get(name):
            here, there = (
                f"{name} of shape {shapes[name]}" if name in shapes else f"no {name}"
                for shapes in (one, two)
            )
            return here, there
    return None


def _differing_tokens(before: PretrainedModel, after: PretrainedModel) -> tuple[str, str] | None:
    """Compare what the numbers stand for that both tokenizers have; tokens that were added to one,
    as those of a chat, may be new, or take a place that was free."""
    if before.tokenizer is None or after.tokenizer is None:
        return None
    added = {
        number for model in (before, after) for number in model.tokenizer.get_added_vocab().values()
    }
    one, two = (
        {number: token for token, number in model.tokenizer.get_vocab().items()}
        for model in (before, after)
    )
    for number in sorted(one.keys() & two.keys() - added):
        if one[number] != two[number]:
            here, there = (f"the token {words[number]!r} as {number}" for words in (one, two))
            return here, there
    return None


@torch.no_grad()
def _layer_rows(before: PretrainedModel, after: PretrainedModel) -> Iterator[dict[str, Any]]:
    """Yield a row a layer, over the parameters that both have in one shape."""
    model: nn.Module = before.language_model
    ids = torch.full((1, FEW_TOKENS), input_rows(model) // 2)
    grouping = group_layers(model, lambda: model(**inputs_of(model, ids)), before.stacks)
    there = dict(after.language_model.named_parameters())
    for group in grouping.groups:
        pairs = [
            (parameter, there[name])
            for name, parameter in zip(group.names, group.parameters, strict=True)
            if name in there and there[name].shape == parameter.shape
        ]
        if not pairs:
            continue
        weight = sum(float(one.double().square().sum()) for one, _ in pairs) ** 0.5
        moved, cosine = displaced(pairs)
        yield {
            "layer": group.layer,
            "stack": group.stack,
            "group": group.kind,
            "block_class": group.block_class,
            "grad_norm": None,
            "weight_norm": weight,
            "update_norm": None if moved is None else moved * weight,
            "coefficient": None,
            "displacement": moved,
            "displacement_cosine": cosine,
        }
