"""The section on models whose depth is a loop: change by call, and what the turns share."""

from __future__ import annotations

from sweeps.report.book import Book
from sweeps.report.charts.calls import call_charts, turn_charts
from sweeps.report.data import ReportData
from sweeps.report.sections.profiles import model_grid


def calls_section(data: ReportData, book: Book) -> str:
    """Return what models whose depth is a loop show; nothing where no block runs twice."""
    charts = call_charts(data)
    if not charts:
        return ""
    return (
        "<section><h2>Depth that is a loop: change by iteration and block</h2><p>Each cell is the"
        " state that one call of a block gives: a row a distinct block, a column an iteration."
        " Weights and controls are of blocks, each once; a model of one block meets equal steps by"
        f" construction.</p>{model_grid(data, book, charts)}{_turns(data, book)}</section>"
    )


def _turns(data: ReportData, book: Book) -> str:
    charts = turn_charts(data)
    if not charts:
        return ""
    return (
        "<h3>What the turns of a block have in common</h3><p>The share of a later turn's energy"
        " that lies in the directions which hold 95 % of an earlier turn's, at the last step, the"
        " mean over seeds; in brackets before fine-tuning. Near 1 the loop stays in the subspace"
        f" that it is in; shuffled rows would have the share of directions among rows.</p>"
        f"{model_grid(data, book, charts)}"
    )
