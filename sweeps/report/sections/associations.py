"""The section on what steepness goes with."""

from __future__ import annotations

import math
from html import escape

import polars as pl

from sweeps.findings.claims import ONE_NUMBER
from sweeps.report.book import Book, html_figure
from sweeps.report.charts.associations import steepness_chart, width_chart
from sweeps.report.claims_text import numbers
from sweeps.report.data import ReportData


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
