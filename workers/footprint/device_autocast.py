"""The autocast of a GPU on fake tensors of the CPU, whose own casts other operations.

A tensor of a GPU needs a torch that was built for one, even where it is fake. So what is traced
lies on the CPU, and autocast there is taught what a GPU's computes in float32: the outputs of
norms, powers and softmaxes are then as large as they will be. Products are in bf16 on both.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only

# https://docs.pytorch.org/docs/stable/amp.html, "CUDA Ops that can autocast to float32".
IN_FLOAT32 = (
    *("acos", "asin", "cosh", "cosine_similarity", "erfinv", "exp", "expm1", "group_norm"),
    *("layer_norm", "log", "log10", "log1p", "log2", "logsumexp"),
    *("native_layer_norm", "nll_loss", "pow.Scalar", "pow.Tensor_Scalar", "pow.Tensor_Tensor"),
    *("reciprocal", "rsqrt", "sinh", "smooth_l1_loss", "softplus", "tan"),
)
# The result of these has the type that is asked for, and float32 where none is.
BY_DTYPE = (
    *("cumprod", "cumsum", "log_softmax.int", "prod", "prod.dim_int", "softmax.int"),
    *("sum", "sum.dim_IntList"),
)
NARROW = (torch.bfloat16, torch.float16)


@contextmanager
def autocast_as_on_a_gpu() -> Iterator[None]:
    """Surround code for which autocast on the CPU casts what a GPU's does."""
    library = torch.library.Library("aten", "IMPL")  # type: ignore[no-untyped-call]
    try:
        for name in (*IN_FLOAT32, *BY_DTYPE):
            packet, _, overload = name.partition(".")
            operation = getattr(getattr(torch.ops.aten, packet), overload or "default")
            cast = _widened(operation, by_dtype=name in BY_DTYPE)
            with warnings.catch_warnings():  # that the CPU's own cast is overridden
                warnings.simplefilter("ignore")
                library.impl(name, cast, "AutocastCPU")  # type: ignore[no-untyped-call]
        yield
    finally:
        library._destroy()  # type: ignore[no-untyped-call]


def _widened(operation: Any, *, by_dtype: bool) -> Any:
    """Return an operation that casts what is narrower than float32, outside of autocast."""
    autocast = torch._C.DispatchKeySet(torch._C.DispatchKey.AutocastCPU)

    def called(*args: Any, **kwargs: Any) -> Any:
        with torch._C._ExcludeDispatchKeyGuard(autocast):
            if not (by_dtype and kwargs.get("dtype") is not None):
                args, kwargs = tree_map_only(Tensor, _wide, (args, kwargs))
            return operation(*args, **kwargs)

    return called


def _wide(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.dtype in NARROW else tensor
