"""What every chart of a report is made of: a specification that names its table, and shared parts.

A chart holds no data. The page keeps each table once, hands every chart its rows, and draws it in
the colours of the reader's light or dark theme. The parameter ``chosen`` of a chart is the model
the reader has clicked, empty for none: that is how all charts follow one selection.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import altair as alt
import polars as pl

from sweeps.report.data import ReportData

TICKS = alt.Axis(tickCount=6)
NOT_CHOSEN = "chosen !== '' && datum.model !== chosen"


@dataclass(frozen=True)
class Chart:
    """A specification with what a page needs to place it.

    Attributes:
        table: name of the table it draws; ``only`` keeps the rows with these values.
        label: what a screen reader says in place of the picture.
        follows: ``fade`` dims what is not chosen, ``filter`` shows the chosen model alone.
        narrowest: pixels below which it scrolls rather than shrinks; 0 where it always fits.
    """

    spec: dict[str, Any]
    table: str
    label: str
    only: dict[str, str] = field(default_factory=dict)
    follows: str = "fade"
    title: str = ""
    narrowest: int = 0


def objectives(data: ReportData) -> list[str]:
    """Return the objectives in the order that gives each one colour in every chart."""
    return sorted(data.tables["slopes"]["objective"].unique())


def treatments(table: pl.DataFrame) -> list[str]:
    """Return the treatments in the order that gives each one colour: standard training first."""
    names = sorted(table["treatment"].unique())
    return sorted(names, key=lambda name: not name.startswith("standard"))


def rows_high(table: pl.DataFrame, keys: list[str], pixels: int) -> int:
    """Return the height that gives each distinct row its pixels.

    Said outright: Vega-Lite fits a stepped height to the container, and warns that it cannot.
    """
    return max(table.select(keys).n_unique() * pixels, 40)


def has(table: pl.DataFrame, column: str) -> bool:
    """Return whether a column has a value: a layer of nothing has no extent, and is left out."""
    return column in table.columns and bool(table[column].is_not_null().any())


def named(table: str) -> alt.NamedData:
    return alt.NamedData(name=table)


def chosen() -> alt.Parameter:
    return alt.param(name="chosen", value="")


def faded(otherwise: float = 1) -> Any:
    """Return the opacity of what is drawn: dimmed where another model is chosen."""
    return alt.condition(NOT_CHOSEN, alt.value(0.12 * otherwise), alt.value(otherwise))


def legend(values: list[str] | None = None, *, lines: bool = False) -> alt.Legend:
    """Return a legend above its chart, of some values of its scale only where they are given.

    ``lines`` shows lines rather than dots. The page lays it out in the columns there is room for.
    """
    # A faded mark has a legend that is not.
    return alt.Legend(
        orient="top",
        title=None,
        labelLimit=480,
        columns=3,
        symbolOpacity=1,
        values=alt.Undefined if values is None else values,
        symbolType="stroke" if lines else alt.Undefined,
        symbolSize=400 if lines else alt.Undefined,
    )


def rule_at(value: float, dash: list[int]) -> Any:
    return _nothing().mark_rule(strokeDash=dash).encode(x=alt.datum(value))


def band_between(low: float, high: float) -> Any:
    return _nothing().mark_rect(opacity=0.12).encode(x=alt.datum(low), x2=alt.datum(high))


def _nothing() -> alt.Chart:
    """Return a chart of one row without columns: of no row nothing would be drawn."""
    return alt.Chart(alt.InlineData(values=[{}]))


def numbers(*names: str) -> list[alt.Tooltip]:
    return [alt.Tooltip(f"{name}:Q", format=".4f") for name in names]


def spec_of(chart: Any) -> dict[str, Any]:
    """Return the specification, as wide as its place, in no colours of its own."""
    spec = chart.properties(width="container").to_dict()
    assert isinstance(spec, dict)
    spec.pop("config", None)
    return spec
