"""Whether a model's weights are all in its files, and nothing of it is left there.

Loading gives random values to what a checkpoint lacks, and drops what the configuration has no
place for; both without an error. Here is told what of it matters: by where in the model a name
leads, not by how the name begins, since some models have no prefix that names begin with (T5).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import nn

from sweeps.errors import Impossible, UserError
from sweeps.sources.model_folder import StoredTensor
from workers.depth.observation import observe
from workers.models.pretrained import backbone_of, reader_of

# What is computed from a configuration and was kept beside weights by older code.
COMPUTED = re.compile(r"inv_freq|position_ids|(^|\.)freqs")
# Sequences and tokens of the forward pass in which the use of parameters is seen.
SAMPLE = (1, 16)


def require_own_weights(
    name: str, model: nn.Module, missing: Collection[str], needs_head: bool
) -> None:
    """Raise UserError where a checkpoint lacks weights of the language model, and Impossible where
    it lacks those of the output head alone and ``needs_head``.

    ``missing`` are names of parameters and buffers, without what is tied to a weight that is there.
    """
    inner = _Inside(model)
    own = sorted(key for key in missing if inner.has(key))
    if not needs_head and any(not inner.in_a_block(key) for key in own):
        # A pooler is in the backbone too; what is read of it does not go through that.
        reached = _reached(model)
        own = [key for key in own if inner.in_a_block(key) or key in reached]
    if own:
        raise UserError(
            f"model {name}: its checkpoint lacks {_listed(own)}, which config.json asks"
            " for; give the one that was saved with the weights"
        )
    head = sorted(key for key in missing if not inner.has(key))
    if head and needs_head:
        raise Impossible(
            f"model {name}: its checkpoint lacks {_listed(head)}; it was not pretrained for this"
            " objective"
        )


def require_place_for_all(
    name: str,
    path: str,
    model: nn.Module,
    unexpected: Collection[str],
    stored: Mapping[str, StoredTensor],
) -> None:
    """Raise UserError where a checkpoint has weights of a block, an embedding or another part of
    the language model that the configuration has no place for.

    Heads of other tasks may be there, and what is no weight: masks, positions and the like, told by
    their shapes and types as ``stored``, by name.
    """
    inner = _Inside(model)
    buffers = {key for key, _ in model.named_buffers(remove_duplicate=False)}
    dropped = sorted(
        key
        for key in unexpected
        if inner.leads_inside(key)
        and buffers.isdisjoint(inner.names_of(key))
        and not COMPUTED.search(key)
        and not _is_no_weight(_stored_as(key, stored))
    )
    if dropped:
        others = f" and {len(dropped) - 1} more" if dropped[1:] else ""
        raise UserError(
            f"model {name}: {path}: its weights have {dropped[0]}{others}, for which config.json"
            " has no place; give the configuration that was saved with them"
        )


def refuse_other_shapes(name: str, path: str, mismatched: Collection[tuple[str, Any, Any]]) -> None:
    """Raise UserError where weights have other shapes than their places."""
    if mismatched:
        key, found, wanted = min(mismatched)
        others = len(mismatched) - 1
        more = f", and {others} more do not fit" if others else ""
        raise UserError(
            f"model {name}: {path}: {key} has shape {tuple(found)}, and config.json makes it"
            f" {tuple(wanted)}{more}; give the configuration that was saved with the weights"
        )


def loading_from_headers(
    model: Any, stored: Mapping[str, StoredTensor]
) -> dict[str, Collection[Any]] | None:
    """Return what transformers would say of loading tensors of such names and shapes into a model
    on the meta device; None where it has to see values to tell.

    It is done as in loading, with tensors on the meta device: renamed, put together and tied as
    the family asks for.
    """
    # Only where it is asked for: transformers keeps no promise for these names.
    from transformers.conversion_mapping import get_model_conversion_mapping
    from transformers.core_model_loading import convert_and_load_state_dict_in_model
    from transformers.modeling_utils import LoadStateDictConfig

    how = LoadStateDictConfig(
        device_map={"": "meta"},
        dtype=torch.float32,
        ignore_mismatched_sizes=True,
        weight_mapping=get_model_conversion_mapping(model),
    )
    tensors = {key: torch.empty(one.shape, device="meta") for key, one in stored.items()}
    info, _ = convert_and_load_state_dict_in_model(model, tensors, how)
    if info.conversion_errors or info.error_msgs:
        return None
    model.tie_weights(missing_keys=info.missing_keys, recompute_mapping=False)
    model._adjust_missing_and_unexpected_keys(info)
    return {
        "missing_keys": info.missing_keys,
        "unexpected_keys": info.unexpected_keys,
        "mismatched_keys": info.mismatched_keys,
    }


class _Inside:
    """Where in a language model a name leads."""

    def __init__(self, model: nn.Module) -> None:
        self._modules = dict(model.named_modules(remove_duplicate=False))
        self._prefix = str(getattr(model, "base_model_prefix", ""))
        backbone = backbone_of(model)
        self._backbone = next(key for key, one in self._modules.items() if one is backbone)
        head = model.get_output_embeddings()  # type: ignore[operator]
        self._head = {key for key, one in self._modules.items() if key and one is head}

    def names_of(self, key: str) -> tuple[str, ...]:
        """Return what a tensor of a file may be called in the model: with its prefix, or without,
        where a backbone was saved with a head, or by itself."""
        beside = f"{self._prefix}."
        return key, beside + key, key.removeprefix(beside)

    def has(self, key: str) -> bool:
        """Return whether a parameter is of the backbone, and not of an output head in it."""
        if any(key.startswith(f"{head}.") for head in self._head):
            return False
        return not self._backbone or key.startswith(f"{self._backbone}.")

    def in_a_block(self, key: str) -> bool:
        """Return whether a name leads through a list of modules."""
        return any(isinstance(self._modules[one], nn.ModuleList) for one in self._way(key))

    def leads_inside(self, key: str) -> bool:
        """Return whether a name that the model has not got leads into a part of its backbone: a
        block, an embedding, or a module whose own parameter it would be. What hangs on the
        backbone itself (a pooler), or beside it, does not."""
        way = max(map(self._way, self.names_of(key)), key=len)
        inside = [one for one in way if self.has(f"{one}.") and one != self._backbone]
        if not inside:
            return False
        deepest = inside[-1]
        return (
            any(isinstance(self._modules[one], nn.ModuleList) for one in inside)
            or any(name.rpartition(".")[0] == deepest for name in self.names_of(key))
            or _is_of_embeddings(self._modules[deepest])
        )

    def _way(self, key: str) -> list[str]:
        """Return the modules that a name leads through, from the outside in."""
        parts = key.split(".")
        ways = [".".join(parts[:count]) for count in range(1, len(parts) + 1)]
        there = [way in self._modules for way in ways]
        return ways[: there.index(False)] if False in there else ways


def _is_of_embeddings(module: nn.Module) -> bool:
    kinds = [type(child) for child in (module, *module.children())]
    return nn.Embedding in kinds and nn.ModuleList not in kinds


def _reached(model: nn.Module) -> set[str]:
    """Return the names of the parameters that the hidden states of a model are made with; none
    where its code cannot be run on tokens alone, which is told elsewhere."""
    reader = reader_of(model)
    ids = torch.ones(SAMPLE, dtype=torch.long, device=next(model.parameters()).device)
    try:
        seen = observe(reader, lambda: reader(input_ids=ids).last_hidden_state)
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except Exception:
        return set()
    used = {id(parameter) for parameter, _ in seen.uses()}
    named = model.named_parameters(remove_duplicate=False)
    return {key for key, parameter in named if id(parameter) in used}


def _stored_as(key: str, stored: Mapping[str, StoredTensor]) -> StoredTensor | None:
    """Return the tensor that a name was read from; loading may have put a prefix before it, or
    taken one off."""
    if key in stored:
        return stored[key]
    ends = (one for one in stored if one.endswith(f".{key}") or key.endswith(f".{one}"))
    return next((stored[one] for one in ends), None)


def _is_no_weight(tensor: StoredTensor | None) -> bool:
    """Return whether a tensor is a mask, a counter or a constant: whole numbers or truth values,
    one number, or a square for all sequences and heads."""
    if tensor is None:
        return False
    mask = len(tensor.shape) == 4 and tensor.shape[:2] == (1, 1)
    return mask or not tensor.is_floating or tensor.numel <= 1


def _listed(keys: list[str]) -> str:
    more = f" and {len(keys) - 2} more" if len(keys) > 2 else ""
    return f"{', '.join(keys[:2])}{more}"
