"""One arithmetic for ``bf16``, whether the model's weights are float32 or DeepSpeed has cast them.

Under autocast a model of float32 weights has its matrix products in bf16, and in float32 its norms
and what runs between its blocks. A model of bf16 weights computes all in bf16 instead, and fails
where float32 is written out, as in Mamba's scan. What is done here to such a model makes it compute
as the other does, to the last bit, with the values that its weights have in bf16.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

# Where a module keeps the names of its parameters that it computes with in float32.
NAMES = "_computes_in_float32"


def compute_as_under_autocast(model: nn.Module, device: torch.device) -> None:
    """Have a model whose weights are bf16 compute as one of float32 weights does under autocast.

    Its parameters are still whole, in either type. Its ``forward`` brings the context with it,
    since DeepSpeed switches off one that is around it.
    """
    for module in model.modules():
        if isinstance(module, nn.Embedding):
            module.register_forward_hook(_in_float32)
            continue
        names = [n for n, p in module.named_parameters(recurse=False) if _is_no_factor(p)]
        if names and not isinstance(module, nn.Linear):
            module.__dict__[NAMES] = frozenset(names)
            kind: Any = type(module)
            module.__class__ = _computing_in_float32(kind)
    model.forward = torch.autocast(device.type, torch.bfloat16)(model.forward)


def _is_no_factor(parameter: Tensor) -> bool:
    """Return whether a parameter scales or is added, as in norms, and is no factor of a product:
    those are cast by autocast, and a float32 copy would only take memory."""
    return parameter.dim() < 2 or parameter.shape[0] == 1


def _in_float32(module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
    del module, inputs
    return output.float()


@cache
def _computing_in_float32(kind: Any) -> type[nn.Module]:
    """Return a module's class whose code sees some parameters cast to float32.

    DeepSpeed sees them as they are: ZeRO-3 finds, gathers and lets go of them by other ways.
    """

    def get(self: nn.Module, name: str) -> Any:
        found = kind.__getattr__(self, name)
        return found.float() if name in self.__dict__[NAMES] else found

    return type(kind.__name__, (kind,), {"__getattr__": get, "__module__": kind.__module__})
