"""SQL over the tables of a store, and the answer in a form a person or a program can read."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import polars as pl

from sweeps.reading.tables import TABLE_NAMES, Tables
from sweeps.reading.text_table import Column, text_table

Format = Literal["table", "csv", "json", "jsonl", "parquet"]
FORMATS: tuple[Format, ...] = ("table", "csv", "json", "jsonl", "parquet")

SHOWN_ROWS = 1000


class QueryError(Exception):
    """A query that Polars refuses: its message, and the columns of the tables the query names."""


def query(tables: Tables, sql: str) -> pl.DataFrame:
    """Answer a SELECT over runs, steps, layers, profiles and attempts, in Polars' SQL.

    Raises:
        QueryError: the query does not parse, names what is not there, or fails when it runs.
    """
    frames = tables.by_name()
    context = pl.SQLContext(frames, eager=False)
    try:
        return context.execute(sql).collect(engine="streaming")
    except pl.exceptions.PolarsError as error:
        # Polars appends the plan it was resolving; the first line is what the user can act on.
        message = str(error).strip().splitlines()[0]
        raise QueryError(f"{message}; {_columns(frames, sql)}") from None


def _columns(frames: dict[str, pl.LazyFrame], sql: str) -> str:
    """Return the columns of the tables that the query names, of all tables if it names none."""
    words = set("".join(c if c.isalnum() or c == "_" else " " for c in sql.lower()).split())
    named = [name for name in TABLE_NAMES if name in words] or list(TABLE_NAMES)
    return "; ".join(f"{name}: {', '.join(frames[name].collect_schema())}" for name in named)


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
