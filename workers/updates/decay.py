"""Which parameters weight decay moves: neither biases nor the weights of norms, unless all do."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from sweeps import spec


def decaying(
    names: Sequence[str], parameters: Sequence[Tensor], optimizer: spec.Optimizer
) -> list[bool]:
    """Return of each parameter, whole and by its name in the model, whether it decays."""
    if not optimizer.weight_decay:
        return [False for _ in names]
    return [
        optimizer.decay_all or not _is_left_out(name, parameter)
        for name, parameter in zip(names, parameters, strict=True)
    ]


def _is_left_out(name: str, parameter: Tensor) -> bool:
    """Return whether a parameter is a bias or a norm's: a vector, or called so where it is wider,
    as the biases of experts and the norms of heads are."""
    if sum(size > 1 for size in parameter.shape) < 2:
        return True
    *modules, own = name.lower().split(".")
    return own.endswith("bias") or "norm" in own or bool(modules and "norm" in modules[-1])
