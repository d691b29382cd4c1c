"""The section on what became of alignment: its outcome in one sentence, and the numbers."""

from __future__ import annotations

from html import escape

import polars as pl

from sweeps.findings.alignment.outcomes import (
    FEW_PROMPTS,
    IN_WORDS,
    LEAST_PROMPTS,
    NOT_DEGRADED,
    OPEN,
    UNMATCHED,
    UNSOUND,
)
from sweeps.findings.verdicts import DELTA
from sweeps.report.book import Book, html_figure, html_table
from sweeps.report.charts.alignment import alignment_chart
from sweeps.report.data import ReportData
from sweeps.report.profile_text import with_interval

_OTHERS = {
    OPEN: "these seeds do not show which of the two falls",
    FEW_PROMPTS: f"fewer than {LEAST_PROMPTS} harmful prompts say nothing of others",
    UNSOUND: "an arm refuses most benign prompts too, or its answers are broken text, so that its"
    " refusals say nothing",
    UNMATCHED: "the arms have no evaluation loss in common",
    NOT_DEGRADED: "alignment did not degrade under standard training, so that nothing can be said",
}

_CAPTION = (
    "Each point is a condition under a control against standard training, at equal evaluation loss,"
    " small points its seeds, pair by pair, lines 95 % intervals. Left of the dashed line the"
    " profile is flatter than under standard training; below the other less of the refusals is"
    " lost."
)


def alignment_section(data: ReportData, book: Book) -> str:
    """Return what became of refusals under each control; nothing where no run answers prompts."""
    table = data.tables["alignment"]
    if table.is_empty():
        return ""
    rows = [
        [
            *(row["model"], row["condition"], row["arm"], str(row["n"])),
            *(_shown(row, name) for name in ("degradation", "degradation_change")),
            *(_shown(row, name) for name in ("slope", "slope_change")),
            row["outcome"].replace("_", " "),
        ]
        for row in table.to_dicts()
    ]
    heads = ["model", "condition", "control", "n", "degradation", "its change"]
    heads += ["slope", "its change", "outcome"]
    chart = alignment_chart(data)
    figure = "" if chart is None else html_figure(book.place(chart), _CAPTION)
    return (
        "<section><h2>Does alignment survive?</h2>"
        f"<p><b>{escape(outcome_sentence(table))}</b></p>{figure}"
        "<p>Degradation is how far the refusal rate on harmful prompts has fallen since before the"
        " first step, under standard training; its change is that under the control less it, and so"
        " for the slope, along the sign of the standard one. Both arms are taken where they first"
        " had the larger of their two final evaluation losses, seed by seed, with 95 % intervals"
        " over seeds, for these prompts. Either falls where it is shown that more than"
        f" δ = {DELTA:g} of it is gone.</p>"
        f"{html_table(heads, rows, range(3, 8))}{_reversions(data)}</section>"
    )


def outcome_sentence(table: pl.DataFrame) -> str:
    """Return what the first condition of the first control shows, in one sentence, and how many of
    all conditions show the same."""
    first = table.row(0, named=True)
    outcome = first["outcome"]
    said = IN_WORDS.get(outcome) or _OTHERS.get(outcome) or f"no finding ({outcome})"
    where = f"{first['model']}, {first['condition']}"
    alike = table.filter(pl.col("outcome") == outcome).height
    others = f"; so it is in {alike} of {table.height} comparisons" if table.height > 1 else ""
    return f"Under {first['arm']} ({where}, {first['n']} seeds): {said}{others}."


def _shown(row: dict[str, float | None], name: str) -> str:
    return with_interval(row[name], row[f"{name}_low"], row[f"{name}_high"])


def _reversions(data: ReportData) -> str:
    """Return how far each layer went back to the model that the aligned one was made of."""
    table = data.tables["reversions"]
    if table.is_empty():
        return ""
    names = table["group"].unique(maintain_order=True).to_list()
    rows = []
    for key, own in table.group_by("model", "condition", "arm", maintain_order=True):
        known = dict(own.select("group", "reversion").iter_rows())
        cells = [f"{known[name]:.2f}" if name in known else "–" for name in names]
        rows.append([*map(str, key), str(own["n"].max()), *cells])
    shown = html_table(
        ["model", "condition", "control", "n", *names], rows, range(3, 4 + len(names))
    )
    return (
        "<details><summary>How far each layer went back to the model before alignment: the cosine"
        " of its cumulated update with the way there (1 straight back, 0 another way), at the last"
        f" step, the mean over seeds</summary>{shown}</details>"
    )
