"""One local file of rows, of each format and compression that people keep data in.

A file is opened by its exact path: no cache that knows it by path and time, no pattern. Texts are
UTF-8, with or without a byte order mark; what is wrong is named with its file and line or row.
"""

from __future__ import annotations

import csv
import gzip
import io
import itertools
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO, Literal, cast

from sweeps.errors import UserError

TABULAR = {".csv": ",", ".tsv": "\t"}
TABLES = (".parquet", ".arrow")
FORMATS = (".txt", ".jsonl", ".ndjson", ".json", *TABULAR, *TABLES)
COMPRESSIONS = (".gz", ".zst")
# What a clone without Git LFS has in the place of a large file.
LFS_POINTER = b"version https://git-lfs"
# What makes a text of a .txt file: a line, what stands between blank lines, or the whole.
Documents = Literal["line", "blank_line", "file"]
# What is in memory at a time of a table that is streamed.
ROWS_OF_A_PIECE = 10_000
# A cell of a .csv file may be a whole document.
csv.field_size_limit(sys.maxsize)


@dataclass(frozen=True)
class Cells:
    """Columns of a file, and the line that each row begins at where the file has lines."""

    columns: dict[str, list[Any]]
    lines: list[int] | None = None


@dataclass(frozen=True)
class RowFile:
    """A file by its format and compression, which its name ends in."""

    path: Path
    form: str
    compression: str = ""

    @classmethod
    def at(cls, path: Path) -> RowFile:
        """Return the file of a path; raise UserError where its name says no format."""
        suffixes = [suffix.lower() for suffix in path.suffixes]
        packed = suffixes.pop() if suffixes and suffixes[-1] in COMPRESSIONS else ""
        form = suffixes[-1] if suffixes else ""
        if form not in FORMATS or (packed and form in TABLES):
            raise UserError(
                f"{path}: a local dataset is one of {', '.join(FORMATS)}, texts also"
                f" {' or '.join(COMPRESSIONS)}, a folder of those or one saved by `datasets`"
            )
        return cls(path, form, packed)

    @property
    def is_text(self) -> bool:
        return self.form == ".txt"

    def columns(self, rows: int | None = None) -> tuple[str, ...]:
        """Return the columns: of a file of JSON objects those that any of its first ``rows`` has,
        which are all of them where that is None."""
        if self.is_text:
            return ("text",)
        if self.form in TABLES:
            return tuple(self._table()[1].names)
        if self.form in TABULAR:
            return tuple(self._header(self._records()))
        found: dict[str, None] = {}
        for _, row in itertools.islice(self._objects(), rows):
            found.update(dict.fromkeys(row))
        return tuple(found)

    def read(self, columns: dict[str, str], documents: Documents = "line") -> Cells:
        """Return columns under their roles; ``columns`` is role to column.

        Raises UserError for bytes that are no UTF-8, what is no whole row of the format, or a row
        without one of the columns.
        """
        if self.is_text:
            found = list(_documents(self._lines(), documents))
            texts = [text for _, text in found]
            return Cells({role: list(texts) for role in columns}, [line for line, _ in found])
        if self.form in TABLES:
            return self._read_table(columns)
        cells: dict[str, list[Any]] = {role: [] for role in columns}
        numbers: list[int] = []
        for number, row in self._rows():
            numbers.append(number)
            for role, column in columns.items():
                cells[role].append(self._cell(number, row, role, column))
        return Cells(cells, None if self._is_one_json else numbers)

    def stream(self, column: str, documents: Documents = "line") -> Iterator[tuple[int, Any]]:
        """Yield the cells of one column, each with the line or number of its row, without holding
        more of the file than a piece; of what ``read`` refuses, so does this when it comes to it.
        """
        if self.is_text:
            yield from _documents(self._lines(), documents)
        elif self.form in TABLES:
            yield from enumerate(self._stream_table(column), start=1)
        else:
            for number, row in self._rows():
                yield number, self._cell(number, row, "text", column)

    def names_of(self, column: str) -> tuple[str, ...] | None:
        """Return what the numbers of a label column stand for, where ``datasets`` has written it
        down; None elsewhere."""
        if self.form not in TABLES:
            return None
        _, schema = self._table()
        try:
            info = json.loads((schema.metadata or {})[b"huggingface"])
            feature = info["info"]["features"][column]
            # Of a list of labels, the names are those of each.
            names = feature.get("feature", feature)["names"]
        except (KeyError, TypeError, ValueError):
            return None
        sound = isinstance(names, list) and all(isinstance(name, str) for name in names)
        return tuple(names) if sound else None

    def where(self, number: int) -> str:
        """Return the place of a row as a person finds it: FILE:LINE, or its number in the file."""
        if self._is_one_json or self.form in TABLES:
            return f"{self.path}, row {number}"
        return f"{self.path}:{number}"

    def _rows(self) -> Iterator[tuple[int, dict[str, Any]]]:
        return self._table_rows() if self.form in TABULAR else self._objects()

    def _cell(self, number: int, row: dict[str, Any], role: str, column: str) -> Any:
        if column not in row:
            raise UserError(
                f"{self.where(number)}: has no {column!r} (the {role}); it has {', '.join(row)}"
            )
        return row[column]

    # ------------------------------------------------------------------------------------- lines
    def _open(self) -> BinaryIO:
        if self.compression == ".gz":
            return cast(BinaryIO, gzip.open(self.path, "rb"))
        if self.compression == ".zst":
            import pyarrow as pa

            return io.BufferedReader(pa.CompressedInputStream(pa.OSFile(str(self.path)), "zstd"))
        return self.path.open("rb")

    def _lines(self) -> Iterator[tuple[int, str]]:
        """Yield the lines of a text with their numbers, from 1, with what ends them."""
        try:
            with self._open() as file:
                for number, raw in enumerate(file, start=1):
                    if number == 1:
                        raw = raw.removeprefix(b"\xef\xbb\xbf")
                        if raw.startswith(LFS_POINTER):
                            raise UserError(
                                f"{self.path}: is a pointer of Git LFS, not the data; git lfs pull"
                                " gets it"
                            )
                    try:
                        yield number, raw.decode("utf-8")
                    except UnicodeDecodeError as error:
                        byte = raw[error.start]
                        raise UserError(
                            f"{self.path}:{number}: byte {error.start + 1} of the line"
                            f" (0x{byte:02x}) is no UTF-8; convert the file to UTF-8"
                        ) from None
        except (OSError, EOFError) as error:
            detail = getattr(error, "strerror", None) or " ".join(str(error).split())
            raise UserError(f"{self.path}: cannot be read: {detail}") from None

    # -------------------------------------------------------------------------------------- JSON
    @cached_property
    def _is_one_json(self) -> bool:
        """Whether a .json file is one value; some are written as .jsonl files are."""
        if self.form != ".json":
            return False
        lines = self._two_lines()
        try:
            return not isinstance(json.loads(lines[0] if lines else ""), dict) or len(lines) < 2
        except (ValueError, RecursionError):
            return True

    def _two_lines(self) -> list[str]:
        full = (text for _, text in self._lines() if text.strip())
        return list(itertools.islice(full, 2))

    def _objects(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """Yield JSON objects with their lines, or of a file that is one value their numbers from 1;
        blank lines are passed over."""
        if self._is_one_json:
            yield from enumerate(self._list(), start=1)
            return
        for number, text in self._lines():
            if not text.strip():
                continue
            try:
                row = json.loads(text)
            except (ValueError, RecursionError) as error:
                raise UserError(
                    f"{self.path}:{number}: not a whole JSON object: {error}; each line of a"
                    f" {self.form} file is one"
                ) from None
            if not isinstance(row, dict):
                raise UserError(
                    f"{self.path}:{number}: each line of a {self.form} file is one JSON object"
                )
            yield number, row

    def _list(self) -> list[dict[str, Any]]:
        """Return the objects of a file that is a list of them, alone or as the one list that an
        object holds."""
        text = "".join(text for _, text in self._lines())
        try:
            value = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise UserError(f"{self.path}: not whole JSON: {error}") from None
        if isinstance(value, dict):
            lists = [inner for inner in value.values() if isinstance(inner, list)]
            value = lists[0] if len(lists) == 1 else [value]
        if not isinstance(value, list):
            raise UserError(f"{self.path}: is no list of JSON objects")
        for number, row in enumerate(value, start=1):
            if not isinstance(row, dict):
                raise UserError(f"{self.path}, row {number}: is no JSON object")
        return value

    # --------------------------------------------------------------------------------- csv, tsv
    def _records(self) -> Iterator[tuple[int, list[str]]]:
        """Yield the records of a table with the line each begins at; blank lines are none."""
        line = 0

        def texts() -> Iterator[str]:
            nonlocal line
            for number, text in self._lines():
                line = number
                yield text

        reader = csv.reader(texts(), delimiter=TABULAR[self.form], strict=True)
        first = 1
        while True:
            try:
                record = next(reader, None)
            except csv.Error as error:
                raise UserError(f"{self.path}:{first}: not a row of a table: {error}") from None
            if record is None:
                return
            if record:
                yield first, record
            first = line + 1

    def _header(self, records: Iterator[tuple[int, list[str]]]) -> list[str]:
        header = next(records, (1, []))[1]
        twice = sorted({name for name in header if header.count(name) > 1})
        if twice:
            raise UserError(f"{self.path}:1: two columns are called {twice[0]!r}; rename one")
        return header

    def _table_rows(self) -> Iterator[tuple[int, dict[str, Any]]]:
        records = self._records()
        header = self._header(records)
        for number, record in records:
            if len(record) != len(header):
                raise UserError(
                    f"{self.path}:{number}: has {len(record)} cells, where the first line names"
                    f" {len(header)} columns; quote what holds a"
                    f" {'tab' if self.form == '.tsv' else 'comma'}"
                )
            yield number, dict(zip(header, record, strict=True))

    # ------------------------------------------------------------------------------------ tables
    def _table(self) -> tuple[Any, Any]:
        """Return what reads the file, and its schema."""
        if self.form == ".parquet":
            reader = self._parquet()
            return reader, reader.schema_arrow
        reader = self._arrow()
        return reader, reader.schema

    def _parquet(self) -> Any:
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            return pq.ParquetFile(pa.OSFile(str(self.path)))
        except (OSError, ValueError) as error:
            raise self._unreadable(error) from None

    def _arrow(self) -> Any:
        """Return a reader of an Arrow file, as a stream (what ``datasets`` saves) or a file."""
        import pyarrow as pa

        try:
            file = pa.memory_map(str(self.path))
            magic = file.read(6)
            file.seek(0)
            return pa.ipc.open_file(file) if magic == b"ARROW1" else pa.ipc.open_stream(file)
        except (OSError, ValueError) as error:
            raise self._unreadable(error) from None

    def _read_table(self, columns: dict[str, str]) -> Cells:
        reader, schema = self._table()
        names = list(schema.names)
        require_columns(str(self.path), columns, names)
        try:
            table = reader.read() if self.form == ".parquet" else reader.read_all()
            # By number: a name with a dot would mean a field inside a column.
            return Cells({r: table.column(names.index(c)).to_pylist() for r, c in columns.items()})
        except (OSError, ValueError) as error:
            raise self._unreadable(error) from None

    def _stream_table(self, column: str) -> Iterator[Any]:
        reader, schema = self._table()
        require_columns(str(self.path), {"text": column}, list(schema.names))
        number = list(schema.names).index(column)
        try:
            if self.form == ".parquet":
                batches = reader.iter_batches(ROWS_OF_A_PIECE)
            elif hasattr(reader, "get_batch"):
                batches = map(reader.get_batch, range(reader.num_record_batches))
            else:
                batches = iter(reader)
            for batch in batches:
                yield from batch.column(number).to_pylist()
        except (OSError, ValueError) as error:
            raise self._unreadable(error) from None

    def _unreadable(self, error: Exception) -> UserError:
        kind = "Parquet" if self.form == ".parquet" else "Arrow"
        detail = " ".join(str(error).split())[:200]
        return UserError(f"{self.path}: cannot be read as {kind}: {detail}")


def require_columns(what: str, columns: dict[str, str], present: Sequence[str]) -> None:
    """Raise UserError unless each role's column is there, once."""
    for role, column in columns.items():
        if list(present).count(column) != 1:
            raise UserError(
                f"{what} has {list(present).count(column) or 'no'} column {column!r} (the {role});"
                f" it has {', '.join(present)}. Name it with `columns: {{{role}: ...}}`"
            )


def _documents(lines: Iterator[tuple[int, str]], documents: Documents) -> Iterator[tuple[int, str]]:
    """Yield the texts of a file, each with the line it begins at."""
    first, held = 1, list[str]()
    for number, text in lines:
        if documents == "line":
            yield number, _without_end(text)
        elif documents == "blank_line" and not text.strip():
            if held:
                yield first, _without_end("".join(held))
            held = []
        else:
            first = first if held else number
            held.append(text)
    if held:
        yield first, _without_end("".join(held))


def _without_end(text: str) -> str:
    return text.removesuffix("\n").removesuffix("\r")
