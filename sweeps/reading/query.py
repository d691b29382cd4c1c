"""SQL over the tables of a store, and the answer in a form a person or a program can read."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

import polars as pl

from sweeps.errors import UserError, closest
from sweeps.reading.tables import TABLE_NAMES, Tables
from sweeps.reading.text_table import Column, text_table

Format = Literal["table", "csv", "json", "jsonl", "parquet"]
FORMATS: tuple[Format, ...] = ("table", "csv", "json", "jsonl", "parquet")

SHOWN_ROWS = 1000
# Of a message of Polars so many characters are shown.
MESSAGE = 200


class QueryError(UserError):
    """A query that Polars refuses: its message, and the nearest name or the columns there are."""


def query(tables: Tables, sql: str) -> pl.DataFrame:
    """Answer a SELECT over the tables of ``TABLE_NAMES``, in Polars' SQL.

    Raises:
        QueryError: the query does not parse, names what is not there, or fails when it runs.
    """
    frames = tables.by_name(_named(sql))
    context = pl.SQLContext(frames, eager=False)
    try:
        return context.execute(sql).collect(engine="streaming")
    except pl.exceptions.PolarsError as error:
        raise QueryError(_said(error, tables, sql)) from None


def _named(sql: str) -> list[str]:
    """Return the tables whose names stand in a query as a word: at worst one too many, as where a
    comment or a text has it. Whatever else a query reads is read then, too, but as a whole."""
    words = "".join(c if c.isalnum() or c == "_" else " " for c in sql.lower()).split()
    return [name for name in TABLE_NAMES if name in words]


def _said(error: Exception, tables: Tables, sql: str) -> str:
    """Return what was wrong with a query in a line: Polars' first words, and what to do."""
    # Polars appends the plan it was resolving, and all columns there are.
    message = " ".join(str(error).split()).partition(" Resolved plan")[0][:MESSAGE]
    named = _named(sql)
    if not named:
        return f"{message}; the tables are {', '.join(TABLE_NAMES)}"
    columns = [column for name in named for column in tables.schema_of(name)]
    unknown = re.search(r"""column (?:named )?['"`]?(\w+)""", message)
    if isinstance(error, pl.exceptions.ColumnNotFoundError) or unknown:
        said = unknown.group(1) if unknown else message.split()[-1]
        return f"no column {said!r} in {', '.join(named)}; {closest(said, columns)}"
    return message


def render(frame: pl.DataFrame, form: Format, *, width: int = 80) -> str:
    """Return a frame as text; ``table`` fits ``width`` columns of a terminal."""
    if form == "csv":
        return frame.write_csv()
    if form == "json":
        return frame.write_json() + "\n"
    if form == "jsonl":
        return frame.write_ndjson()
    if form == "table":
        return _table(frame, width)
    raise ValueError(f"{form} is not text; use write")


def write(frame: pl.DataFrame, form: Format, path: Path) -> None:
    """Write a frame to a file."""
    if form == "parquet":
        frame.write_parquet(path)
    else:
        path.write_text(render(frame, form, width=200), encoding="utf-8")


def _table(frame: pl.DataFrame, width: int) -> str:
    columns = [
        Column(name, [_cell(value) for value in frame[name].head(SHOWN_ROWS)], kind.is_numeric())
        for name, kind in frame.schema.items()
    ]
    if not columns:
        return "(no columns)\n"
    lines, left_out = text_table(columns, width)
    notes = ["1 row" if frame.height == 1 else f"{frame.height} rows"]
    if frame.height > SHOWN_ROWS:
        notes.append(f"the first {SHOWN_ROWS} shown")
    if left_out:
        notes.append(f"{len(left_out)} columns found no room")
    if len(notes) > 1:
        notes.append("--format csv shows all")
    return "\n".join([*lines, f"({'; '.join(notes)})"]) + "\n"


def _cell(value: object) -> str:
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:.4g}"
    return " ".join(str(value).split())
