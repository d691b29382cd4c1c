"""How a command hands over a table: on the terminal, or as a file in the form its name says."""

from __future__ import annotations

import codecs
import os
import shutil
import sys
import textwrap
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar, cast

import click

from sweeps.errors import UserError

if TYPE_CHECKING:
    import polars as pl

    from sweeps.reading.query import Format

Item = TypeVar("Item")
# What -o names where the answer is to be printed, as without it.
STDOUT = "-"
# What takes longer is told of, from then on and so often.
NOTICE_SECONDS = 2.0
# Columns in which a page still has lines to be read.
NARROWEST = 20


def emit(frame: pl.DataFrame, form: str | None, output: str | None) -> None:
    """Print ``frame``, or write it to ``output``; raise UserError where that cannot be done."""
    from sweeps.reading.query import FORMATS, render, write

    output = None if output == STDOUT else output
    if form is None:
        ending = Path(output).suffix.lstrip(".").lower() if output else ""
        if ending not in ("", "txt", *FORMATS):
            raise UserError(
                f"-o {output}: no such form of a table; end it in"
                f" {', '.join(f'.{one}' for one in FORMATS if one != 'table')} or .txt, or say"
                " --format"
            )
        form = ending if ending in FORMATS else "table"
    chosen = cast("Format", form)
    if output is not None:
        path = Path(output)
        require_folder(path)
        try:
            write(frame, chosen, path)
        except OSError as error:
            raise UserError(f"-o {output}: cannot be written ({error.strerror})") from None
        click.echo(f"{frame.height} rows in {path}", err=True)
    elif chosen == "parquet":
        if sys.stdout.isatty():
            raise UserError("--format parquet is not text; name a file with -o FILE")
        frame.write_parquet(sys.stdout.buffer)
    else:
        text = render(frame, chosen, width=terminal_width())
        if chosen != "table":
            _require_every_character(text, chosen)
        click.echo(text, nl=False)


def _require_every_character(text: str, form: str) -> None:
    """Raise UserError where stdout would print another character than the data has: a table is
    looked at, and data is read by a program that cannot tell."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    # An ASCII stdout click takes for UTF-8.
    if codecs.lookup(encoding).name == "ascii" or sys.stdout.errors != "replace":
        return
    try:
        text.encode(encoding)
    except UnicodeEncodeError as error:
        raise UserError(
            f"--format {form}: stdout is {encoding}, which lacks {text[error.start]!a};"
            " set PYTHONIOENCODING=utf-8, or name a file with -o FILE"
        ) from None


def require_file(output: str, what: str, option: str = "-o") -> None:
    """Raise UserError where an option asks for ``what`` on stdout and it has no place there."""
    if output == STDOUT:
        raise UserError(f"{option} {output}: {what} cannot go to stdout; name where to write")


def require_folder(path: Path) -> None:
    """Raise UserError where a file is asked for in a folder that is not there."""
    if not path.parent.is_dir():
        raise UserError(f"-o {path}: there is no folder {path.parent}; make it first")


def terminal_width() -> int:
    """Columns of the terminal. Where there is none 80, so that output in a file is the same on
    every machine, or what a person asks for by COLUMNS in the environment."""
    if sys.stdout.isatty():
        found = shutil.get_terminal_size((80, 24)).columns
    else:
        asked = os.environ.get("COLUMNS", "")
        found = int(asked) if asked.isascii() and asked.isdecimal() and int(asked) else 80
    return max(found, NARROWEST)


def wrapped(said: str, first: str = "", rest: str = "  ") -> list[str]:
    """Return what may be long in lines of at most 80 columns.

    Paths, addresses and options stay whole, to be copied and searched for: the line of one that is
    longer is, too.
    """
    return textwrap.wrap(
        said,
        80,
        initial_indent=first,
        subsequent_indent=rest,
        break_long_words=False,
        break_on_hyphens=False,
    )


def counted_aloud(items: Iterable[Item], what: str, total: int | None = None) -> Iterator[Item]:
    """Yield items; where that takes longer than 2 s, say on stderr how many there have been."""
    said = time.monotonic()
    for count, item in enumerate(items, start=1):
        yield item
        if time.monotonic() - said > NOTICE_SECONDS:
            of = "" if total is None else f" of {total:,}"
            click.echo(f"{count:,}{of} {what}", err=True)
            said = time.monotonic()
