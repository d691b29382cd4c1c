"""What every chart of a report is made of: a specification that names its table, and shared parts.

A chart holds no data. The page keeps each table once, hands every chart its rows, those of the
metric and step it is switched to, and draws it in the colours of the reader's light or dark theme.
The parameter ``chosen`` of a chart is the model the reader has clicked, empty for none: that is how
all charts follow one selection.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import altair as alt
import polars as pl

from sweeps.report.charts.colours import ARMS
from sweeps.report.tables.names import STANDARD, arms_of

# Stands for the name of the metric that is shown, in the title of an axis.
METRIC_TITLE = "{metric}"
# Rows that a reader looks through; and pixels of a chart of few.
MOST_CONDITIONS, LEAST_HEIGHT = 150, 40
NOT_CHOSEN = "chosen !== '' && datum.model !== chosen"
# Of the first arms of each colour, of the second, and so on.
_DASHES = [[1, 0], [10, 3], [10, 3, 2, 3], [14, 3, 2, 3, 2, 3]]


def ticks(count: int = 6) -> alt.Axis:
    return alt.Axis(tickCount=count)


@dataclass(frozen=True)
class Chart:
    """A specification with what a page needs to place it.

    Attributes:
        table: name of the table it draws; ``only`` keeps the rows with these values.
        label: what a screen reader says in place of the picture.
        follows: ``fade`` dims what is not chosen, ``filter`` shows the chosen model alone.
        title: what stands above it, and in the name of its file.
        limits: a table; the columns of its first row of this view, model and what ``only`` says
            that are named like parameters of the chart become their values.
        narrowest: pixels below which it scrolls rather than shrinks; 0 where it always fits.
        keyed: whether the section has one legend for all of its charts; a downloaded one has its
            own.
        row_keys: columns whose distinct rows have ``row_pixels`` of height each; none of a chart
            whose height does not depend on them.
    """

    spec: dict[str, Any]
    table: str
    label: str
    only: dict[str, str] = field(default_factory=dict)
    follows: str = "fade"
    title: str = ""
    limits: str = ""
    narrowest: int = 0
    keyed: bool = False
    row_keys: tuple[str, ...] = ()
    row_pixels: int = 0

    def height_of(self, rows: pl.DataFrame) -> int:
        """Return how high the chart of some rows is.

        Said outright: Vega-Lite fits a stepped height to the container, and warns that it cannot.
        """
        return max(rows.select(self.row_keys).n_unique() * self.row_pixels, LEAST_HEIGHT)


def follows_of(table: pl.DataFrame) -> str:
    """Return how a chart with a row for each condition of a table follows the chosen model: of more
    than a reader looks through, it has those of one model."""
    return "fade" if table.select("model", "condition").n_unique() <= MOST_CONDITIONS else "filter"


def has(table: pl.DataFrame, column: str) -> bool:
    """Return whether a column has a value: a layer of nothing has no extent, and is left out."""
    return column in table.columns and bool(table[column].is_not_null().any())


def table_named(table: str) -> alt.NamedData:
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


def arm_colour(table: pl.DataFrame, *, lines: bool = False) -> alt.Color:
    """Return the colour of arms, one for each in every chart; the page gives it its hues."""
    return alt.Color("arm:N", scale=alt.Scale(domain=arms_of(table)), legend=legend(lines=lines))


def arm_width(otherwise: float) -> Any:
    """Return the width of lines: standard training is wider, to be seen under what lies over it."""
    wide = alt.value(otherwise + 1.75)
    return alt.condition(f"datum.control === '{STANDARD}'", wide, alt.value(otherwise))


def between(low: str, high: str) -> alt.Scale:
    """Return a scale that two parameters end, whatever lies on it."""
    return alt.Scale(domain=[{"expr": low}, {"expr": high}], nice=False, zero=False)


def arm_dash(table: pl.DataFrame) -> dict[str, Any]:
    """Return what tells lines of one colour apart, where there are more arms than colours."""
    arms = arms_of(table)
    colours = len(ARMS["light"])
    if len(arms) <= colours:
        return {}
    dashes = [_DASHES[k // colours % len(_DASHES)] for k in range(len(arms))]
    scale = alt.Scale(domain=arms, range=dashes)
    return {"strokeDash": alt.StrokeDash("arm:N", scale=scale, legend=legend(lines=True))}


def rule_at(value: float, dash: list[int]) -> Any:
    return _nothing().mark_rule(strokeDash=dash).encode(x=alt.datum(value))


def band_between(low: float, high: float) -> Any:
    return _nothing().mark_rect(opacity=0.12).encode(x=alt.datum(low), x2=alt.datum(high))


def _nothing() -> alt.Chart:
    """Return a chart of one row without columns: of no row nothing would be drawn."""
    return alt.Chart(alt.InlineData(values=[{}]))


def numbers(*names: str) -> list[alt.Tooltip]:
    return [alt.Tooltip(f"{name}:Q", format=".4f") for name in names]


def count_said(rows: alt.Chart, column: str = "n") -> Any:
    """Return the text that says over how many seeds the rows are: ``n = 3``, or ``n = 2–3``."""
    said = (
        "datum.least === datum.most ? 'n = ' + datum.most : 'n = ' + datum.least + '–' + datum.most"
    )
    return (
        rows.transform_aggregate(least=f"min({column})", most=f"max({column})")
        .transform_calculate(said=said)
        .mark_text(align="left", baseline="bottom", fontSize=9.5)
        .encode(x=alt.value(0), y=alt.value(-2), text="said:N")
    )


def spec_of(chart: Any) -> dict[str, Any]:
    """Return the specification, as wide as its place, in no colours of its own."""
    spec = chart.properties(width="container").to_dict()
    assert isinstance(spec, dict)
    spec.pop("config", None)
    return spec
