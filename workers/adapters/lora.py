"""LoRA beside the linear maps of a model's blocks, through peft, in place.

Blocks, stacks and modules stay the objects they were, so what has been found out of the model holds
still. B begins at zero: until the first step the model computes what it was loaded as.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase
from typing import Any

import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.tuners_utils import BaseTunerLayer, _check_lora_target_modules_mamba
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor
from transformers.pytorch_utils import Conv1D

from sweeps.errors import UserError
from sweeps.spec import Lora
from sweeps.spec.training.block_ranges import BlockRange, block_range
from workers.depth.observation import observe
from workers.depth.stacks import Stack, blocks_in, ranges_of
from workers.models.pretrained import FEW_TOKENS, PretrainedModel, input_rows, inputs_of
from workers.ranks.process_group import ALONE, Ranks

# What peft calls an adapter that has no name.
NAME = "default"
LINEAR = (nn.Linear, Conv1D)
EVERY_BLOCK = BlockRange(None, 1, sys.maxsize)


def add_lora(
    adapter: Lora, seed: int, name: str, pretrained: PretrainedModel, ranks: Ranks = ALONE
) -> None:
    """Add adapters to the model that errors call ``name``; nothing else of it is trained then.

    A depends on the seed alone. torch's generator is afterwards as it was, so that a new head is
    that of full training. A collective: the first rank says what gets one. Raises UserError where
    what the adapter names is not there.
    """
    where = f"model {name}: adapter"
    names = ranks.agree(target_names(adapter, pretrained, where) if ranks.leads else [])
    model = pretrained.language_model
    transposed = any(isinstance(model.get_submodule(one), Conv1D) for one in names)
    with torch.random.fork_rng(devices=[]), _where_they_are_made(model):
        torch.manual_seed(seed)
        inject_adapter_in_model(lora_config(adapter, names, transposed), model)


@contextmanager
def _where_they_are_made(model: nn.Module) -> Iterator[None]:
    """Surround the making of adapters beside fake tensors, which cannot be moved: they are of the
    type and on the device of the base already."""
    if not any(isinstance(parameter, FakeTensor) for parameter in model.parameters()):
        yield
        return
    modules: Any = nn.Module
    move = modules._apply
    modules._apply = lambda module, *_, **__: module
    try:
        yield
    finally:
        modules._apply = move


def lora_config(adapter: Lora, names: list[str], transposed: bool) -> LoraConfig:
    """Return what peft calls an adapter of the modules of these names, whose weights are (in, out)
    where ``transposed``."""
    return LoraConfig(
        r=adapter.rank,
        lora_alpha=adapter.alpha,
        target_modules=names,
        lora_dropout=0.0,
        fan_in_fan_out=transposed,
    )


def target_names(adapter: Lora, pretrained: PretrainedModel, where: str) -> list[str]:
    """Return the names of the modules that get an adapter, in forward order; errors begin with
    ``where``."""
    model = pretrained.language_model
    names = {id(module): name for name, module in model.named_modules()}
    passed = _passed_by(model)
    allowed = [
        (path, names[id(module)])
        for block in _blocks(adapter, pretrained.stacks, where)
        for path, module in block.named_modules()
        if isinstance(module, LINEAR) and id(module) not in passed and _takes_one(model, path)
    ]
    known = sorted({path for path, _ in allowed})
    for target in adapter.targets:
        if not any(_matches(path, target) for path in known):
            said = ", ".join(known[:8]) + (", …" if len(known) > 8 else "")
            raise UserError(
                f"{where}: no linear map of its blocks is {target!r}, or none that can have one;"
                f" they are {said or 'none'}"
            )
    wanted = adapter.targets or ("*",)
    found = [name for path, name in allowed if any(_matches(path, each) for each in wanted)]
    if not found:
        raise UserError(f"{where}: its blocks have no linear map; train its own weights")
    return list(dict.fromkeys(found))


def _blocks(adapter: Lora, stacks: Sequence[Stack], where: str) -> Iterator[nn.Module]:
    """Yield the blocks that an adapter is for, in forward order."""
    chosen: set[tuple[int, int]] = set()
    for entry in adapter.blocks or (None,):
        named = EVERY_BLOCK if entry is None else block_range(entry)
        assert named is not None
        found = blocks_in(named, stacks)
        if not found:
            has = " and ".join(ranges_of(stacks))
            raise UserError(f"{where}: layers {entry!r} are none of its; it has {has}")
        chosen |= found
    for s, b in sorted(chosen):
        yield stacks[s].blocks[b]


def _matches(path: str, target: str) -> bool:
    """Return whether a module's path within its block is what a target names."""
    return fnmatchcase(path, target) or fnmatchcase(path, f"*.{target}")


def _passed_by(model: nn.Module) -> set[int]:
    """Return the modules, by id, whose weights a forward pass reads without calling them: what
    stands beside such a weight would never be asked."""
    device = next(model.parameters()).device
    ids = torch.full((1, FEW_TOKENS), input_rows(model) // 2, device=device)
    observation = observe(model, lambda: model(**inputs_of(model, ids)))
    used = {id(parameter) for parameter, _ in observation.uses()}
    return {
        id(module)
        for module in model.modules()
        if isinstance(module, LINEAR)
        and id(module) not in observation.called
        and id(module.weight) in used
    }


def _takes_one(model: nn.Module, path: str) -> bool:
    """Return whether peft gives a module of this path an adapter: what a forward pass here calls,
    the kernels of some models pass by on a GPU."""
    try:
        _check_lora_target_modules_mamba(LoraConfig(), model, path.rpartition(".")[2])
    except ValueError:
        return False
    return True


# ---------------------------------------------------------------------------------------- weights
def adapted(model: nn.Module) -> dict[str, BaseTunerLayer]:
    """Return the modules of a model that have an adapter, by name."""
    return {name: part for name, part in model.named_modules() if isinstance(part, BaseTunerLayer)}


@torch.no_grad()
def change_of(layer: Any, a: Tensor, b: Tensor) -> Tensor:
    """Return what an adapter of matrices ``a`` (r, in) and ``b`` (out, r) adds to the weight of its
    module, in the shape that the weight has."""
    product: Tensor = layer.scaling[NAME] * (b @ a)
    return product.T if layer.fan_in_fan_out else product


def merge(model: nn.Module) -> None:
    """Add every adapter of a model to the weight it stands beside, and take it away."""
    for name, layer in adapted(model).items():
        module: Any = layer
        module.merge()
        holder, _, last = name.rpartition(".")
        setattr(model.get_submodule(holder), last, module.get_base_layer())
