"""AdamW's passes as machine code, compiled by numba from the loops below.

Imported where it is used only: it loads a compiler. The code is compiled once for a machine's
processor and kept where Python keeps this module's own bytecode, or where that cannot be written
to (a shared installation) in the user's own cache: who could change it could change the module.

Each work takes parts of a table, one row a stretch of memory, until all are taken, side by side
with other threads that do (`workers.passes.row_threads.Work`). No flag lets the compiler assume
that numbers are finite: a run that diverges has to show it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]
from numba import carray, cfunc, njit, types
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

# Numbers of a job: the first three as every job has them, then addresses of arrays, how long they
# are, and what is measured.
TAKEN, BOUNDS, PARTS = range(3)
ROWS, ROW_COUNT, LAYER_COUNT, UNIT_COUNT = range(3, 7)
MARKS, LAYERS, NUMBERS, FACTORS, FOUND = range(7, 12)
OF_GRADIENTS, OF_WEIGHTS = range(12, 14)
JOB = 14
# What an update has of every layer alike.
ONE_LESS_BETA1, BETA2, ONE_LESS_BETA2, OVER_ROOT, EPS = range(5)

OPTIONS: dict[str, Any] = {
    "cache": True,
    # As processors do: 0/0 is NaN, no exception.
    "error_model": "numpy",
    # A product and a sum at once, and sums in any one order: what vectors need.
    "fastmath": {"contract", "reassoc", "nsz"},
}


def _pointer_to(kind: Any) -> Any:
    def to_pointer(typing_context: Any, address: Any) -> Any:
        del typing_context, address

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            return builder.inttoptr(arguments[0], context.get_value_type(signature.return_type))

        return types.CPointer(kind)(types.int64), generate

    return intrinsic(to_pointer)


_floats, _doubles = _pointer_to(types.float32), _pointer_to(types.float64)
_integers, _flags = _pointer_to(types.int64), _pointer_to(types.boolean)


def _counted_up(typing_context: Any, address: Any) -> Any:
    """Add 1 to a number that threads share; return what it was."""
    del typing_context, address

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        del context, signature
        number = ir.IntType(64)
        place = builder.inttoptr(arguments[0], number.as_pointer())
        return builder.atomic_rmw("add", place, ir.Constant(number, 1), "seq_cst")

    return types.int64(types.int64), generate


_take: Any = intrinsic(_counted_up)


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
            weights = carray(_floats(rows[r, WEIGHTS] + offset), n)
            gradients = carray(_floats(rows[r, GRADIENTS] + offset), n)
            means = carray(_floats(rows[r, MEANS] + offset), n)
            squares = carray(_floats(rows[r, SQUARES] + offset), n)
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


_update = njit(**OPTIONS)(_update)


def _sum_of_squares(address: Any, count: Any) -> Any:
    total: Any = 0.0
    for start in range(0, count, BLOCK):
        n = min(BLOCK, count - start)
        numbers = carray(_floats(address + SIZE * start), n)
        of_block: Any = np.float32(0)
        for k in range(n):
            of_block += numbers[k] * numbers[k]
        total += of_block
    return total


_sum_of_squares = njit(**OPTIONS)(_sum_of_squares)


def _update_parts(address: Any) -> None:
    job = carray(_integers(address), JOB)
    bounds = carray(_integers(job[BOUNDS]), job[PARTS] + 1)
    rows = carray(_integers(job[ROWS]), (job[ROW_COUNT], COLUMNS))
    marks = carray(_flags(job[MARKS]), job[LAYER_COUNT])
    layers = carray(_floats(job[LAYERS]), (job[LAYER_COUNT], 3))
    numbers = carray(_floats(job[NUMBERS]), 5)
    found = carray(_doubles(job[FOUND]), (job[ROW_COUNT], 3))
    measured = job[OF_GRADIENTS] != 0
    part = _take(address)
    while part < job[PARTS]:
        _update(
            rows,
            bounds[part],
            bounds[part + 1],
            marks,
            measured,
            layers,
            numbers[ONE_LESS_BETA1],
            numbers[BETA2],
            numbers[ONE_LESS_BETA2],
            numbers[OVER_ROOT],
            numbers[EPS],
            found,
        )
        part = _take(address)


def _measure_parts(address: Any) -> None:
    job = carray(_integers(address), JOB)
    bounds = carray(_integers(job[BOUNDS]), job[PARTS] + 1)
    rows = carray(_integers(job[ROWS]), (job[ROW_COUNT], COLUMNS))
    found = carray(_doubles(job[FOUND]), (job[ROW_COUNT], 3))
    part = _take(address)
    while part < job[PARTS]:
        for r in range(bounds[part], bounds[part + 1]):
            n = rows[r, COUNT]
            if job[OF_GRADIENTS]:
                found[r, 0] = _sum_of_squares(rows[r, GRADIENTS], n)
            if job[OF_WEIGHTS]:
                found[r, 2] = _sum_of_squares(rows[r, WEIGHTS], n)
        part = _take(address)


def _apply_parts(address: Any) -> None:
    job = carray(_integers(address), JOB)
    bounds = carray(_integers(job[BOUNDS]), job[PARTS] + 1)
    rows = carray(_integers(job[ROWS]), (job[ROW_COUNT], COLUMNS))
    marks = carray(_flags(job[MARKS]), job[LAYER_COUNT])
    factors = carray(_floats(job[FACTORS]), job[UNIT_COUNT])
    part = _take(address)
    while part < job[PARTS]:
        for r in range(bounds[part], bounds[part + 1]):
            if marks[rows[r, LAYER]]:
                n, factor = rows[r, COUNT], factors[rows[r, UNIT]]
                weights = carray(_floats(rows[r, WEIGHTS]), n)
                updates = carray(_floats(rows[r, GRADIENTS]), n)
                for k in range(n):
                    weights[k] -= factor * updates[k]
        part = _take(address)


# With their types given they are compiled, or read, where this module is imported.
update, measure, apply = (
    cfunc(types.void(types.int64), **OPTIONS)(work)
    for work in (_update_parts, _measure_parts, _apply_parts)
)
