"""Two halves of a dataset that share no row, and no more of them than is needed."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

Half = Literal["all", "first", "second"]
Rows = dict[str, list[Any]]
# Neighbouring rows stay together: packed text reads on from one row to the next.
STRETCHES = 256
# More than any token has on average.
CHARACTERS = 16


def half_of(rows: Rows, half: Half, seed: int, examples: int, length: int) -> Rows:
    """Return the rows of one half, or of both, in seeded stretches of neighbouring rows.

    Equal seeds cut equally, whatever the roles: no row is in the first half and in the second.
    Where there are more, only so many are taken as are surely enough for so many ``examples`` of
    ``length`` tokens, one a row or packed. The half of a single row may be empty.
    """
    full = CHARACTERS * length
    count = len(next(iter(rows.values())))
    stretches = [part for part in np.array_split(np.arange(count), STRETCHES) if len(part)]
    order = np.random.default_rng(seed).permutation(len(stretches))
    middle = (len(order) + 1) // 2
    wanted = {"all": order, "first": order[:middle], "second": order[middle:]}[half]
    chosen: list[int] = []
    read = 0
    for number in wanted:
        if read >= examples * full:
            break
        for row in stretches[number]:
            chosen.append(int(row))
            texts = (cells[row] for cells in rows.values() if isinstance(cells[row], str))
            read += min(full, sum(map(len, texts)))
    return {role: [cells[row] for row in chosen] for role, cells in rows.items()}


def text_of(rows: Rows) -> list[str]:
    """Return all texts of rows as plain text: row by row, each role's, without labels."""
    cells = zip(*rows.values(), strict=True)
    return [cell for row in cells for cell in row if isinstance(cell, str)]
