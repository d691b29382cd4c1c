"""The rows of a local dataset, held to what their cells have to be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from sweeps.errors import UserError
from sweeps.rows.cells import Labels, Place, checked_cell, few, whole_number
from sweeps.rows.held_out import WHOLE, Part
from sweeps.rows.row_files import Cells, Documents, RowFile
from sweeps.spec import LABELLED, Cell

# What text is read as that is packed.
PLAIN_TEXT: dict[str, Cell] = {"text": "stream"}


@dataclass(frozen=True)
class Rows:
    """Cells by role, each role's column, and where the rows come from: of each file in order its
    place and what was read of it."""

    label: str
    columns: dict[str, str]
    cells: dict[str, list[Any]]
    files: tuple[tuple[RowFile, Cells], ...] = field(default=())

    def place(self, role: str, row: int) -> Place:
        """Return the place of a cell."""
        return Place(partial(self.where, row), self.columns[role], role)

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


def columns_of(files: Sequence[Path], rows: int | None = None) -> tuple[str, ...]:
    """Return the columns that any of some files has, each seen as by ``RowFile.columns``."""
    found = (RowFile.at(file).columns(rows) for file in files)
    return tuple(dict.fromkeys(column for columns in found for column in columns))


def read_rows(
    files: Sequence[Path], columns: dict[str, str], documents: Documents = "line"
) -> Rows:
    """Return columns of local files, one after the other, under their roles; ``columns`` is role to
    column. Raises UserError as ``RowFile.read``."""
    read = [(file, file.read(columns, documents)) for file in map(RowFile.at, files)]
    cells = {role: [cell for _, one in read for cell in one.columns[role]] for role in columns}
    label = str(files[0]) if len(files) == 1 else f"{files[0]} and {len(files) - 1} more"
    return Rows(label, columns, cells, tuple(read))


# ----------------------------------------------------------------------------------------- cells
def checked(
    rows: Rows,
    cells: Mapping[str, Cell],
    labels: Labels = Labels(),  # noqa: B008
    limit: int | None = None,
    shuffle_seed: int | None = None,
    part: Part = WHOLE,
) -> dict[str, list[Any]]:
    """Return the cells of a part of the rows that a dataset has, by role, as ``checked_cell`` makes
    them; see ``chosen_rows`` for which rows these are.

    Raises UserError with place and column for a cell that is something else, a row whose words and
    labels are not as many, a dataset without rows or whose part has none, and a label that no row
    which is trained on has.
    """
    order = chosen_rows(len(next(iter(rows.cells.values()))), limit, shuffle_seed)
    if not order:
        raise UserError(f"{rows.label}: has no rows")
    try:
        order = list(part.of(order))
    except UserError as error:
        raise UserError(f"{rows.label}: {error}") from None
    found: dict[str, list[Any]] = {}
    for role, column in rows.cells.items():
        kind, known = cells[role], [labels] * len(column)
        if kind in LABELLED:
            known = _labels_of_rows(rows, role, labels)
        found[role] = [checked_cell(kind, rows.place(role, k), column[k], known[k]) for k in order]
    _require_a_tag_each_word(rows, cells, found, order)
    for role in found:
        if cells[role] == "label" and labels.count is not None and not part.held_out:
            _require_every_label(rows, found[role], labels.count, part)
    return found


def checked_text(file: RowFile, number: int, column: str, cell: Any) -> str:
    """Return a cell of a file that has to be a text; raise UserError as ``checked``."""
    text: str = checked_cell("stream", Place(partial(file.where, number), column, "text"), cell)
    return text


def label_role(cells: Mapping[str, Cell]) -> str | None:
    """Return the role in which a dataset has its labels."""
    return next((role for role, cell in cells.items() if cell in LABELLED), None)


def label_names(rows: Rows, role: str) -> tuple[str, ...]:
    """Return the names of a dataset's labels in the order of their numbers: those that it was saved
    with, or, where labels are texts and not all whole numbers, each once and sorted; else none.

    A cell may be a list of labels. Where most are numbers, also as texts, all have to be whole;
    else all have to be names. Raises UserError for the first that is not, or is missing.
    """
    saved = rows.files[0][0].names_of(rows.columns[role]) if rows.files else None
    if saved:
        return saved
    column = rows.cells[role]
    labels = [(k, one) for k, cell in enumerate(column) for one in _listed(cell)]
    texts = {one for _, one in labels if isinstance(one, str)}
    if all(whole_number(text) is not None for text in texts):
        return ()
    there = [one for _, one in labels if one not in (None, "")]
    if 2 * sum(map(_is_number, there)) > len(there):
        whole = sum(map(_is_whole, there))
        why = "as other labels are" if 2 * whole > len(there) else "since labels are no measure"
        k, one = next((k, one) for k, one in labels if not _is_whole(one))
        odd = None if one == "" else one
        raise rows.place(role, k).wrong(odd, f"a whole number from 0 on, {why}")
    for k, one in labels:
        if not isinstance(one, str) or not one:
            raise rows.place(role, k).wrong(one or None, "a name, as other labels are")
        checked_cell("stream", rows.place(role, k), one)
    return tuple(sorted(texts))


def _is_number(label: Any) -> bool:
    try:
        float(label)
    except (TypeError, ValueError, OverflowError):
        return isinstance(label, int)
    return True


def _is_whole(label: Any) -> bool:
    return isinstance(label, bool) or (_is_number(label) and whole_number(str(label)) is not None)


def _labels_of_rows(rows: Rows, role: str, labels: Labels) -> list[Labels]:
    """Return the labels of each row: numbers stand for what its own file says that they do.

    Raises UserError for files that number labels otherwise, where no names tell how to read both.
    """
    each: list[Labels] = []
    for file, cells in rows.files:
        saved = file.names_of(rows.columns[role]) or ()
        each += [replace(labels, saved=saved)] * len(cells.columns[role])
    if not labels.names:
        require_one_numbering([(file, rows.columns[role]) for file, _ in rows.files])
    return each or [labels] * len(rows.cells[role])


def require_one_numbering(places: Sequence[tuple[RowFile, str]]) -> None:
    """Raise UserError unless numbers of labels, of files each with its column, stand for the same
    in all; of a file without names its numbers are all that is known."""
    known = [file.names_of(column) or () for file, column in places]
    for (file, column), names in zip(places[1:], known[1:], strict=True):
        plain = all(one == tuple(map(str, range(len(one)))) for one in (known[0], names))
        if names != known[0] and not plain:
            first, other = (", ".join(one[:4]) or "no names" for one in (known[0], names))
            raise UserError(
                f"{file.path}: column {column!r} numbers its labels by {other}, and"
                f" {places[0][0].path.name} by {first}; say what the numbers stand for with"
                " `labels:`, or save both alike"
            )


def _listed(cell: Any) -> list[Any]:
    return cell if isinstance(cell, list) else [cell]


def chosen_rows(count: int, limit: int | None, shuffle_seed: int | None) -> list[int]:
    """Return which rows, in order, a dataset of ``count`` has: shuffled if there is a seed, then
    the first ``limit``."""
    if shuffle_seed is None:
        return list(range(count)[:limit])
    from numpy.random import default_rng

    order: list[int] = default_rng(shuffle_seed).permutation(count)[:limit].tolist()
    return order


def _require_a_tag_each_word(
    rows: Rows, cells: Mapping[str, Cell], found: dict[str, list[Any]], order: Sequence[int]
) -> None:
    words = next((role for role in found if cells[role] == "words"), None)
    tags = next((role for role in found if cells[role] == "tags"), None)
    if words is None or tags is None:
        return
    for k, said, given in zip(order, found[words], found[tags], strict=True):
        if len(said) != len(given):
            raise UserError(
                f"{rows.where(k)}: has {len(said)} words in column {rows.columns[words]!r} and"
                f" {len(given)} labels in {rows.columns[tags]!r}; give one label for each word"
            )


def _require_every_label(rows: Rows, labels: list[int], count: int, part: Part) -> None:
    missing = sorted(set(range(count)) - set(labels))
    if missing and part.fraction is not None:
        raise UserError(
            f"{rows.label}: fraction {part.fraction:g} leaves no row with label {few(missing)} to"
            " train on: it holds out those that there are; give another fraction, or `data` of its"
            " own"
        )
    if missing:
        raise UserError(
            f"{rows.label}: no row has label {few(missing)}, with `labels: {count}`. Labels are"
            " counted from 0; set `labels` to their number"
        )
