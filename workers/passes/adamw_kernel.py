"""AdamW's passes as machine code, compiled by numba from the loops below.

Imported where it is used only: it loads a compiler. The code is compiled once for a machine's
processor and kept where Python keeps this module's own bytecode, or where that cannot be written
to (a shared installation) in the user's own cache: who could change it could change the module.

Each function works on rows ``first`` to ``last`` of a table, one row a stretch of memory, and lets
other threads run. No flag lets the compiler assume that numbers are finite: a run that diverges has
to show it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import carray, njit, types
from numba.extending import intrinsic

# Columns of a row: addresses of float32 weights, gradient and moments; how many; the numbers of
# the layer and of what a control scales as one; 1 where weights decay.
WEIGHTS, GRADIENTS, MEANS, SQUARES, COUNT, LAYER, UNIT, DECAYS = range(8)
COLUMNS = 8
SIZE = 4  # bytes of a number
# How many squares are added in float32, in parts that a vector has side by side; blocks are added
# in float64.
BLOCK = 4096
# Columns of what differs from layer to layer.
FACTOR, STEP_SIZE, DECAY = range(3)

OPTIONS: dict[str, Any] = {
    "nogil": True,
    "cache": True,
    # As processors do: 0/0 is NaN, no exception.
    "error_model": "numpy",
    # A product and a sum at once, and sums in any one order: what vectors need.
    "fastmath": {"contract", "reassoc", "nsz"},
}

_NUMBER, _FLAG, _INDEX = types.float32, types.boolean, types.int64
_TABLE, _LAYERS = types.int64[:, ::1], types.float32[:, ::1]
_FOUND, _MARKS, _FACTORS = types.float64[:, ::1], types.boolean[::1], types.float32[::1]
_ROWS = (_TABLE, _INDEX, _INDEX)


def _pointer_of(typing_context: Any, address: Any) -> Any:
    del typing_context, address

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], context.get_value_type(signature.return_type))

    return types.CPointer(types.float32)(types.int64), generate


_pointer: Any = intrinsic(_pointer_of)


def _update_block(
    weights: Any,
    gradients: Any,
    means: Any,
    squares: Any,
    waits: Any,
    layer: Any,
    decay: Any,
    one_less_beta1: Any,
    beta2: Any,
    one_less_beta2: Any,
    over_root: Any,
    eps: Any,
) -> Any:
    """Advance moments; subtract the update from the weights, or leave it in the gradient's place;
    return the squared norms of gradient, update and weights."""
    of_gradient = of_update = of_weight = np.float32(0)
    factor, step_size = layer[FACTOR], layer[STEP_SIZE]
    # Two loops, since a condition within one would be asked for every number.
    if waits:
        for k in range(weights.size):
            weight, gradient = weights[k], gradients[k] * factor
            mean = means[k] + (gradient - means[k]) * one_less_beta1
            square = beta2 * squares[k] + one_less_beta2 * (gradient * gradient)
            update = step_size * mean / (np.sqrt(square) * over_root + eps) + decay * weight
            means[k], squares[k], gradients[k] = mean, square, update
            of_gradient += gradient * gradient
            of_update += update * update
            of_weight += weight * weight
    else:
        for k in range(weights.size):
            weight, gradient = weights[k], gradients[k] * factor
            mean = means[k] + (gradient - means[k]) * one_less_beta1
            square = beta2 * squares[k] + one_less_beta2 * (gradient * gradient)
            update = step_size * mean / (np.sqrt(square) * over_root + eps) + decay * weight
            means[k], squares[k], weights[k] = mean, square, weight - update
            of_gradient += gradient * gradient
            of_update += update * update
            of_weight += weight * weight
    return of_gradient, of_update, of_weight


_update_block = njit(**OPTIONS)(_update_block)


def _update_unmeasured(
    weights: Any,
    gradients: Any,
    means: Any,
    squares: Any,
    layer: Any,
    decay: Any,
    one_less_beta1: Any,
    beta2: Any,
    one_less_beta2: Any,
    over_root: Any,
    eps: Any,
) -> None:
    """Do the same to weights and moments, to the last bit, and measure nothing."""
    factor, step_size = layer[FACTOR], layer[STEP_SIZE]
    for k in range(weights.size):
        weight, gradient = weights[k], gradients[k] * factor
        mean = means[k] + (gradient - means[k]) * one_less_beta1
        square = beta2 * squares[k] + one_less_beta2 * (gradient * gradient)
        update = step_size * mean / (np.sqrt(square) * over_root + eps) + decay * weight
        means[k], squares[k], weights[k] = mean, square, weight - update


# There is no sum to take in another order; where the update itself is not asked for, the compiler
# would take it apart.
_update_unmeasured = njit(**{**OPTIONS, "fastmath": {"contract"}})(_update_unmeasured)


def _update(
    rows: Any,
    first: Any,
    last: Any,
    waits: Any,
    measured: Any,
    layers: Any,
    one_less_beta1: Any,
    beta2: Any,
    one_less_beta2: Any,
    over_root: Any,
    eps: Any,
    found: Any,
) -> None:
    for r in range(first, last):
        i = rows[r, LAYER]
        decay = layers[i, DECAY] if rows[r, DECAYS] else np.float32(0)
        found[r, :] = 0
        for start in range(0, rows[r, COUNT], BLOCK):
            n, offset = min(BLOCK, rows[r, COUNT] - start), SIZE * start
            weights = carray(_pointer(rows[r, WEIGHTS] + offset), n)
            gradients = carray(_pointer(rows[r, GRADIENTS] + offset), n)
            means = carray(_pointer(rows[r, MEANS] + offset), n)
            squares = carray(_pointer(rows[r, SQUARES] + offset), n)
            if not (measured or waits[i]):
                _update_unmeasured(
                    weights,
                    gradients,
                    means,
                    squares,
                    layers[i],
                    decay,
                    one_less_beta1,
                    beta2,
                    one_less_beta2,
                    over_root,
                    eps,
                )
                continue
            of_gradient, of_update, of_weight = _update_block(
                weights,
                gradients,
                means,
                squares,
                waits[i],
                layers[i],
                decay,
                one_less_beta1,
                beta2,
                one_less_beta2,
                over_root,
                eps,
            )
            found[r, 0] += of_gradient
            found[r, 1] += of_update
            found[r, 2] += of_weight


def _sum_of_squares(address: Any, count: Any) -> Any:
    total: Any = 0.0
    for start in range(0, count, BLOCK):
        n = min(BLOCK, count - start)
        numbers = carray(_pointer(address + SIZE * start), n)
        of_block: Any = np.float32(0)
        for k in range(n):
            of_block += numbers[k] * numbers[k]
        total += of_block
    return total


_sum_of_squares = njit(**OPTIONS)(_sum_of_squares)


def _measure(rows: Any, first: Any, last: Any, gradients: Any, weights: Any, found: Any) -> None:
    for r in range(first, last):
        n = rows[r, COUNT]
        if gradients:
            found[r, 0] = _sum_of_squares(rows[r, GRADIENTS], n)
        if weights:
            found[r, 2] = _sum_of_squares(rows[r, WEIGHTS], n)


def _apply(rows: Any, first: Any, last: Any, waits: Any, factors: Any) -> None:
    for r in range(first, last):
        if waits[rows[r, LAYER]]:
            n, factor = rows[r, COUNT], factors[rows[r, UNIT]]
            weights = carray(_pointer(rows[r, WEIGHTS]), n)
            updates = carray(_pointer(rows[r, GRADIENTS]), n)
            for k in range(n):
                weights[k] -= factor * updates[k]


Function = Callable[..., None]

# With their types given they are compiled, or read, where this module is imported.
update = njit(types.void(*_ROWS, _MARKS, _FLAG, _LAYERS, *[_NUMBER] * 5, _FOUND), **OPTIONS)(
    _update
)
measure = njit(types.void(*_ROWS, _FLAG, _FLAG, _FOUND), **OPTIONS)(_measure)
apply = njit(types.void(*_ROWS, _MARKS, _FACTORS), **OPTIONS)(_apply)
