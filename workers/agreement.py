"""What the first rank has found out of its model, on the modules of every other rank's.

That one alone has the weights, and runs the model to see its stacks and its layer groups; others
are told by the names of modules and parameters, which are the same everywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from workers.controls.layer_groups import Grouping
from workers.depth.stacks import Stack
from workers.models.pretrained import Examined, ModelFacts, PretrainedModel
from workers.ranks.process_group import Ranks


@dataclass(frozen=True)
class _Module:
    """Stands for a module on its way to another process: its name."""

    name: str


def agreed_model(pretrained: PretrainedModel, ranks: Ranks) -> PretrainedModel:
    """Return a rank's model with the facts and stacks that the first rank has seen of its own.

    A collective.
    """
    if ranks.size == 1:
        return pretrained
    model = pretrained.language_model
    facts: ModelFacts = ranks.agree(pretrained.facts)
    seen = pretrained.examined
    assert seen is not None
    width = ranks.agree(seen.output_width)
    stacks = _agreed_stacks(seen.stacks, model, ranks)
    return replace(pretrained, facts=facts, examined=Examined(stacks, width))


def agreed_grouping(find: Callable[[], Grouping], model: nn.Module, ranks: Ranks) -> Grouping:
    """Return what ``find`` finds on the first rank, of this rank's ``model``.

    What is in no group requires no gradient. A collective.
    """
    if ranks.size == 1:
        return find()
    found = find() if ranks.leads else Grouping((), ())
    stacks = _agreed_stacks(found.stacks, model, ranks)
    names = _names(model)
    told = ranks.agree(
        [replace(group, parameters=(), block=_named(group.block, names)) for group in found.groups]
    )
    unreached, frozen = ranks.agree((found.unreached, found.frozen))
    here = dict(model.named_parameters())
    trained = {name for group in told for name in group.names}
    for name, parameter in here.items():
        if name not in trained:
            parameter.requires_grad_(False)
    groups = [
        replace(
            group,
            parameters=tuple(here[name] for name in group.names),
            block=_module(group.block, model),
        )
        for group in told
    ]
    return Grouping(tuple(groups), stacks, unreached, frozen)


def _agreed_stacks(stacks: Sequence[Stack], model: nn.Module, ranks: Ranks) -> tuple[Stack, ...]:
    names = _names(model) if ranks.leads else {}
    told = ranks.agree([replace(s, blocks=_all_named(s.blocks, names)) for s in stacks])
    return tuple(
        replace(stack, blocks=tuple(_module(block, model) for block in stack.blocks))
        for stack in told
    )


def _names(model: nn.Module) -> dict[int, str]:
    return {id(module): name for name, module in model.named_modules()}


def _all_named(modules: Iterable[nn.Module], names: dict[int, str]) -> Any:
    return tuple(_named(module, names) for module in modules)


def _named(module: nn.Module | None, names: dict[int, str]) -> Any:
    return None if module is None else _Module(names[id(module)])


def _module(named: Any, model: nn.Module) -> Any:
    return None if named is None else model.get_submodule(named.name)
