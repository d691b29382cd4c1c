"""What is known of functions that are given weights: what a weight's gradient is made of.

Each function here stands for one of torch's, by which ``KNOWN`` has it; see ``watching.Known``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from workers.sample_gradients.watching import OF_WEIGHTS, Known, Watch


def _product(
    watch: Watch, out: Tensor, given: Tensor, weight: Tensor, bias: Any, *, transposed: bool
) -> None:
    """Watch out = given·Wᵀ + bias, W (out, in), or given·W where it is ``transposed``."""
    number, to_bias = watch.number(weight), watch.receiver(bias)
    of_weight = watch.expect(number, weight) if number is not None else None
    inputs = given.detach()

    def reached(gradient: Tensor) -> None:
        outputs = watch.rows(gradient.float(), 1)
        of_inputs = watch.rows(inputs.float(), 1)
        assert outputs is not None
        assert of_inputs is not None
        if of_weight is not None:
            of_weight.products.append((of_inputs, outputs) if transposed else (outputs, of_inputs))
            watch.came_to(number)
        if to_bias is not None:
            to_bias(outputs.sum(1))

    watch.when_reached(out, given, reached)


def _linear(watch: Watch, func: Any, args: Any, kwargs: Any) -> Any:
    given, weight, bias = _bound(("input", "weight", "bias"), args, kwargs)
    if not _fits(watch, given, 1) or hasattr(weight, OF_WEIGHTS):
        return NotImplemented
    out = func(*args, **kwargs)
    _product(watch, out, given, weight, bias, transposed=False)
    return out


def _addmm(watch: Watch, func: Any, args: Any, kwargs: Any) -> Any:
    bias, given, weight = _bound(("input", "mat1", "mat2"), args, kwargs)
    scaled = bool({"beta", "alpha"} & set(kwargs)) or len(args) > 3
    if scaled or not _fits(watch, given, 1) or hasattr(weight, OF_WEIGHTS) or bias.dim() != 1:
        return NotImplemented
    out = func(*args, **kwargs)
    _product(watch, out, given, weight, bias, transposed=True)
    return out


def _matmul(watch: Watch, func: Any, args: Any, kwargs: Any) -> Any:
    if kwargs or len(args) != 2 or not all(isinstance(one, Tensor) for one in args):
        return NotImplemented
    left, right = args[::-1] if func.__name__ == "__rmatmul__" else args
    if watch.number(right) is not None and right.dim() == 2 and _fits(watch, left, 1):
        out = func(*args)
        _product(watch, out, left, right, None, transposed=True)
        return out
    number = watch.number(left)
    if number is None or left.dim() != 2 or right.dim() != 3 or not _fits(watch, right, 2):
        return NotImplemented
    out = func(*args)
    uses, columns = watch.expect(number, left), right.detach()

    def reached(gradient: Tensor) -> None:
        uses.products.append((gradient.float().mT, columns.float().mT))
        watch.came_to(number)

    watch.when_reached(out, right, reached)
    return out


def _embedding(watch: Watch, func: Any, args: Any, kwargs: Any) -> Any:
    names = ("input", "weight", "padding_idx", "max_norm", "norm_type", "scale_grad_by_freq")
    rows, weight, padding, max_norm, _, by_frequency = _bound(names, args, kwargs)
    number = watch.number(weight)
    if number is None or max_norm is not None or by_frequency or rows.dim() != 2:
        return NotImplemented
    if not watch.varies(rows):
        # Positions are the same for all, and each example looks them up for itself; others that are
        # made of no example, as distances of tokens, are no matter of examples.
        if len(rows) not in (1, watch.examples) or not bool((rows == rows[:1]).all()):
            return NotImplemented
        every = rows[:1].expand(watch.examples, -1)
        args, kwargs = _replaced(rows, every, args, kwargs)
        rows = every
    elif len(rows) != watch.examples:
        return NotImplemented
    out = func(*args, **kwargs)
    uses = watch.expect(number, weight)
    # Asked now: ranks that share a weight let go of it after the pass.
    filler = None if padding is None else padding % len(weight)

    def reached(gradient: Tensor) -> None:
        found = gradient.float()
        if filler is not None:
            found = found.masked_fill((rows == filler).unsqueeze(-1), 0.0)
        uses.lookups.append((rows, found))
        watch.came_to(number)

    watch.when_reached(out, rows, reached)
    return out


# What torch gives of a convolution's weights; it has no types.
_of_weights: Callable[..., Tensor] = torch.nn.grad.conv1d_weight  # type: ignore[attr-defined]


def _norm(normalise: Callable[..., Tensor], *names: str) -> Known:
    """Return what watches a norm over the last axes with weights on what it has normalised."""

    def known(watch: Watch, func: Any, args: Any, kwargs: Any) -> Any:
        said = dict(zip(names, _bound(names, args, kwargs), strict=True))
        given, shape = said["input"], said["normalized_shape"]
        if not _fits(watch, given, len(shape)):
            return NotImplemented
        out = func(*args, **kwargs)
        to_weight, to_bias = watch.receiver(said["weight"]), watch.receiver(said.get("bias"))
        inputs = given.detach()
        options = {} if said["eps"] is None else {"eps": said["eps"]}

        def summed(values: Tensor) -> Tensor:
            rows = watch.rows(values, len(shape))
            assert rows is not None
            return rows.sum(1)

        def reached(gradient: Tensor) -> None:
            gradient = gradient.float()
            if to_weight is not None:
                to_weight(summed(gradient * normalise(inputs.float(), shape, **options)))
            if to_bias is not None:
                to_bias(summed(gradient))

        watch.when_reached(out, given, reached)
        return out

    return known


def _conv1d(watch: Watch, func: Any, args: Any, kwargs: Any) -> Any:
    names = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")
    given, weight, bias, *how = _bound(names, args, kwargs)
    stride, padding, dilation, groups = (
        usual if one is None else one for one, usual in zip(how, (1, 0, 1, 1), strict=True)
    )
    if isinstance(padding, str) or given.dim() != 3 or not _fits(watch, given, 2):
        return NotImplemented
    out = func(*args, **kwargs)
    to_weight, to_bias = watch.receiver(weight), watch.receiver(bias)
    inputs, examples, shape = given.detach(), len(given), weight.shape

    def reached(gradient: Tensor) -> None:
        gradient = gradient.float()
        if to_weight is not None:
            # Every example's channels are groups of their own in one convolution.
            made = _of_weights(
                inputs.float().reshape(1, -1, inputs.shape[2]),
                (examples * shape[0], *shape[1:]),
                gradient.reshape(1, -1, gradient.shape[2]),
                stride,
                padding,
                dilation,
                examples * groups,
            )
            to_weight(made.reshape(examples, *shape))
        if to_bias is not None:
            to_bias(gradient.sum(2))

    watch.when_reached(out, given, reached)
    return out


def _fits(watch: Watch, given: Any, trailing: int) -> bool:
    """Return whether something is made of the examples, and its leading axes are theirs."""
    return watch.varies(given) and watch.rows(given, trailing) is not None


def _bound(names: tuple[str, ...], args: Any, kwargs: Any) -> tuple[Any, ...]:
    """Return arguments in the order of their names; None for one that is not given."""
    given = {**dict(zip(names, args, strict=False)), **kwargs}
    return tuple(given.get(name) for name in names)


def _replaced(old: Tensor, new: Tensor, args: Any, kwargs: Any) -> tuple[Any, Any]:
    args = tuple(new if one is old else one for one in args)
    return args, {name: new if one is old else one for name, one in kwargs.items()}


KNOWN: dict[Any, Known] = {
    F.linear: _linear,
    torch.addmm: _addmm,
    torch.matmul: _matmul,
    Tensor.matmul: _matmul,
    Tensor.__matmul__: _matmul,
    Tensor.__rmatmul__: _matmul,
    F.embedding: _embedding,
    F.layer_norm: _norm(F.layer_norm, "input", "normalized_shape", "weight", "bias", "eps"),
    F.rms_norm: _norm(F.rms_norm, "input", "normalized_shape", "weight", "eps"),
    F.conv1d: _conv1d,
}
