"""The sections on training: what was learned, change over training, and how blocks were moved."""

from __future__ import annotations

from html import escape

import polars as pl

from sweeps.findings.verdicts import LEAST_DOSE
from sweeps.reading.run_table import LOSS_CHANGE, evaluated_columns
from sweeps.report.book import Book, html_empty, html_figure, html_grid, html_table
from sweeps.report.charts.training import (
    change_charts,
    curve_charts,
    learned_chart,
    ratio_charts,
)
from sweeps.report.data import ReportData
from sweeps.report.persistence_text import figure
from sweeps.report.profile_text import plain
from sweeps.report.sections.profiles import arm_key
from sweeps.report.tables.names import STANDARD

# Said in place of maps that a page cannot hold.
_TOO_MANY = (
    "These conditions are too many for maps of each on one page: a sweep of some of them has them,"
    " and so has depthsweep query."
)
# Rows of a table that is open at once.
_OPEN_ROWS = 24


def learned_section(data: ReportData, book: Book) -> str:
    """Return what was learned beside how far blocks changed: losses, and scores where there are."""
    table = data.tables["learned"]
    if table.is_empty():
        return ""
    names = [name for name in evaluated_columns() if name in table.columns]
    scored = LOSS_CHANGE in table.columns and table[LOSS_CHANGE].is_not_null().any()
    rows = [
        [
            *(row["model"], row["condition"], row["arm"], str(row["n"])),
            *(figure(row[name]) for name in ("mean", "final_loss", *names)),
        ]
        for row in table.to_dicts()
    ]
    said = [name.removeprefix("evaluation_").replace("_", " ") for name in names]
    said = [f"held-out {name}" for name in said]
    heads = ["model", "condition", "control", "n", "mean change", "training loss", *said]
    text = (
        "What runs scored on examples that none was trained on, from before the first step on: a"
        " control under which less was learned has less of everything else to show, too. Held-out"
        " loss change is against step 0."
        if names
        else "No run was scored on held-out examples (see evaluation in the sweep file): whether a"
        " control also changed how much was learned is read off the training loss alone."
    )
    numbered = html_table(heads, rows, range(3, len(heads)))
    if len(rows) > _OPEN_ROWS:
        numbered = f"<details><summary>Losses of every condition</summary>{numbered}</details>"
    picture = ""
    if scored and table["mean"].is_not_null().any():
        picture = html_figure(
            book.place(learned_chart(data)),
            "A line joins the arms of one condition. Further left more was learned, higher up more"
            " changed.",
        )
    return (
        f"<section><h2>What was learned beside it</h2><p>{escape(text)} Means over seeds at the"
        f" end.</p>{picture}{numbered}"
        f"{_curves(data, book)}</section>"
    )


def _curves(data: ReportData, book: Book) -> str:
    grids = []
    for table, said in (("evaluation_curves", "evaluation loss"), ("curves", "training loss")):
        if not data.tables[table].is_empty():
            charts = curve_charts(data, table, said)
            grids.append(html_grid((book.place(chart), chart.title) for chart in charts))
    if not grids:
        return ""
    return (
        "<h3>Loss: <span data-shown-model></span></h3><p>The mean over the seeds of a condition,"
        " and a band from the smallest to the largest. A curve ends where its first seed does."
        f' Choose a model above.</p><div class="key">{arm_key(data)}</div>{"".join(grids)}'
    )


def changes_section(data: ReportData, book: Book) -> str:
    """Return the change of each block at each probe; nothing where there is one probe."""
    table = data.tables["changes"]
    if table.is_empty() and not data.shown("bands").is_empty():
        return html_empty("Change over training", _TOO_MANY)
    if table.is_empty() or table["step"].n_unique() < 2:
        return ""
    charts = [(book.place(chart), chart.title) for chart in change_charts(data)]
    return (
        "<section><h2>Change over training: <span data-shown-model></span></h2><p>Change of each"
        " block at each probe, the mean over seeds: later columns are later steps, and the top row"
        " is the last block. One scale for all controls of a condition.</p>"
        f"{html_grid(charts, counted=True)}</section>"
    )


def ratios_section(data: ReportData, book: Book) -> str:
    if data.tables["spread"].is_empty():
        return ""
    charts = [(book.place(chart), chart.title) for chart in ratio_charts(data)]
    maps = html_grid(charts, counted=True) if charts else f'<p class="soft">{escape(_TOO_MANY)}</p>'
    rows = [
        [
            *(row["model"], row["condition"], row["arm"]),
            *(plain(row["dose"]), f"{row['spread']:.1e}"),
        ]
        for row in data.tables["spread"].drop_nulls("spread").to_dicts()
    ]
    spread = html_table(
        ["model", "condition", "control", "dose D", "largest spread"], rows, numeric=[3, 4]
    )
    return (
        "<section><h2>Update ratios: <span data-shown-model></span></h2>"
        f"<p>{escape(_of_doses(data))} ‖ΔW‖/‖W‖ of each block against the mean over blocks, on one"
        " scale for all controls of an objective: a blank map is one in which all blocks move"
        f" alike.</p>{maps}<details><summary>Dose, and the largest"
        f" (max/min − 1) of the ratio over blocks in any step</summary>{spread}</details></section>"
    )


def _of_doses(data: ReportData) -> str:
    """Return how much there was for a control to take away, in numbers."""
    doses = data.shown("slopes").filter(pl.col("control") == STANDARD)["dose"].drop_nulls()
    if doses.is_empty():
        return "How unequally standard training moves the blocks (its dose) is not known."
    least, most = f"{min(doses):.2f}", f"{max(doses):.2f}"
    one = len(doses) == 1
    return (
        "Under standard training the largest cumulated step of a block is"
        f" {least if least == most else f'{least} to {most}'} times the smallest (the dose D, of"
        f" {len(doses)} condition{'' if one else 's'}); below {LEAST_DOSE:g} equal steps have"
        f" nothing to take away, which holds for {sum(dose < LEAST_DOSE for dose in doses)}."
    )
