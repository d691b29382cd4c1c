"""The section on what outlives a control: slope against slope, a matrix, shares, states."""

from __future__ import annotations

import re
from html import escape
from typing import Any

import polars as pl

from sweeps.findings.verdicts import DELTA, SENSITIVITY, VERDICTS
from sweeps.report.book import Book, html_figure, html_table
from sweeps.report.charts.chart import follows_of
from sweeps.report.charts.persistence import pair_chart, persistence_chart, retained_chart
from sweeps.report.data import ReportData
from sweeps.report.persistence_text import STATES, kept, score_columns_of
from sweeps.report.profile_text import plain, with_interval
from sweeps.report.tables.names import arms_of
from sweeps.statistics.stacks import NEGATIVE_CONTROL
from sweeps.store.schema import NULL_METRICS

# Pixels of half of a page.
_HALF = 520


def persistence_section(data: ReportData, book: Book) -> str:
    table = data.shown("persistence")
    if table.is_empty():
        return ""
    parts = "".join(_of_arm(data, book, arm) for arm in arms_of(table))
    return (
        "<section><h2>What outlives a control</h2><p>Slopes under a control, over seeds matched"
        " with standard training. A profile <b>persists</b> when more than"
        f" δ = {DELTA:g} of its slope is shown to be left, and <b>reverses</b> when more than that"
        " is shown to point the other way. It <b>collapses</b> when two one-sided tests show what"
        f" is left to be within ± {DELTA:g} of the slope: near 0, not merely not shown to differ"
        " from it. Grey: states of knowledge, in which nothing was found. <b>Dose</b>: how"
        " unequally standard training moves the blocks, largest over smallest.</p>"
        f"{_of_first_view(_states(table))}{parts}"
        f"{_of_first_view(_agreement(data) + _persistence_table(data))}</section>"
    )


def _of_arm(data: ReportData, book: Book, arm: str) -> str:
    """Return the charts of one control with its options."""
    table, shares = (
        data.shown(name).filter(pl.col("arm") == arm) for name in ("persistence", "retained")
    )
    pairs = ""
    if table["along"].is_not_null().any():
        pairs = html_figure(
            book.place(pair_chart(data, arm)),
            "Slope against slope, along the sign of the standard one, with 95 % intervals; small"
            " points are matched seeds. On the dashed diagonal nothing changed; in the shaded"
            f" wedge, within ± {DELTA:g} of the standard slope, it is gone.",
        )
    cells = persistence_chart(data, arm)
    matrix = html_figure(
        book.place(cells),
        "Verdict, the share of the slope that was kept, its 95 % interval (Fieller), matched seeds"
        " and dose.",
    )
    share = ""
    if not shares.is_empty():
        share = html_figure(
            book.place(retained_chart(data, arm)),
            "The share kept, with Fieller's interval. 1: the slope of standard training; shaded:"
            f" within ± {DELTA:g} of 0, what counts as gone. An arrow goes on beyond the scale.",
        )
    # A matrix that would scroll in half of the page has the whole of it.
    beside, below = ("", matrix) if cells.narrowest > _HALF else (matrix, "")
    both = f'<div class="pair"><div>{pairs}</div><div>{beside}</div></div>'
    of_one = "" if follows_of(table) == "fade" else ": <span data-shown-model></span>"
    return f"<h3>{escape(arm)}{of_one}</h3>{both}{below}{share}"


def _of_first_view(text: str) -> str:
    """Return what is hidden while the page shows another metric or step than it was made for."""
    return f"<div data-first-view>{text}</div>" if text else ""


def _states(table: pl.DataFrame) -> str:
    """Return what each verdict that is no finding means, where it occurs."""
    counts = {name: int((table["verdict"] == name).sum()) for name in VERDICTS}
    items = "".join(
        f"<li><b>{escape(_said(name))}</b> ({count}): {_code(STATES[name])}</li>"
        for name, count in counts.items()
        if count and name in STATES
    )
    return f'<ul class="note">{items}</ul>' if items else ""


def _code(text: str) -> str:
    return re.sub(r"`([^`]*)`", r"<code>\1</code>", escape(text))


def _said(verdict: str) -> str:
    return verdict.replace("_", " ")


def _agreement(data: ReportData) -> str:
    """Return what the verdicts become where the arms, or the measure of change, are others."""
    table = data.shown("persistence")
    metrics = [name for name in NULL_METRICS if f"verdict_{name}" in table.columns]
    lines = []
    if "verdict_equal_change" in table.columns:
        lines.append(f"at equal mean change: {_beside(table, 'verdict_equal_change')}")
        lines.append(
            "at equal evaluation loss: unmatched until a sweep evaluates"
            if not score_columns_of(table)
            else f"at equal evaluation loss: {_beside(table, 'verdict_equal_loss')}"
        )
    lines += [
        f"with δ = {one:g}: {_beside(table, f'verdict_delta_{one:g}')}" for one in SENSITIVITY
    ]
    lines += [
        f"as {name}: {_beside(table, f'verdict_{name}')}" for name in metrics if name != data.metric
    ]
    items = "".join(f"<li>{escape(line)}</li>" for line in lines)
    return (
        f'<p class="note">At the same step: {escape(_tally(table["verdict"]))}. Other distances and'
        " other δ are a sensitivity on the same runs, no replication:</p>"
        f'<ul class="note">{items}</ul>'
    )


def _beside(table: pl.DataFrame, column: str) -> str:
    """Return other verdicts of the same conditions: how many agree, and what the others are."""
    others = table.filter(pl.col(column) != pl.col("verdict"))
    if others.is_empty():
        return "the same verdicts"
    named = [f"{row['model']} {row['condition']} {_said(row[column])}" for row in others.to_dicts()]
    shown = "; ".join(named) if len(named) <= 3 else _tally(others[column])
    return f"{others.height} of {table.height} are others ({shown})"


def _tally(verdicts: pl.Series) -> str:
    found = verdicts.to_list()
    order = [name for name in (*VERDICTS, *dict.fromkeys(found)) if name in found]
    return ", ".join(f"{found.count(name)} {_said(name)}" for name in dict.fromkeys(order))


def _persistence_table(data: ReportData) -> str:
    table = data.shown("persistence")
    others = {
        "at equal mean change": "verdict_equal_change",
        **{name: f"verdict_{name}" for name in NULL_METRICS if name != data.metric},
    }
    others = {name: column for name, column in others.items() if column in table.columns}
    flagged = int((table["flags"] != "").sum())
    rows = [
        [
            *(row["model"], row["condition"], row["arm"], str(row["n"]), plain(row["dose"])),
            plain(row["slope_against"], 3),
            with_interval(row["slope_control"], *_signed(row)),
            kept(row),
            _said(row["verdict"]) + (f", {NEGATIVE_CONTROL}" if row["negative_control"] else ""),
            *(_said(row[column]) for column in others.values()),
            row["flags"],
        ]
        for row in table.to_dicts()
    ]
    names = [
        *("model", "condition", "control", "n", "dose", "standard", "under control [95 %]"),
        "kept [95 %]",
        *("verdict", *others, "note"),
    ]
    noted = f", {flagged} with a note" if flagged else ""
    return (
        f"<details><summary>The same as a table{noted}</summary>"
        f"{html_table(names, rows, numeric=range(3, 8))}</details>"
    )


def _signed(row: dict[str, Any]) -> tuple[float | None, float | None]:
    """Return the interval of the slope itself; ``along`` is along the standard slope's sign."""
    low, high = row["along_low"], row["along_high"]
    if low is None or high is None or (row["slope_against"] or 0) >= 0:
        return low, high
    return -high, -low
