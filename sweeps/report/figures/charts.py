"""The charts of a report with their rows in them, as figures by name."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import polars as pl

from sweeps.report.charts.chart import METRIC_TITLE, Chart
from sweeps.report.charts.colours import STRONG, arm_colours, verdict_colours
from sweeps.report.charts.persistence import pair_chart, persistence_chart, retained_chart
from sweeps.report.charts.profiles import METRIC_TITLES, profile_charts, slope_chart
from sweeps.report.charts.training import (
    change_charts,
    curve_charts,
    learned_chart,
    ratio_charts,
)
from sweeps.report.data import ReportData
from sweeps.report.tables.finite import finite
from sweeps.report.tables.names import arms_of

# Panels of one figure: further ones are another's.
MOST_PANELS = 48
# What figures are of, in their order.
FIGURES = (
    *("profiles", "slope-against-slope", "kept", "verdicts", "slopes", "learned"),
    *("losses", "training-losses", "changes", "update-ratios"),
)


@dataclass(frozen=True, eq=False)
class Figure:
    """Panels with their rows; ``one_scale`` says that their colours mean the same."""

    name: str
    panels: tuple[dict[str, Any], ...]
    one_scale: bool = True


def figures_of(data: ReportData, names: Sequence[str], room: float) -> list[Figure]:
    """Return the figures of some names that have anything to show.

    Args:
        room: pixels of their width.
    """
    found = []
    for name in FIGURES:
        for charts in _named(data, name, room) if name in names else ():
            found += _figures(data, *charts)
    return found


def _named(data: ReportData, name: str, room: float) -> Iterator[tuple[str, list[Chart]]]:
    """Yield the charts of a name; of those with one for each control, its arm in their names."""
    if name in ("slope-against-slope", "kept", "verdicts"):
        table = data.shown("retained" if name == "kept" else "persistence")
        arms = [] if table.is_empty() else arms_of(table)
        for arm in arms:
            own = f"{name}-{arm}" if len(arms) > 1 else name
            if name == "kept":
                yield own, [retained_chart(data, arm)]
            elif name == "verdicts":
                yield own, [persistence_chart(data, arm, room=room)]
            elif table.filter(pl.col("arm") == arm)["along"].is_not_null().any():
                yield own, [pair_chart(data, arm)]
        return
    tables = {
        "profiles": "bands",
        "losses": "evaluation_curves",
        "training-losses": "curves",
        "changes": "changes",
        "update-ratios": "ratios",
    }
    if name == "slopes" and not data.shown("slopes").is_empty():
        yield name, [slope_chart(data)]
    elif name == "learned":
        learned = data.tables["learned"]
        if "evaluation_loss_change" in learned.columns:
            yield name, [learned_chart(data)]
    elif name in tables and not data.tables[tables[name]].is_empty():
        charts = {
            "profiles": profile_charts,
            "losses": lambda known: curve_charts(known, "evaluation_curves", "evaluation loss"),
            "training-losses": lambda known: curve_charts(known, "curves", "training loss"),
            "changes": change_charts,
            "update-ratios": ratio_charts,
        }[name](data)
        yield name, _of_every_model(data, charts)


def _of_every_model(data: ReportData, charts: Sequence[Chart]) -> list[Chart]:
    """Return charts that follow the chosen model once for each model."""
    models = data.tables["runs"]["model"].unique(maintain_order=True).to_list()
    if all(chart.follows != "filter" for chart in charts):
        return list(charts)
    return [
        replace(chart, only={**chart.only, "model": model}) for model in models for chart in charts
    ]


def _figures(data: ReportData, name: str, charts: Sequence[Chart]) -> list[Figure]:
    panels: list[dict[str, Any]] = []
    for chart in charts:
        rows = _rows(data, data.tables[chart.table], chart)
        if rows.height:
            panels.append(_panel(data, chart, rows, len(panels), titled=len(charts) > 1))
    parts = [panels[k : k + MOST_PANELS] for k in range(0, len(panels), MOST_PANELS)]
    one_scale = name not in ("changes", "update-ratios")
    return [
        Figure(name if k == 0 else f"{name}-{k + 1}", tuple(part), one_scale)
        for k, part in enumerate(parts)
    ]


def _rows(data: ReportData, table: pl.DataFrame, chart: Chart) -> pl.DataFrame:
    """Return the rows of a table that a chart draws under the view that was asked for, as JSON can
    say them."""
    wanted = {"view": data.views[0].name, "metric": data.metric, **chart.only}
    for column, value in wanted.items():
        if column in table.columns:
            table = table.filter(pl.col(column) == value)
    return finite(table)


def _panel(
    data: ReportData, chart: Chart, rows: pl.DataFrame, number: int, *, titled: bool
) -> dict[str, Any]:
    """Return a specification with its rows, colours and the ends of its scales."""
    spec = copy.deepcopy(chart.spec)
    if chart.row_keys:
        spec["height"] = chart.height_of(rows)
    limits: dict[str, Any] = {}
    if chart.limits:
        found = _rows(data, data.tables[chart.limits], chart)
        limits = found.row(0, named=True) if found.height else {}
    # Where a limit is not known a parameter keeps the value that its chart was made with.
    known = {name: value for name, value in limits.items() if value is not None}
    params = {
        param["name"]: known.get(
            f"{param['name']}_shared", known.get(param["name"], param["value"])
        )
        for param in spec.pop("params", [])
    }
    name = f"{chart.table} {number}"
    drawn: dict[str, Any] = _filled(spec, params, data, {chart.table: name})
    drawn["datasets"] = {
        **spec.get("datasets", {}),
        name: rows.to_dicts(),
    }
    if titled:
        model = chart.only.get("model", "")
        drawn["title"] = {"text": model, "subtitle": chart.title + _count(chart, rows)}
    return drawn


def _count(chart: Chart, rows: pl.DataFrame) -> str:
    """Return over how many seeds a map is; other charts say it themselves."""
    if chart.table not in ("changes", "ratios"):
        return ""
    counts = sorted(rows["n"].drop_nulls().to_list())
    return f", n = {counts[0]}" + (f"–{counts[-1]}" if counts[-1] > counts[0] else "")


def _filled(part: Any, params: dict[str, Any], data: ReportData, tables: dict[str, str]) -> Any:
    """Return a part of a specification with parameters, colours and names in their places."""
    if isinstance(part, list):
        return [_filled(one, params, data, tables) for one in part]
    if not isinstance(part, dict):
        return METRIC_TITLES.get(data.metric, data.metric) if part == METRIC_TITLE else part
    if set(part) == {"expr"} and part["expr"] in params:
        return params[part["expr"]]
    if set(part) == {"name"} and part["name"] in tables:
        return {"name": tables[part["name"]]}
    filled: dict[str, Any] = {
        key: _said(value, params)
        if key in ("filter", "calculate", "test", "expr") and isinstance(value, str)
        else _filled(value, params, data, tables)
        for key, value in part.items()
    }
    domain = (filled["scale"] or {}).get("domain") if {"field", "scale"} <= set(filled) else None
    if isinstance(domain, list) and filled["field"] in ("arm", "finding", "verdict"):
        hues = (
            arm_colours(domain, "light")
            if filled["field"] == "arm"
            else verdict_colours(STRONG if filled["field"] == "verdict" else "light")
        )
        # The dash of an arm has a range of its own.
        filled["scale"].setdefault("range", [hues[one] for one in domain])
    return filled


def _said(expression: str, params: dict[str, Any]) -> str:
    """Return an expression with the values of parameters, which a column may share a name with."""
    for name, value in params.items():
        shown = f"'{value}'" if isinstance(value, str) else f"({value})"
        expression = re.sub(rf"(?<![.\w]){name}(?!\w)", shown, expression)
    return expression
