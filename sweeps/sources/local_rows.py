"""The rows of a local file, read as they are, and what a cell has to be.

A file is opened by its exact path: no cache that knows it by path and time, no pattern. Texts are
UTF-8, with or without a byte order mark; what is wrong is named with its file and line or row.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sweeps.errors import UserError

DATA_SUFFIXES = (".txt", ".jsonl", ".parquet")
LABEL = "label"
# What a clone without Git LFS has in the place of a large file.
LFS_POINTER = b"version https://git-lfs"


@dataclass(frozen=True)
class Rows:
    """Cells by role, and where they come from: each role's column, each row's line of the file."""

    label: str
    columns: dict[str, str]
    cells: dict[str, list[Any]]
    lines: list[int] | None = None

    def where(self, row: int) -> str:
        """Return the place of a row, from 0, as a person finds it: FILE:LINE, or its number."""
        if self.lines is not None:
            return f"{self.label}:{self.lines[row]}"
        return f"{self.label}, row {row + 1}"


# --------------------------------------------------------------------------------------- reading
def columns_of(path: Path) -> tuple[str, ...]:
    """Return the columns of a local file: of a .jsonl file those of its first row."""
    suffix = path.suffix.lower()
    if suffix == ".txt":
        return ("text",)
    if suffix == ".parquet":
        return tuple(_parquet(path).schema_arrow.names)
    return next((tuple(row) for _, row in _objects(path)), ())


def read_rows(path: Path, columns: dict[str, str]) -> Rows:
    """Return the columns of a local file under their roles; ``columns`` is role to column.

    Raises UserError for bytes that are no UTF-8, a line that is no whole JSON object, a row without
    one of the columns, or a file that is no Parquet.
    """
    suffix = path.suffix.lower()
    if suffix == ".parquet":
        return _read_parquet(path, columns)
    cells: dict[str, list[Any]] = {role: [] for role in columns}
    lines: list[int] = []
    if suffix == ".txt":
        for _, text in _lines(path):
            for role in columns:
                cells[role].append(text)
        return Rows(str(path), columns, cells, list(range(1, len(next(iter(cells.values()))) + 1)))
    for number, row in _objects(path):
        lines.append(number)
        for role, column in columns.items():
            if column not in row:
                raise UserError(
                    f"{path}:{number}: has no {column!r} (the {role}); it has {', '.join(row)}"
                )
            cells[role].append(row[column])
    return Rows(str(path), columns, cells, lines)


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the lines of a text with their numbers, from 1, without what ends them."""
    try:
        with path.open("rb") as file:
            for number, raw in enumerate(file, start=1):
                if number == 1:
                    raw = raw.removeprefix(b"\xef\xbb\xbf")
                    if raw.startswith(LFS_POINTER):
                        raise UserError(
                            f"{path}: is a pointer of Git LFS, not the data; git lfs pull gets it"
                        )
                try:
                    text = raw.decode("utf-8")
                except UnicodeDecodeError as error:
                    byte = raw[error.start]
                    raise UserError(
                        f"{path}:{number}: byte {error.start + 1} of the line (0x{byte:02x}) is no"
                        " UTF-8; convert the file to UTF-8"
                    ) from None
                yield number, text.removesuffix("\n").removesuffix("\r")
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from None


def _objects(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the objects of a .jsonl file with their lines; blank lines are passed over."""
    for number, text in _lines(path):
        if not text.strip():
            continue
        try:
            row = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise UserError(
                f"{path}:{number}: not a whole JSON object: {error}; each line of a .jsonl file is"
                " one"
            ) from None
        if not isinstance(row, dict):
            raise UserError(f"{path}:{number}: each line of a .jsonl file is one JSON object")
        yield number, row


def _parquet(path: Path) -> Any:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.ParquetFile(pa.OSFile(str(path)))
    except (OSError, ValueError) as error:
        detail = " ".join(str(error).split())
        raise UserError(f"{path}: cannot be read as Parquet: {detail}") from None


def _read_parquet(path: Path, columns: dict[str, str]) -> Rows:
    file = _parquet(path)
    names = file.schema_arrow.names
    for role, column in columns.items():
        if names.count(column) != 1:
            raise UserError(
                f"{path} has {names.count(column) or 'no'} column {column!r} (the {role}); it has"
                f" {', '.join(names)}. Name it with `columns: {{{role}: ...}}`"
            )
    try:
        # By number: a name with a dot would mean a field inside a column.
        table = file.read()
        cells = {r: table.column(names.index(c)).to_pylist() for r, c in columns.items()}
    except (OSError, ValueError) as error:
        detail = " ".join(str(error).split())
        raise UserError(f"{path}: cannot be read as Parquet: {detail}") from None
    return Rows(str(path), columns, cells)


# ----------------------------------------------------------------------------------------- cells
def checked(rows: Rows) -> dict[str, list[Any]]:
    """Return the cells by role: every text a ``str``, every label an ``int`` of at least 0.

    A label may be written as a whole float, as pandas does beside missing ones, or as true and
    false, which are 1 and 0. Raises UserError with place and column for any other cell.
    """
    found = dict(rows.cells)
    for role, cells in rows.cells.items():
        if not cells:
            raise UserError(f"{rows.label}: has no rows")
        if role == LABEL:
            found[role] = [_label(rows, role, k, cell) for k, cell in enumerate(cells)]
        else:
            for k, cell in enumerate(cells):
                if not isinstance(cell, str):
                    raise _wrong(rows, role, k, cell, "a text")
                if not cell.isascii():
                    _require_unicode(rows, role, k, cell)
    return found


def _label(rows: Rows, role: str, k: int, cell: Any) -> int:
    whole = isinstance(cell, int) or (isinstance(cell, float) and cell.is_integer())
    if not whole or cell < 0:
        raise _wrong(rows, role, k, cell, "a whole number from 0 on")
    return int(cell)


def _require_unicode(rows: Rows, role: str, k: int, cell: str) -> None:
    try:
        cell.encode("utf-8")
    except UnicodeEncodeError:
        raise UserError(
            f"{rows.where(k)}: column {rows.columns[role]!r} (the {role}) holds half of a surrogate"
            " pair, which is no character"
        ) from None


def _wrong(rows: Rows, role: str, k: int, cell: Any, expected: str) -> UserError:
    shown = repr(cell) if len(repr(cell)) <= 40 else f"{repr(cell)[:37]}..."
    found = "nothing (null)" if cell is None else f"{type(cell).__name__} {shown}"
    return UserError(
        f"{rows.where(k)}: column {rows.columns[role]!r} (the {role}) must be {expected}; found"
        f" {found}. Mend the row, or name another column with `columns: {{{role}: ...}}`"
    )


def require_labels(labels: list[int], count: int) -> None:
    """Raise UserError unless labels are exactly the numbers 0..count − 1, each at least once."""
    present = set(labels)
    beyond = sorted(present - set(range(count)))
    if beyond:
        raise UserError(
            f"labels must be whole numbers 0..{count - 1}; found {_listed(beyond)}. Set"
            " `labels` to their number, or count them from 0"
        )
    missing = sorted(set(range(count)) - present)
    if missing:
        raise UserError(
            f"no row has label {_listed(missing)}, with `labels: {count}`. Labels are"
            " counted from 0; set `labels` to their number"
        )


def _listed(numbers: list[int]) -> str:
    return ", ".join(map(str, numbers[:8])) + (" …" if numbers[8:] else "")
