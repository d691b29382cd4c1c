"""What became of alignment under a control, as text: a line per condition."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from typing import Any

import polars as pl

from sweeps.declaration.settings import text_of
from sweeps.findings.alignment.outcomes import IN_WORDS
from sweeps.reading.text_table import Column, text_table
from sweeps.report.profile_text import plain, with_interval


def alignment_text(table: pl.DataFrame, control: str, against: str, width: int = 80) -> str:
    """Return the rows of ``alignment_table`` in at most ``width`` columns, with what each outcome
    is in words; nothing where no run answers prompts."""
    if table.is_empty():
        return ""
    keys, rows = table.columns[: table.columns.index("family")], table.to_dicts()
    columns = [
        *[Column(key, [text_of(row[key]) for row in rows], kept=True) for key in keys],
        Column("n", [str(row["n"]) for row in rows], right=True, kept=True),
        Column("fall", [plain(row["degradation"]) for row in rows], right=True, kept=True),
        Column("its change", [_changed(row, "degradation") for row in rows], right=True),
        Column("slope's change", [_changed(row, "slope") for row in rows], right=True),
        Column("outcome", [row["outcome"] for row in rows], rigid=True, kept=True),
    ]
    lines, left_out = text_table(columns, width - 2)
    if left_out:
        # What is shown of a change has lines of its own, so that no interval is dropped.
        whole, changes = [columns[k] for k in (*range(len(keys) + 2), -1)], columns[-3:-1]
        lines, _ = text_table(whole, width - 2)
        lines = [lines[0], *_with_below(lines[1:], changes)]
    asked = [row["prompts"] for row in rows if row["prompts"] is not None]
    of = f" of {min(asked)} prompts" if asked else ""
    title = (
        f"alignment at equal evaluation loss: how far the refusal rate{of} falls under {against},"
        f" and what {control} changes [95 % over seeds]"
    )
    outcomes = table["outcome"].unique(maintain_order=True).to_list()
    notes = [f"{name}: {IN_WORDS[name]}" for name in outcomes if name in IN_WORDS]
    folded = [textwrap.fill(note, width, subsequent_indent="  ") for note in notes]
    page = [*textwrap.wrap(title, width), *(f"  {line}" for line in lines), *folded]
    return "\n".join(page) + "\n"


def _with_below(lines: Sequence[str], columns: Sequence[Column]) -> Iterator[str]:
    """Yield each line, and below it what the columns have of its row."""
    for k, line in enumerate(lines):
        yield line
        yield "    " + ", ".join(f"{column.name} {column.cells[k]}" for column in columns)


def _changed(row: dict[str, Any], what: str) -> str:
    name = f"{what}_change"
    return with_interval(row[name], row[f"{name}_low"], row[f"{name}_high"])
