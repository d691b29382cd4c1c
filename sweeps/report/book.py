"""The parts of a report: charts under numbers, tables as JSON, and pieces of HTML.

What a user wrote is escaped here or where it meets the page; tables travel as JSON in which no tag
can be opened.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

import polars as pl

from sweeps.report.charts.chart import Chart
from sweeps.report.charts.colours import page_colours
from sweeps.report.charts.profiles import METRIC_TITLES
from sweeps.report.data import ReportData
from sweeps.report.tables.finite import finite
from sweeps.report.tables.names import arms_of

# Beyond this a digit is not read off a chart, and costs a byte per value.
_DIGITS = 5
# Said by other columns already.
_UNSHOWN = ("treatment",)
# Charts of a grid that are seen at once; further ones are folded.
MOST_CHARTS = 24
# Rows of an HTML table: more are nobody's to read, and are in the CSV of the chart beside it.
MOST_TABLE_ROWS = 200


class Book:
    """Collects the charts of the page, each under its number."""

    def __init__(self) -> None:
        self._charts: list[Chart] = []

    def place(self, chart: Chart) -> str:
        """Return the element in which ``chart`` will be drawn, and under which it can be saved."""
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
        used |= {chart.limits for chart in self._charts if chart.limits}
        arms = arms_of(data.tables["slopes"])
        specs: dict[int, int] = {}
        page = {
            "name": data.name,
            "models": model_names(data),
            "views": [
                {
                    "name": view.name,
                    "metric": view.metric,
                    "at": str(view.at),
                    "title": METRIC_TITLES.get(view.metric, view.metric),
                }
                for view in data.views
            ],
            "colours": page_colours(arms),
            "charts": [
                {
                    # Charts of one template share its specification.
                    "spec": specs.setdefault(id(chart.spec), len(specs)),
                    "table": chart.table,
                    "only": chart.only,
                    "follows": chart.follows,
                    "limits": chart.limits,
                    "keyed": chart.keyed,
                    "row_keys": chart.row_keys,
                    "row_pixels": chart.row_pixels,
                    "title": chart.title,
                    "label": chart.label,
                }
                for chart in self._charts
            ],
            "specs": [
                next(chart.spec for chart in self._charts if id(chart.spec) == one) for one in specs
            ],
            "tables": {name: _columnar(data.tables[name]) for name in sorted(used)},
        }
        text = json.dumps(page, separators=(",", ":"), allow_nan=False)
        return text.replace("<", "\\u003c").replace("\u2028", "\\u2028")


def _columnar(table: pl.DataFrame) -> dict[str, Any]:
    """Return a table by column: what is the same in all rows once, names once with codes, numbers
    to five digits."""
    table = finite(table)
    columns: dict[str, Any] = {}
    for name, kind in table.schema.items():
        if name in _UNSHOWN:
            continue
        column = table[name]
        if not isinstance(kind, pl.List) and table.height > 1 and column.n_unique() == 1:
            value = column[0]
            columns[name] = {"same": _shortened(value)}
        elif kind == pl.String:
            names = column.drop_nulls().unique(maintain_order=True).to_list()
            codes = {value: code for code, value in enumerate(names)}
            columns[name] = {
                "names": names,
                "codes": [None if value is None else codes[value] for value in column],
            }
        elif kind.is_float():
            columns[name] = column.round_sig_figs(_DIGITS).to_list()
        elif isinstance(kind, pl.List):
            columns[name] = [
                None if row is None else [_shortened(value) for value in row]
                for row in column.to_list()
            ]
        else:
            columns[name] = column.to_list()
    return {"length": table.height, "columns": columns}


def _shortened(value: Any) -> Any:
    """Return a number of a list as those of columns are."""
    return float(f"{value:.{_DIGITS}g}") if isinstance(value, float) else value


def model_names(data: ReportData) -> list[str]:
    return [str(name) for name in data.tables["runs"]["model"].unique(maintain_order=True)]


def html_figure(chart: str, caption: str) -> str:
    return f'<figure class="wide">{chart}<figcaption>{escape(caption)}</figcaption></figure>'


def html_panel(chart: str, title: str, *, counted: bool = False) -> str:
    """Return a chart under its title; ``counted`` where the page is to say its n beside it."""
    count = " <span data-count></span>" if counted else ""
    return f'<div class="panel"><figcaption>{escape(title)}{count}</figcaption>{chart}</div>'


def html_grid(charts: Iterable[tuple[str, str]], *, counted: bool = False) -> str:
    """Return charts with their titles in a grid of cards."""
    panels = (html_panel(chart, title, counted=counted) for chart, title in charts)
    cards = [f'<figure class="wide">{panel}</figure>' for panel in panels]
    few, more = (
        f'<div class="grid">{"".join(part)}</div>'
        for part in (cards[:MOST_CHARTS], cards[MOST_CHARTS:])
    )
    if len(cards) <= MOST_CHARTS:
        return few
    folded = f"<summary>{len(cards) - MOST_CHARTS} more conditions</summary>{more}"
    return f"{few}<details>{folded}</details>"


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
    every = list(rows)
    for row in every[:MOST_TABLE_ROWS]:
        model = (models or {}).get(row[0], row[0])
        of_model = f' data-of-model="{escape(model, quote=True)}"' if follows else ""
        cells = "".join(cell("td", k, text) for k, text in enumerate(row))
        lines.append(f"<tr{of_model}>{cells}</tr>")
    more = len(every) - MOST_TABLE_ROWS
    said = f'<p class="soft">{more:,} more rows: in the CSV of the chart.</p>' if more > 0 else ""
    return (
        f'<div class="scroll"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table></div>{said}"
    )
