"""Two halves of a dataset that share no row, in stretches that are dealt to groups."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from sweeps.rows.cells import texts_in

Half = Literal["all", "first", "second"]
Rows = dict[str, list[Any]]
Numbers = NDArray[np.int64]
# Neighbouring rows stay together: packed text reads on from one row to the next, and neighbours are
# alike, so that groups which shared a stretch would agree by that alone.
STRETCHES = 256
# More than any token has on average.
CHARACTERS = 16
# Of that many stretches at least, where there is more text than is read.
SPREAD = 64


def stretches_of(rows: Rows, half: Half, seed: int, examples: int, length: int) -> list[Numbers]:
    """Return the numbers of the rows of one half, or of both, in seeded stretches of neighbours.

    Equal seeds cut equally, whatever the roles: no row is in the first half and in the second.
    Where there are more, only so many are taken as are surely enough for so many ``examples`` of
    ``length`` tokens, one a row or packed, and no more of a stretch than its share of that. The
    half of a single row may be empty.
    """
    count = len(next(iter(rows.values())))
    parts = [part for part in np.array_split(np.arange(count), STRETCHES) if len(part)]
    order = np.random.default_rng(seed).permutation(len(parts))
    middle = (len(order) + 1) // 2
    wanted = {"all": order, "first": order[:middle], "second": order[middle:]}[half]
    full, read = CHARACTERS * length, 0
    found: list[Numbers] = []
    for number in wanted:
        if read >= examples * full:
            break
        until, count = read + examples * full / SPREAD, 0
        for row in zip(*taken(rows, parts[number]).values(), strict=True):
            if read >= until:
                break
            read += min(full, sum(len(text) for cell in row for text in texts_in(cell)))
            count += 1
        found.append(parts[number][:count])
    return found


def dealt(stretches: Sequence[Numbers], sizes: Sequence[int], groups: int) -> list[Numbers]:
    """Return the rows of each of so many groups: every stretch goes, in turn, to the one with the
    least so far. Text ends where it ends in the smallest group."""
    found: list[list[Numbers]] = [[] for _ in range(groups)]
    held = [0] * groups
    for stretch, size in zip(stretches, sizes, strict=True):
        least = held.index(min(held))
        found[least].append(stretch)
        held[least] += size
    none = np.empty(0, dtype=np.int64)
    return [np.concatenate([none, *group]) for group in found]


def characters(rows: Rows) -> int:
    """Return how long all texts of rows are together."""
    return sum(len(text) for text in text_of(rows))


def taken(rows: Rows, numbers: Numbers) -> Rows:
    """Return rows by their numbers."""
    return {role: [cells[number] for number in numbers] for role, cells in rows.items()}


def text_of(rows: Rows) -> list[str]:
    """Return all texts of rows as plain text: row by row, each role's, without labels."""
    cells = zip(*rows.values(), strict=True)
    return [text for row in cells for cell in row for text in texts_in(cell)]
