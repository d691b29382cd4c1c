"""The sections on what the profiles show: whether they outlive a control, what goes with them."""

from __future__ import annotations

import math
import re
from html import escape
from typing import Any

import polars as pl

from sweeps.findings.claims import ONE_NUMBER
from sweeps.findings.verdicts import DELTA, SENSITIVITY, VERDICTS
from sweeps.report.book import Book, html_figure, html_table
from sweeps.report.charts.associations import steepness_chart, width_chart
from sweeps.report.charts.persistence import persistence_chart, retained_chart
from sweeps.report.claims_text import numbers
from sweeps.report.data import ReportData
from sweeps.report.persistence_text import STATES, kept, score_columns_of
from sweeps.report.profile_text import plain, with_interval
from sweeps.statistics.stacks import NEGATIVE_CONTROL
from sweeps.store.schema import NULL_METRICS


def persistence_section(data: ReportData, book: Book) -> str:
    table = data.tables["persistence"]
    if table.is_empty():
        return ""
    figures = html_figure(
        book.place(persistence_chart(data)),
        "Verdict, matched seeds, and the 95 % interval of the share of the slope that was kept.",
    )
    if not data.tables["retained"].is_empty():
        figures += html_figure(
            book.place(retained_chart(data)),
            "The same share with Fieller's interval. 1: the slope of standard training; shaded:"
            f" within ± {DELTA:g} of 0, what counts as gone. An arrow goes on beyond the scale.",
        )
    return (
        "<section><h2>Persistence</h2><p>Slopes under equal steps, over seeds matched with"
        " standard training. A profile <b>persists</b> when more than"
        f" δ = {DELTA:g} of its slope is shown to be left, and <b>reverses</b> when more than that"
        " is shown to point the other way. It <b>collapses</b> when two one-sided tests show what"
        f" is left to be within ± {DELTA:g} of the slope: near 0, not merely not shown to differ"
        " from it. Grey cells are no findings.</p>"
        f'{_states(table)}<div class="pair">{figures}</div>{_agreement(data)}'
        f"{_persistence_table(data)}</section>"
    )


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
    table = data.tables["persistence"]
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
    named = [
        f"{row['setting']} {row['objective']} {_said(row[column])}" for row in others.to_dicts()
    ]
    shown = "; ".join(named) if len(named) <= 3 else _tally(others[column])
    return f"{others.height} of {table.height} are others ({shown})"


def _tally(verdicts: pl.Series) -> str:
    found = verdicts.to_list()
    order = [name for name in (*VERDICTS, *dict.fromkeys(found)) if name in found]
    return ", ".join(f"{found.count(name)} {_said(name)}" for name in dict.fromkeys(order))


def _persistence_table(data: ReportData) -> str:
    table = data.tables["persistence"]
    others = {
        "at equal mean change": "verdict_equal_change",
        **{name: f"verdict_{name}" for name in NULL_METRICS if name != data.metric},
    }
    others = {name: column for name, column in others.items() if column in table.columns}
    flagged = int((table["flags"] != "").sum())
    rows = [
        [
            *(row["setting"], row["objective"], str(row["n"]), plain(row["dose"])),
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
        *("setting", "objective", "n", "dose", "standard", "equal steps [95 %]", "kept [95 %]"),
        *("verdict", *others, "note"),
    ]
    noted = f", {flagged} with a note" if flagged else ""
    rows_of = {row["setting"]: row["model"] for row in table.select("setting", "model").to_dicts()}
    return (
        f"<details><summary>The same as a table{noted}</summary>"
        f"{html_table(names, rows, numeric=range(2, 7), models=rows_of)}</details>"
    )


def _signed(row: dict[str, Any]) -> tuple[float | None, float | None]:
    """Return the interval of the slope itself; ``along`` is along the standard slope's sign."""
    low, high = row["along_low"], row["along_high"]
    if low is None or high is None or (row["slope_against"] or 0) >= 0:
        return low, high
    return -high, -low


def associations_section(data: ReportData, book: Book) -> str:
    steepness = data.tables["steepness"]
    parts = []
    if steepness.drop_nulls(["steepness", "objective_distance"]).height:
        parts.append(
            "<h2>Steepness and objective distance</h2><p>Slope over mean change under standard"
            " training, against 1 − cosine between the gradients of the pretraining and the"
            " fine-tuning objective at initialisation. A line joins the conditions of one model;"
            f" small points are seeds. {escape(_unmeasured(steepness))}</p>"
            + html_figure(book.place(steepness_chart(data)), _found(data, "rank correlation"))
        )
    if steepness["steepness"].is_not_null().any():
        shares = _found(data, "explained by family", "explained by objective")
        parts.append(
            "<h2>What explains steepness, and width</h2><p>Share of the variance of steepness over"
            " the conditions under standard training: of family given the objective, and of"
            f" objective given the model; the unit is the model. {escape(shares)}</p>"
            f"<p>{escape(_of_width(data.width_like_steepness))}</p>"
        )
        if abs(data.width_like_steepness) <= ONE_NUMBER:
            parts.append(
                html_figure(
                    book.place(width_chart(data)),
                    "Effective share of blocks that carry the change: 1 when all change alike.",
                )
            )
    return f"<section>{''.join(parts)}</section>" if parts else ""


def _unmeasured(steepness: pl.DataFrame) -> str:
    """Return how many conditions the chart lacks, and how many points of it are hollow."""
    known = steepness.filter(pl.col("steepness").is_not_null())
    without = known["objective_distance"].null_count()
    noisy = int(known["objective_distance_noisy"].fill_null(value=False).sum())
    said = []
    if without:
        said.append(f"{without} of {known.height} conditions have no measured distance.")
    if noisy:
        said.append(f"{noisy} hollow: the distance is noisy, and no claim rests on it.")
    return " ".join(said)


def _of_width(rank: float) -> str:
    """Return whether the width of a profile says anything that its steepness does not."""
    if math.isnan(rank):
        return "Width is told apart from steepness from three conditions on."
    if abs(rank) > ONE_NUMBER:
        return (
            "Width, the effective share of blocks that carry the change, is here the same number as"
            f" steepness: their rank correlation over the conditions is {rank:.3f}."
        )
    return f"The rank correlation of width with steepness over the conditions is {rank:.2f}."


def _found(data: ReportData, *names: str) -> str:
    """Return the named associations in words, with what each is over."""
    words = []
    for name in names:
        each = data.associations[name]
        notes = f" ({'; '.join(each.notes)})" if each.notes else ""
        words.append(f"{name}: {numbers(each) or each.blocked}{notes}")
    said = "; ".join(words)
    return f"{said[:1].upper()}{said[1:]}."
