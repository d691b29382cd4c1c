"""A table as aligned plain text that never exceeds its width."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

GAP = 2


@dataclass(frozen=True)
class Column:
    """A heading with one cell per row; numbers stand on the right and are never cut.

    ``kept`` is a column without which the rows say nothing: it stays when others find no room.
    """

    name: str
    cells: Sequence[str]
    right: bool = False
    rigid: bool = False
    kept: bool = False

    @property
    def natural(self) -> int:
        return max([len(self.name), *map(len, self.cells)])


def text_table(columns: Sequence[Column], width: int) -> tuple[list[str], list[str]]:
    """Return the lines of a table and the names of the columns that found no room.

    Columns keep their natural width while all fit. Otherwise the widest are shortened, down to
    their heading and ten characters; then columns are left out from the right. Those to be kept
    then give up their headings, their cells down to a few characters, and at last their place.
    """
    shown = list(columns)
    while True:
        natural = [column.natural for column in shown]
        widths = _fit(natural, [_least(column) for column in shown], width)
        loose = [k for k, column in enumerate(shown) if not column.kept]
        if widths is None and not loose:
            for least in (_cells, _fewest):
                widths = widths or _fit(natural, [least(column) for column in shown], width)
            loose = [k for k, column in enumerate(shown) if not column.rigid]
        if widths is not None or len(shown) == 1:
            break
        shown.pop(loose[-1] if loose else -1)
    widths = widths or [width]
    lines = [_line([column.name for column in shown], shown, widths)]
    for cells in zip(*(column.cells for column in shown), strict=True):
        lines.append(_line(cells, shown, widths))
    return lines, [column.name for column in columns if column not in shown]


def _cells(column: Column) -> int:
    """Return the width at which no cell is cut, though the heading may be."""
    return max([_fewest(column), *map(len, column.cells)])


def _fewest(column: Column) -> int:
    return column.natural if column.right or column.rigid else min(column.natural, 5)


def _least(column: Column) -> int:
    if column.right or column.rigid:
        return column.natural
    return min(column.natural, max(len(column.name), 10))


def _fit(natural: list[int], least: list[int], width: int) -> list[int] | None:
    room = width - GAP * (len(natural) - 1)
    widths = list(natural)
    for limit in range(max(natural), 0, -1):
        if sum(widths) <= room:
            return widths
        widths = [max(low, min(now, limit)) for now, low in zip(widths, least, strict=True)]
    return widths if sum(widths) <= room else None


def _line(cells: Sequence[str], columns: Sequence[Column], widths: Sequence[int]) -> str:
    parts = []
    for cell, column, width in zip(cells, columns, widths, strict=True):
        text = cell if len(cell) <= width else cell[: max(width - 1, 0)] + "…"
        parts.append(text.rjust(width) if column.right else text.ljust(width))
    return (" " * GAP).join(parts).rstrip()
