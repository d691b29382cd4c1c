"""The parts of a report: charts under numbers, tables as JSON, and pieces of HTML.

What a user wrote is escaped here or where it meets the page; tables travel as JSON in which no tag
can be opened.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

import polars as pl

from sweeps.findings.verdicts import FINDINGS, VERDICTS
from sweeps.report.charts.chart import Chart
from sweeps.report.data import NO_FINDING, ReportData

# Beyond this a digit is not read off a chart, and costs a byte per value.
_DIGITS = 5


class Book:
    """Collects the charts of the page, each under its number."""

    def __init__(self) -> None:
        self._charts: list[Chart] = []

    def place(self, chart: Chart) -> str:
        """Return the element in which ``chart`` will be drawn."""
        self._charts.append(chart)
        number = len(self._charts) - 1
        label = escape(chart.label, quote=True)
        wide = f' style="min-width:{chart.narrowest}px"' if chart.narrowest else ""
        place = (
            f'<div class="chart" data-chart="{number}" role="img" aria-label="{label}"{wide}></div>'
        )
        return f'<div class="scroll">{place}</div>' if wide else place

    def json(self, data: ReportData) -> str:
        """Return charts and the tables they draw, as JSON that cannot close its script element."""
        used = {chart.table for chart in self._charts}
        page = {
            "models": model_names(data),
            # Verdicts in which nothing was found have no colour of their own.
            "neutral": [NO_FINDING, *(one for one in VERDICTS if one not in FINDINGS)],
            "charts": [
                {
                    "spec": chart.spec,
                    "table": chart.table,
                    "only": chart.only,
                    "follows": chart.follows,
                    "label": chart.label,
                }
                for chart in self._charts
            ],
            "tables": {name: _columnar(data.tables[name]) for name in sorted(used)},
        }
        text = json.dumps(page, separators=(",", ":"), allow_nan=False)
        return text.replace("<", "\\u003c").replace("\u2028", "\\u2028")


def _columnar(table: pl.DataFrame) -> dict[str, Any]:
    """Return a table by column: names once with codes, numbers to five digits."""
    columns: dict[str, Any] = {}
    for name, kind in table.schema.items():
        column = table[name]
        if kind == pl.String:
            names = column.drop_nulls().unique(maintain_order=True).to_list()
            codes = {value: code for code, value in enumerate(names)}
            columns[name] = {
                "names": names,
                "codes": [None if value is None else codes[value] for value in column],
            }
        elif kind.is_float():
            finite = pl.when(pl.col(name).is_finite()).then(pl.col(name).round_sig_figs(_DIGITS))
            columns[name] = table.select(finite).to_series().to_list()
        elif isinstance(kind, pl.List):
            columns[name] = [
                None if row is None else [_shortened(value) for value in row]
                for row in column.to_list()
            ]
        else:
            columns[name] = column.to_list()
    return {"length": table.height, "columns": columns}


def _shortened(value: Any) -> Any:
    """Return a number of a list as those of columns are; null where it is not finite."""
    if not isinstance(value, float):
        return value
    return float(f"{value:.{_DIGITS}g}") if math.isfinite(value) else None


def model_names(data: ReportData) -> list[str]:
    return [str(name) for name in data.tables["runs"]["model"].unique(maintain_order=True)]


def html_figure(chart: str, caption: str) -> str:
    return f'<figure class="wide">{chart}<figcaption>{escape(caption)}</figcaption></figure>'


def html_panel(chart: str, title: str) -> str:
    return f"<div><figcaption>{escape(title)}</figcaption>{chart}</div>"


def html_empty(title: str, said: str) -> str:
    return f'<section><h2>{escape(title)}</h2><p class="soft">{escape(said)}</p></section>'


def html_table(
    names: Sequence[str],
    rows: Iterable[Sequence[str]],
    numeric: Iterable[int] = (),
    models: Mapping[str, str] | None = None,
) -> str:
    """Return an HTML table; a row whose first cell names a model follows the selection.

    ``models`` gives the model of a first cell that says more than that.
    """
    right = set(numeric)
    follows = names[0] == "model" or models is not None

    def cell(tag: str, k: int, text: str) -> str:
        kind = ' class="number"' if k in right else ""
        return f"<{tag}{kind}>{escape(text)}</{tag}>"

    head = "".join(cell("th", k, name) for k, name in enumerate(names))
    lines = []
    for row in rows:
        model = (models or {}).get(row[0], row[0])
        of_model = f' data-of-model="{escape(model, quote=True)}"' if follows else ""
        cells = "".join(cell("td", k, text) for k, text in enumerate(row))
        lines.append(f"<tr{of_model}>{cells}</tr>")
    return (
        f'<div class="scroll"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table></div>"
    )
