"""The rows of a local dataset, and what a cell has to be: named with its place where it is not."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from sweeps.errors import UserError
from sweeps.rows.row_files import Cells, Documents, RowFile

LABEL = "label"


@dataclass(frozen=True)
class Rows:
    """Cells by role, each role's column, and where the rows come from: of each file in order its
    place and what was read of it. ``names`` are what the numbers of labels stand for."""

    label: str
    columns: dict[str, str]
    cells: dict[str, list[Any]]
    files: tuple[tuple[RowFile, Cells], ...] = ()
    names: tuple[str, ...] = field(default=())

    def where(self, row: int) -> str:
        """Return the place of a row, from 0, as a person finds it: FILE:LINE, or its number."""
        first = 0
        for file, cells in self.files:
            count = len(next(iter(cells.columns.values())))
            if row < first + count:
                number = row - first
                return file.where(cells.lines[number] if cells.lines else number + 1)
            first += count
        return f"{self.label}, row {row + 1}"


def columns_of(files: Sequence[Path]) -> tuple[str, ...]:
    """Return the columns that the first of some files has."""
    return RowFile.at(files[0]).columns()


def read_rows(
    files: Sequence[Path], columns: dict[str, str], documents: Documents = "line"
) -> Rows:
    """Return columns of local files, one after the other, under their roles; ``columns`` is role to
    column. Raises UserError as ``RowFile.read``."""
    read = [(file, file.read(columns, documents)) for file in map(RowFile.at, files)]
    cells = {role: [cell for _, one in read for cell in one.columns[role]] for role in columns}
    names = read[0][0].names_of(columns[LABEL]) if LABEL in columns else None
    label = str(files[0]) if len(files) == 1 else f"{files[0]} and {len(files) - 1} more"
    return Rows(label, columns, cells, tuple(read), names or ())


# ----------------------------------------------------------------------------------------- cells
def checked(rows: Rows, names: Sequence[str] = ()) -> dict[str, list[Any]]:
    """Return the cells by role: every text a ``str``, every label an ``int`` of at least 0.

    A label may be written as a whole float, as pandas does beside missing ones, as true and false,
    which are 1 and 0, in digits, or by one of its ``names``, of which it is then the number. Raises
    UserError with place and column for any other cell.
    """
    found = dict(rows.cells)
    for role, cells in rows.cells.items():
        if not cells:
            raise UserError(f"{rows.label}: has no rows")
        if role == LABEL:
            numbers = {name: number for number, name in enumerate(names)}
            found[role] = [_label(rows, role, k, cell, numbers) for k, cell in enumerate(cells)]
        else:
            for k, cell in enumerate(cells):
                _text(partial(rows.where, k), rows.columns, role, cell)
    return found


def checked_text(file: RowFile, number: int, column: str, cell: Any) -> str:
    """Return a cell of a file that has to be a text; raise UserError as ``checked``."""
    place = partial(file.where, number)
    return _text(place, {"text": column}, "text", cell)


def label_names(rows: Rows) -> tuple[str, ...]:
    """Return the names of a dataset's labels in the order of their numbers: those that it was saved
    with, or, where labels are texts and not all whole numbers, each once and sorted; else none.

    Raises UserError for a label that is missing where others are texts.
    """
    if rows.names:
        return rows.names
    cells = rows.cells[LABEL]
    texts = {cell for cell in cells if isinstance(cell, str)}
    if all(_number(text) is not None for text in texts):
        return ()
    for k, cell in enumerate(cells):
        if not isinstance(cell, str) or not cell:
            raise _wrong(
                rows.where(k),
                rows.columns[LABEL],
                LABEL,
                cell or None,
                "a name, as other labels are",
            )
    return tuple(sorted(texts))


def part_of(
    cells: dict[str, list[Any]], limit: int | None, shuffle_seed: int | None
) -> dict[str, list[Any]]:
    """Return the cells of the rows that a dataset has; see ``chosen_rows``."""
    order = chosen_rows(len(next(iter(cells.values()))), limit, shuffle_seed)
    return {role: [column[k] for k in order] for role, column in cells.items()}


def chosen_rows(count: int, limit: int | None, shuffle_seed: int | None) -> list[int]:
    """Return which rows, in order, a dataset of ``count`` has: shuffled if there is a seed, then
    the first ``limit``."""
    if shuffle_seed is None:
        return list(range(count)[:limit])
    from numpy.random import default_rng

    order: list[int] = default_rng(shuffle_seed).permutation(count)[:limit].tolist()
    return order


def _label(rows: Rows, role: str, k: int, cell: Any, numbers: dict[str, int]) -> int:
    if isinstance(cell, str):
        if cell in numbers:
            return numbers[cell]
        expected = "a whole number from 0 on" if not numbers else f"one of {_few(list(numbers))}"
        number = None if numbers else _number(cell)
        if number is None:
            raise _wrong(rows.where(k), rows.columns[role], role, cell or None, expected)
        return number
    whole = isinstance(cell, int) or (isinstance(cell, float) and cell.is_integer())
    if not whole or cell < 0:
        raise _wrong(rows.where(k), rows.columns[role], role, cell, "a whole number from 0 on")
    return int(cell)


def _number(text: str) -> int | None:
    """Return the whole number from 0 on that a text is, as a table without types has it."""
    try:
        number = float(text)
    except ValueError:
        return None
    return int(number) if number >= 0 and number.is_integer() else None


def _few(names: list[str]) -> str:
    return ", ".join(names[:8]) + (" …" if names[8:] else "")


def _text(where: Callable[[], str], columns: dict[str, str], role: str, cell: Any) -> str:
    if not isinstance(cell, str):
        raise _wrong(where(), columns[role], role, cell, "a text")
    if not cell.isascii():
        try:
            cell.encode("utf-8")
        except UnicodeEncodeError:
            raise UserError(
                f"{where()}: column {columns[role]!r} (the {role}) holds half of a surrogate pair,"
                " which is no character"
            ) from None
    return cell


def _wrong(where: str, column: str, role: str, cell: Any, expected: str) -> UserError:
    shown = repr(cell) if len(repr(cell)) <= 40 else f"{repr(cell)[:37]}..."
    found = "nothing (null)" if cell is None else f"{type(cell).__name__} {shown}"
    return UserError(
        f"{where}: column {column!r} (the {role}) must be {expected}; found"
        f" {found}. Mend the row, or name another column with `columns: {{{role}: ...}}`"
    )


def require_labels(labels: list[int], count: int, *, each: bool = True) -> None:
    """Raise UserError unless labels are exactly the numbers 0..count − 1, ``each`` at least once:
    of what is not trained on some may be missing."""
    present = set(labels)
    beyond = sorted(present - set(range(count)))
    if beyond:
        raise UserError(
            f"labels must be whole numbers 0..{count - 1}; found {_listed(beyond)}. Set"
            " `labels` to their number, or count them from 0"
        )
    missing = sorted(set(range(count)) - present)
    if missing and each:
        raise UserError(
            f"no row has label {_listed(missing)}, with `labels: {count}`. Labels are"
            " counted from 0; set `labels` to their number"
        )


def _listed(numbers: list[int]) -> str:
    return ", ".join(map(str, numbers[:8])) + (" …" if numbers[8:] else "")
