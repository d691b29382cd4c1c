"""AdamW's passes on an accelerator, compiled by Triton from the loops below.

Imported where it is used only: torch's builds for CUDA bring Triton along, those for a CPU do not.
Each program works on one row of a table, in blocks; where Triton's interpreter runs them instead,
on a CPU, memory is that of the tensors all the same. Arguments have no types: the compiler reads an
annotation as code, and the interpreter does not.
"""

# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

import triton
import triton.language as tl

# Columns of a row: addresses of float32 weights, gradient and moments; how many; the numbers of
# the layer and of what a control scales as one; 1 where weights decay.
COLUMNS = 8
# Columns of what differs from layer to layer: what multiplies the gradient, the update over the
# corrected means, and decaying weights; one over the root of the correction of squares.
OF_LAYER = 4


@triton.jit  # type: ignore[untyped-decorator]
def update(
    rows,
    layers,
    waits,
    found,
    one_less_beta1,
    beta2,
    one_less_beta2,
    eps,
    MEASURED: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Advance moments; subtract the update from the weights, or leave it in the gradient's place;
    put the squared norms of gradient, update and weights of row r at 3·r where ``MEASURED``."""
    r = tl.program_id(0)
    row = rows + 8 * r
    weights = tl.load(row).to(tl.pointer_type(tl.float32))
    gradients = tl.load(row + 1).to(tl.pointer_type(tl.float32))
    means = tl.load(row + 2).to(tl.pointer_type(tl.float32))
    squares = tl.load(row + 3).to(tl.pointer_type(tl.float32))
    count = tl.load(row + 4)
    number = tl.load(row + 5)
    decays = tl.load(row + 7)
    layer = layers + 4 * number
    factor = tl.load(layer)
    step_size = tl.load(layer + 1)
    decay = tl.where(decays != 0, tl.load(layer + 2), 0.0)
    over_root = tl.load(layer + 3)
    # Of weights and of gradients so many are written: one or the other.
    moves = tl.where(tl.load(waits + number) == 0, count, 0)
    keeps = count - moves
    of_gradient = tl.zeros([BLOCK], dtype=tl.float32)
    of_update = tl.zeros([BLOCK], dtype=tl.float32)
    of_weight = tl.zeros([BLOCK], dtype=tl.float32)
    for start in range(0, count, BLOCK):
        k = start + tl.arange(0, BLOCK)
        inside = k < count
        weight = tl.load(weights + k, mask=inside, other=0.0)
        gradient = tl.load(gradients + k, mask=inside, other=0.0) * factor
        mean = tl.load(means + k, mask=inside, other=0.0)
        square = tl.load(squares + k, mask=inside, other=0.0)
        mean = mean + (gradient - mean) * one_less_beta1
        square = beta2 * square + one_less_beta2 * (gradient * gradient)
        divisor = tl.sqrt_rn(square) * over_root + eps
        moved = tl.div_rn(step_size * mean, divisor) + decay * weight
        tl.store(means + k, mean, mask=inside)
        tl.store(squares + k, square, mask=inside)
        tl.store(weights + k, weight - moved, mask=k < moves)
        tl.store(gradients + k, moved, mask=k < keeps)
        if MEASURED:
            # Beyond the end all four are 0, and 0 over eps is 0.
            of_gradient += gradient * gradient
            of_update += moved * moved
            of_weight += weight * weight
    if MEASURED:
        tl.store(found + 3 * r, tl.sum(of_gradient, 0))
        tl.store(found + 3 * r + 1, tl.sum(of_update, 0))
        tl.store(found + 3 * r + 2, tl.sum(of_weight, 0))


@triton.jit  # type: ignore[untyped-decorator]
def measure(rows, found, COLUMN: tl.constexpr, BLOCK: tl.constexpr):
    """Put the squared norm of row r's gradient (column 0) or weights (2) at 3·r and its column."""
    r = tl.program_id(0)
    row = rows + 8 * r
    numbers = tl.load(row + (1 if COLUMN == 0 else 0)).to(tl.pointer_type(tl.float32))
    count = tl.load(row + 4)
    total = tl.zeros([BLOCK], dtype=tl.float32)
    for start in range(0, count, BLOCK):
        k = start + tl.arange(0, BLOCK)
        number = tl.load(numbers + k, mask=k < count, other=0.0)
        total += number * number
    tl.store(found + 3 * r + COLUMN, tl.sum(total, 0))


@triton.jit  # type: ignore[untyped-decorator]
def apply(rows, waits, factors, BLOCK: tl.constexpr):
    """Subtract the updates that wait in gradients, times the factor of their unit."""
    r = tl.program_id(0)
    row = rows + 8 * r
    count = tl.load(row + 4)
    if tl.load(waits + tl.load(row + 5)) != 0:
        weights = tl.load(row).to(tl.pointer_type(tl.float32))
        updates = tl.load(row + 1).to(tl.pointer_type(tl.float32))
        factor = tl.load(factors + tl.load(row + 6))
        for start in range(0, count, BLOCK):
            k = start + tl.arange(0, BLOCK)
            inside = k < count
            weight = tl.load(weights + k, mask=inside, other=0.0)
            moved = tl.load(updates + k, mask=inside, other=0.0)
            tl.store(weights + k, weight - factor * moved, mask=inside)


@triton.jit  # type: ignore[untyped-decorator]
def add(found, by_unit, firsts, lengths, squares, BLOCK: tl.constexpr):
    """Put at 3·u + c the sum of ``found`` at 3·r + c over the rows r of unit u, in float64 and in
    one order: rows are ``by_unit``, those of u its ``lengths`` from its ``firsts`` on."""
    u = tl.program_id(0)
    c = tl.program_id(1)
    start = tl.load(firsts + u)
    count = tl.load(lengths + u)
    total = tl.zeros([BLOCK], dtype=tl.float64)
    for k in range(0, count, BLOCK):
        j = k + tl.arange(0, BLOCK)
        inside = j < count
        r = tl.load(by_unit + start + j, mask=inside, other=0)
        total += tl.load(found + 3 * r + c, mask=inside, other=0.0).to(tl.float64)
    tl.store(squares + 3 * u + c, tl.sum(total, 0))
