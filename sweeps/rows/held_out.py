"""Which rows of a dataset are held out of training: one of each 1/fraction rows that follow each
other, drawn at random.

Nothing but the fraction and the row's number decides it, so that runs of any seed are scored on the
same rows, and a dataset that is read as a stream is parted as it comes.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TypeVar

from sweeps.errors import UserError

T = TypeVar("T")
# The draws' own: that of no run.
SEED = 20
DRAWN_AT_ONCE = 4096


@dataclass(frozen=True)
class Part:
    """What of a dataset is read: with a ``fraction`` the rows that are held out, or the others. Of
    ``held_out`` without one all rows are, since they are of a dataset of their own."""

    fraction: float | None = None
    held_out: bool = False

    def of(self, rows: Iterable[T]) -> Iterator[T]:
        """Yield the rows of this part, in order; raise UserError as ``rows_of``."""
        if self.fraction is None:
            yield from rows
        else:
            yield from rows_of(rows, self.fraction, held_out=self.held_out)


WHOLE = Part()


def rows_of(rows: Iterable[T], fraction: float, *, held_out: bool) -> Iterator[T]:
    """Yield the rows that are held out, or else those that are trained on, in order.

    Raises UserError at the end of rows of which none is on either side.
    """
    numbers = _numbers(fraction)
    chosen, counts = next(numbers), [0, 0]
    for number, row in enumerate(rows):
        mine = number == chosen
        if mine:
            chosen = next(numbers)
        counts[mine] += 1
        if mine == held_out:
            yield row
    if 0 in counts:
        what = "to train on" if counts[True] else "held out"
        raise UserError(
            f"evaluation: fraction {fraction:g} of {sum(counts)} rows leaves none {what}; give a"
            " dataset with more rows, another fraction, or `data` of its own"
        )


def _numbers(fraction: float) -> Iterator[int]:
    """Yield the numbers of the rows that are held out, growing without end: the k-th is one of the
    whole numbers in [k, k + 1) / fraction."""
    from numpy.random import default_rng

    first = 0
    for block in itertools.count():
        places = default_rng([SEED, block]).random(DRAWN_AT_ONCE)
        for k, place in enumerate(places.tolist(), block * DRAWN_AT_ONCE):
            beyond = int((k + 1) / fraction)
            yield first + int(place * (beyond - first))
            first = beyond
