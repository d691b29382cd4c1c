"""Code that asks a tensor for its numbers, where tensors have none.

Under fake tensors a step has shapes and types and no values. What reads one back, a norm for the
record or a branch of a model, is told a 1, so that it goes on.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
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
        return func(*args, **(kwargs or {}))


@contextmanager
def fake_numbers() -> Iterator[None]:
    """Surround code that builds and runs models without memory."""
    with FakeTensorMode(), _Answers():  # type: ignore[no-untyped-call]
        yield
