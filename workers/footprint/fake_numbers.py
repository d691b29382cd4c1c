"""Code that asks a tensor for its numbers, where tensors have none.

Under fake tensors a step has shapes and types and no values. What reads one back, a norm for the
record or a branch of a model, is told a 1, so that it goes on.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode


class _Answers(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Says 1 for any number that is read back, and places all over a tensor for its nonzeros."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        del types
        if func is torch.ops.aten._local_scalar_dense.default:
            kind = args[0].dtype
            return True if kind == torch.bool else 1.0 if kind.is_floating_point else 1
        if func is torch.ops.aten.nonzero.default:
            return args[0].new_empty((args[0].numel(), args[0].dim()), dtype=torch.long)
        if func is torch.ops.aten._grouped_mm.default:
            return _products_of_groups(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


def _products_of_groups(left: Tensor, right: Tensor, offs: Tensor, *_: Any, **__: Any) -> Tensor:
    """Return the result of a product of each expert's tokens: what torch says of its shape is for
    bfloat16 alone, though it multiplies float32, too."""
    if left.dim() == right.dim() == 2:  # the gradient of the experts' weights
        return left.new_empty((len(offs), left.shape[0], right.shape[1]))
    return left.new_empty((left.shape[-2], right.shape[-1]))


_moved = nn.Module.to


def _moved_if_need_be(module: nn.Module, *args: Any, **kwargs: Any) -> nn.Module:
    """Do as ``Module.to``, but leave a module as it is that is so already: torch would swap each
    fake parameter for another, which it cannot where somebody watches it."""
    device, dtype, *_ = torch._C._nn._parse_to(*args, **kwargs)
    for tensor in (*module.parameters(), *module.buffers()):
        if device is not None and tensor.device != device:
            break
        if dtype is not None and tensor.is_floating_point() and tensor.dtype != dtype:
            break
    else:
        return module
    return _moved(module, *args, **kwargs)


@contextmanager
def fake_numbers() -> Iterator[None]:
    """Surround code that builds and runs models without memory."""
    with FakeTensorMode(), _Answers(), patch.object(nn.Module, "to", _moved_if_need_be):  # type: ignore[no-untyped-call]
        yield
