"""The sections on depth profiles and on their slopes."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import polars as pl

from sweeps.findings.verdicts import MOST_SATURATED
from sweeps.report.book import Book, html_empty, html_figure, html_panel, html_table
from sweeps.report.charts.chart import Chart, follows_of
from sweeps.report.charts.colours import ARMS
from sweeps.report.charts.profiles import profile_charts, slope_chart
from sweeps.report.data import ReportData
from sweeps.report.profile_text import over_propagation, plain, with_interval
from sweeps.report.tables.names import arms_of

# Panels of a model that are seen at once; further ones are folded.
MOST_PANELS = 12


def arm_key(data: ReportData) -> str:
    """Return which colour is which arm, for all charts of a section."""
    return "".join(
        f'<span><i data-arm="{escape(arm, quote=True)}"{_dashed(k)}></i>{escape(arm)}</span>'
        for k, arm in enumerate(arms_of(data.tables["slopes"]))
    )


def _dashed(number: int) -> str:
    """Return how the line of an arm is drawn: those of the first colours are whole."""
    return ' class="dashed"' if number >= len(ARMS["light"]) else ""


def profile_grid(data: ReportData, book: Book) -> str:
    if data.shown("bands").is_empty():
        return html_empty("Depth profiles", "No finished run has a profile yet.")
    return (
        "<section><h2>Where it changes: depth profiles</h2><p>Change of each block against its"
        " relative depth: lines are means, small points are seeds, bands are 95 % intervals."
        " Dashed: propagation, what noise in the weights does without any gradient at the same mean"
        " change. Dotted, or a number at the edge: the row-shuffled null, what unrelated"
        " representations of this size would show. ◇ is the embedding's output.</p>"
        f'<div class="key">{arm_key(data)}</div>{model_grid(data, book, profile_charts(data))}'
        "</section>"
    )


def model_grid(data: ReportData, book: Book, charts: Sequence[Chart]) -> str:
    """Return a card a model, with its charts in their order."""
    cards: dict[str, list[Chart]] = {}
    for chart in charts:
        cards.setdefault(chart.only["model"], []).append(chart)
    shown = "".join(_model_card(data, book, model, own) for model, own in cards.items())
    return f'<div class="models-grid">{shown}</div>'


def _model_card(data: ReportData, book: Book, model: str, charts: Sequence[Chart]) -> str:
    """Return the panels of one model, with what no picture without the null would show."""
    panels = [html_panel(book.place(chart), chart.title) for chart in charts]
    saturated = data.shown("slopes").filter(
        (pl.col("model") == model) & (pl.col("saturated") >= MOST_SATURATED)
    )
    said = ", ".join(
        f"{row['condition']} {row['arm']} in {100 * row['saturated']:.0f} % of blocks"
        for row in saturated.to_dicts()
    )
    mark = f'<p class="mark" data-first-view>▲ at the null: {escape(said)}</p>' if said else ""
    few, more = panels[:MOST_PANELS], panels[MOST_PANELS:]
    folded = (
        f"<details><summary>{len(more)} more conditions</summary>"
        f'<div class="panels">{"".join(more)}</div></details>'
        if more
        else ""
    )
    wide = " wide-model" if len(charts) > 3 else ""
    return (
        f'<div class="model{wide}" data-of-model="{escape(model, quote=True)}">'
        f"<h3>{escape(model)}</h3>{mark}"
        f'<div class="panels">{"".join(few)}</div>{folded}</div>'
    )


def slopes_section(data: ReportData, book: Book) -> str:
    slopes = data.shown("slopes")
    slopes = slopes if slopes.is_empty() else slopes.filter(pl.col("n") > 0)
    if slopes.is_empty():
        return ""
    of_one = "" if follows_of(slopes) == "fade" else ": <span data-shown-model></span>"
    figure = html_figure(
        book.place(slope_chart(data)),
        "Slope of every condition; small points are its seeds, at the right edge n.",
    )
    rows = [
        [
            *(row["model"], row["condition"], row["arm"], str(row["n"])),
            with_interval(row["slope"], row["slope_low"], row["slope_high"]),
            over_propagation(row).strip(),
            plain(row["centre_of_mass"]),
            plain(row["concentration_last_quarter"]),
            plain(row["theil_sen"], 3),
            plain(row["slope_dfbeta"], 3),
            plain(row["embedding_change"], 3),
            plain(row["dose"]),
            row["flags"],
        ]
        for row in slopes.to_dicts()
    ]
    names = [
        *("model", "condition", "control", "n", "slope [95 %]", "over g", "centre"),
        *("last quarter", "Theil–Sen", "block left out", "d₀", "dose", "note"),
    ]
    return (
        f"<section><h2>Slopes{of_one}</h2><p>The locality gradient: ordinary least squares of"
        " change on relative depth. Right of the dashed line, later blocks change more. An interval"
        f" is drawn from 3 seeds on.</p>{figure}<details><summary>The same as a table, of"
        f" {escape(data.metric)} at {data.at}</summary>"
        "<p>Over g: slope over mean change, less that of noise in the weights; ✓ its interval lies"
        " above 0. Centre ½ and last quarter ¼: a flat profile. Theil–Sen: the median slope between"
        " two blocks. Block left out: how far the slope moves when one block is left out, at most."
        " d₀: change of the embedding's output. Dose: largest over smallest cumulated step of a"
        f" block.</p>{html_table(names, rows, numeric=range(3, 12))}</details></section>"
    )
