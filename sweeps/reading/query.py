"""SQL over the tables of a store, and the answer in a form a person or a program can read."""

from __future__ import annotations

import re
from collections.abc import Sequence
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
DESCRIBE = re.compile(r"\s*desc(?:ribe)?(?:\s+table)?\s+(\w+)\s*;?\s*", re.IGNORECASE)
# What would change tables, and the answer to it.
CHANGES = re.compile(r"\s*(drop|delete|truncate|create|insert|update|alter|copy)\b", re.IGNORECASE)
# Functions of Polars' SQL that read any file of the machine; what stands in quotes is text.
FILES = re.compile(r"\b((?:read|scan)_\w+)\s*\(", re.IGNORECASE)
QUOTED = re.compile(r"'(?:[^']|'')*'")
ANSWERED = "only SELECT, SHOW TABLES and DESCRIBE with a table are answered"


class QueryError(UserError):
    """A query that Polars refuses: its message, and the nearest name or the columns there are."""


def query(tables: Tables, sql: str) -> pl.DataFrame:
    """Answer a SELECT over the tables of ``TABLE_NAMES``, in Polars' SQL, or ``DESCRIBE`` with one.

    Raises:
        QueryError: the query does not parse, names what is not there, or fails when it runs.
    """
    described = DESCRIBE.fullmatch(sql)
    if described is not None:
        return _described(tables, described.group(1))
    if (elsewhere := FILES.search(QUOTED.sub("''", sql))) is not None:
        raise QueryError(
            f"{elsewhere.group(1)} reads files, and a query the tables of a store alone; join other"
            " data in Polars or DuckDB: `--format parquet -o runs.parquet`"
        )
    if CHANGES.match(sql):  # of the frames at hand it would, and of the store not
        raise QueryError(ANSWERED)
    frames = tables.by_name(_named(sql))
    context = pl.SQLContext(frames, eager=False)
    try:
        return context.execute(sql).collect(engine="streaming")
    except pl.exceptions.PolarsError as error:
        raise QueryError(_said(error, tables, sql)) from None


def _described(tables: Tables, table: str) -> pl.DataFrame:
    """Return a row a column of a table: its name and type."""
    if table.lower() not in TABLE_NAMES:
        raise QueryError(f"no table {table!r}; {_nearest(table, TABLE_NAMES)}")
    schema = tables.schema_of(table.lower())
    return pl.DataFrame({"column": list(schema), "type": [str(kind) for kind in schema.values()]})


def _named(sql: str) -> list[str]:
    """Return the tables whose names stand in a query as a word: at worst one too many, as where a
    comment or a text has it. Whatever else a query reads is read then, too, but as a whole."""
    words = "".join(c if c.isalnum() or c == "_" else " " for c in sql.lower()).split()
    return [name for name in TABLE_NAMES if name in words]


def _said(error: Exception, tables: Tables, sql: str) -> str:
    """Return what was wrong with a query in a line: Polars' first words, and what to do."""
    # Polars appends the plan it was resolving, and all columns there are.
    message = " ".join(str(error).split()).partition(" Resolved plan")[0]
    table = re.search(r"""relation ['"`]?(\w+)['"`]? was not found""", message)
    if table is not None:
        name = table.group(1)
        return f"no table {name!r}; {_nearest(name, TABLE_NAMES)}"
    named = _named(sql)
    if "statement type is not supported" in message:
        return ANSWERED
    if "ambiguous reference" in message:
        # Polars names the choices; the column is there, in more than one table.
        return message[:MESSAGE]
    columns = [column for name in named for column in tables.schema_of(name)]
    unknown = re.search(r"""column (?:named )?['"`]?(\w+)""", message)
    if isinstance(error, pl.exceptions.ColumnNotFoundError) or unknown:
        said = unknown.group(1) if unknown else message.split()[-1]
        return f"no column {said!r} in {', '.join(named)}; {_column_hint(said, columns, tables)}"
    return message[:MESSAGE]


def _nearest(said: str, valid: Sequence[str]) -> str:
    """Return the valid name that is nearest; all, in their own order, where none is near."""
    hint = closest(said, list(valid))
    return hint if hint.startswith("did you") else f"there are {', '.join(valid)}"


def _column_hint(said: str, columns: Sequence[str], tables: Tables) -> str:
    """Return the nearest column, the tables that have one of that very name, or how to see all."""
    elsewhere = [name for name in TABLE_NAMES if said in tables.schema_of(name)]
    if elsewhere:
        return f"{', '.join(elsewhere)} {'has' if len(elsewhere) == 1 else 'have'} it"
    hint = closest(said, list(columns))
    return hint if hint.startswith("did you") else "DESCRIBE and a table shows all there are"


def render(frame: pl.DataFrame, form: Format, *, width: int = 80) -> str:
    """Return a frame as text; ``table`` fits ``width`` columns of a terminal."""
    if form == "csv":
        # Which has no lists: their items, with a space between.
        lists = pl.selectors.list()
        return frame.with_columns(lists.cast(pl.List(pl.String)).list.join(" ")).write_csv()
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
    if isinstance(value, pl.Series):  # one row's list
        return f"[{', '.join(map(_cell, value))}]"
    return " ".join(str(value).split())
