"""How a command hands over a table: on the terminal, or as a file in the form its name says."""

from __future__ import annotations

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
# What takes longer is told of, from then on and so often.
NOTICE_SECONDS = 2.0


def emit(frame: pl.DataFrame, form: str | None, output: str | None) -> None:
    """Print ``frame``, or write it to ``output``; raise UserError where that cannot be done."""
    from sweeps.reading.query import FORMATS, render, write

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
        click.echo(render(frame, chosen, width=terminal_width()), nl=False)


def require_folder(path: Path) -> None:
    """Raise UserError where a file is asked for in a folder that is not there."""
    if not path.parent.is_dir():
        raise UserError(f"-o {path}: there is no folder {path.parent}; make it first")


def terminal_width() -> int:
    """Columns of the terminal; 80 where there is none, so that output in a file is the same."""
    return shutil.get_terminal_size((80, 24)).columns if sys.stdout.isatty() else 80


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
