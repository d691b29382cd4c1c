"""Charts of what a control left of the slopes: slope against slope, a matrix, the share kept."""

from __future__ import annotations

from typing import Any

import altair as alt
import polars as pl

from sweeps.findings.verdicts import DELTA, FINDINGS, VERDICTS
from sweeps.report.charts.chart import (
    Chart,
    band_between,
    between,
    chosen,
    faded,
    follows_of,
    has,
    legend,
    numbers,
    rule_at,
    spec_of,
    table_named,
    ticks,
)
from sweeps.report.data import ReportData
from sweeps.report.tables.comparisons import NO_FINDING
from sweeps.report.tables.names import BETWEEN

# Pixels that a cell needs beside others, and each of its lines.
_NAMES_WIDE, _CELL_WIDE, _LINE_HIGH = 110, 118, 13
_APART = alt.Scale(paddingInner=0.06)
# Columns of a matrix that a page has room for.
MOST_COLUMNS = 6
_ABOUT = ("model:N", "condition:N", "arm:N", "verdict:N", "n:Q")


def _finding() -> alt.Color:
    return alt.Color("finding:N", scale=alt.Scale(domain=[*FINDINGS, NO_FINDING]), legend=legend())


def pair_chart(data: ReportData, arm: str) -> Chart:
    """Slope under a control against slope under standard training: on the diagonal nothing changed,
    in the shaded wedge what is left counts as gone."""
    table = data.shown("persistence").filter(pl.col("arm") == arm)
    scale = between("low", "high")
    x = alt.X("reference:Q", title="slope under standard training", scale=scale, axis=ticks(5))
    y = alt.Y("along:Q", title=f"slope under {arm}", scale=scale, axis=ticks(5))
    every = alt.Chart(table_named("persistence")).transform_filter("isValid(datum.along)")
    base = every.encode(color=_finding(), opacity=faded())
    objectives = table["objective"].unique(maintain_order=True).to_list()
    shape = {}
    if len(objectives) > 1:
        shape = {
            "shape": alt.Shape("objective:N", legend=legend(), scale=alt.Scale(domain=objectives))
        }
    marks = base.mark_point(filled=True, size=75, clip=True).encode(
        x=x,
        y=y,
        tooltip=[
            *_ABOUT,
            alt.Tooltip("dose:Q", format=".2f"),
            *numbers("reference", "reference_low", "reference_high"),
            *numbers("along", "along_low", "along_high"),
        ],
        **shape,
    )
    seeds = (
        every.transform_flatten(["seed_against", "seed_control"])
        .mark_point(filled=True, size=12, clip=True)
        .encode(
            x=alt.X("seed_against:Q", scale=scale),
            y=alt.Y("seed_control:Q", scale=scale),
            color=_finding(),
            opacity=faded(0.45),
        )
    )
    bars = []
    if has(table, "along_low"):
        bars.append(base.mark_rule(clip=True).encode(x=x, y="along_low:Q", y2="along_high:Q"))
    if has(table, "reference_low"):
        bars.append(
            base.mark_rule(clip=True).encode(y=y, x="reference_low:Q", x2="reference_high:Q")
        )
    layers = alt.layer(*_lines(scale), *bars, seeds, marks, _counted(every)).properties(height=340)
    return Chart(
        spec_of(
            layers.add_params(
                chosen(), alt.param(name="low", value=0.0), alt.param(name="high", value=1.0)
            )
        ),
        "persistence",
        f"Slope under {arm} against slope under standard training, with 95 % intervals",
        {"arm": arm},
        title=f"slope against slope, {arm}",
        limits="pair_limits",
        follows=follows_of(table),
    )


def _lines(scale: alt.Scale) -> list[alt.Chart]:
    """Return the diagonal, where nothing changed; the wedge of what is gone; and no slope."""
    ends = alt.Chart(alt.SequenceGenerator(alt.SequenceParams(start=0, stop=2)))
    at = ends.transform_calculate(
        at="datum.data ? high : low",
        from_=f"datum.data ? -{DELTA} * high : 0",
        to=f"datum.data ? {DELTA} * high : 0",
        x="datum.data ? high : 0",
    )
    return [
        at.mark_area(opacity=0.12, clip=True).encode(
            x=alt.X("x:Q", scale=scale), y=alt.Y("from_:Q", scale=scale), y2="to:Q"
        ),
        at.mark_line(strokeDash=[5, 4], strokeWidth=1, clip=True).encode(
            x=alt.X("at:Q", scale=scale), y=alt.Y("at:Q", scale=scale)
        ),
        alt.Chart(alt.InlineData(values=[{}])).mark_rule(strokeWidth=0.75).encode(y=alt.datum(0)),
    ]


def _counted(every: alt.Chart) -> Any:
    """Return how many conditions are drawn, and of how many seeds each."""
    return (
        every.transform_aggregate(least="min(n)", most="max(n)", rows="count()")
        .transform_calculate(
            said="datum.rows + (datum.rows > 1 ? ' conditions' : ' condition') + ', n = '"
            " + datum.least + (datum.least === datum.most ? '' : ' to ' + datum.most)"
        )
        .mark_text(align="left", baseline="bottom", fontSize=10)
        .encode(x=alt.value(0), y=alt.value(-3), text="said:N")
    )


def persistence_chart(data: ReportData, arm: str, room: float | None = None) -> Chart:
    """The matrix: models by conditions; by objectives where those are too many; and where most of
    its cells would be empty, or ``room`` pixels are too few for them, a cell a row."""
    table = data.shown("persistence").filter(pl.col("arm") == arm)
    across = "condition" if table["condition"].n_unique() <= MOST_COLUMNS else "objective"
    row = "datum.model" if across == "condition" else _SETTING
    keys = ["model"] if across == "condition" else ["model", "setting"]
    columns = table[across].n_unique()
    sparse = 2 * table.height < columns * table.select(keys).n_unique() + 2
    if sparse or (room is not None and room < _NAMES_WIDE + _CELL_WIDE * columns):
        row, keys, columns = (
            f"datum.model + '{BETWEEN}' + datum.condition",
            ["model", "condition"],
            0,
        )
    broken = f"split(datum.label, '{BETWEEN}')"
    labels = alt.Axis(labelLimit=300, labelExpr=broken if columns else alt.Undefined)
    base = (
        alt.Chart(table_named("persistence"))
        .add_params(chosen())
        .transform_calculate(
            row=row,
            line="join(slice([datum.verdict_said, datum.kept_said], 0, 2), '  ')",
            rest="replace(datum.cell, /\\n/g, ', ')",
        )
        .encode(y=alt.Y("row:N", title=None, sort=None, axis=labels, scale=_APART), opacity=faded())
    )
    if columns:
        lines = int(table[across].str.count_matches(BETWEEN).max() or 0)  # type: ignore[arg-type]
        axis = alt.Axis(
            orient="top",
            labelAngle=0,
            labelExpr=broken,
            labelLimit=_CELL_WIDE,
            labelLineHeight=_LINE_HIGH,
            # Lines of a label follow each other downward, towards the cells.
            labelPadding=4 + _LINE_HIGH * lines,
        )
        base = base.encode(x=alt.X(f"{across}:N", title=None, axis=axis, sort=None, scale=_APART))
    layers, high = _cells(base, table, in_columns=bool(columns))
    return Chart(
        spec_of(layers),
        "persistence",
        f"What {arm} keeps of each profile: a cell a condition",
        {"arm": arm},
        title=f"persistence, {arm}",
        narrowest=_NAMES_WIDE + max(_CELL_WIDE * columns, 220),
        follows=follows_of(table),
        row_keys=tuple(keys),
        row_pixels=high,
    )


_SETTING = f"datum.setting === '' ? datum.model : datum.model + '{BETWEEN}' + datum.setting"


def _cells(base: alt.Chart, table: pl.DataFrame, *, in_columns: bool) -> tuple[Any, int]:
    """Return the cells with what they say, and how many pixels high one is."""
    tooltip = [
        *_ABOUT,
        alt.Tooltip("dose:Q", format=".2f"),
        *numbers("slope_against", "slope_control", "along_low", "along_high"),
        *numbers("retained", "retained_low", "retained_high"),
        *(f"{name}:N" for name in table.columns if name.startswith("verdict_equal")),
        "flags:N",
    ]
    # No legend: each cell says its verdict, which is never told by colour alone.
    # Its edge is in the colour of the theme: what white text stands on is dark on a dark page, too.
    edge = alt.Scale(domain=[*FINDINGS, NO_FINDING])
    marks = base.mark_rect(cornerRadius=3, strokeWidth=1).encode(
        fill=alt.Fill("verdict:N", scale=alt.Scale(domain=[*VERDICTS]), legend=None),
        stroke=alt.Stroke("finding:N", scale=edge, legend=None),
        tooltip=tooltip,
    )
    lines = 3 + int(table["cell"].str.count_matches("\n").max() or 0)  # type: ignore[arg-type]
    high: int = _LINE_HIGH * lines + 12 if in_columns else 2 * _LINE_HIGH + 10
    top = -high / 2 + 14

    def text(field: str, dy: float, size: float, weight: Any = "normal") -> Any:
        mark = base.mark_text(
            fontSize=size, fontWeight=weight, dy=dy, lineBreak="\n", lineHeight=_LINE_HIGH
        )
        return mark.encode(text=field, color=alt.value("#fff"), tooltip=tooltip)

    if not in_columns:
        said = [text("line:N", top, 11.5, "bold"), text("rest:N", top + _LINE_HIGH, 10.5)]
        return alt.layer(marks, *said), high
    said = [
        text("verdict_said:N", top, 11, "bold"),
        text("kept_said:N", top + _LINE_HIGH + 1, 12.5, "bold"),
        text("cell:N", top + 2 * _LINE_HIGH + 2, 10.5),
    ]
    return alt.layer(marks, *said), high


def retained_chart(data: ReportData, arm: str) -> Chart:
    """The share of the slope that was kept, per condition, with Fieller's interval.

    What lies beyond the scale, and each end of an unbounded interval, is an arrow at its edge.
    """
    table = data.shown("retained").filter(pl.col("arm") == arm)
    scale = between("edge_low", "edge_high")
    x = alt.X("shown:Q", title="slope kept: under the control, over standard", scale=scale)
    rows = alt.Chart(table_named("retained")).encode(
        y=alt.Y("row:N", title=None, sort=None, axis=alt.Axis(labelLimit=470)),
        color=_finding(),
        opacity=faded(),
    )
    tooltip = [*_ABOUT, *numbers("retained", "retained_low", "retained_high"), "interval:N"]
    rules = [
        rule_at(at, dash)
        for at, dash in ((-DELTA, [1, 3]), (0, [4, 4]), (DELTA, [1, 3]), (1, [4, 4]))
    ]
    arrows = [
        rows.transform_filter(f"datum.cut_{side}")
        .mark_point(shape=f"triangle-{way}", filled=True, size=60)
        .encode(x=alt.X(f"shown_{side}:Q", scale=scale), tooltip=tooltip)
        for side, way in (("low", "left"), ("high", "right"))
    ]
    unbounded = (
        rows.transform_filter("datum.interval === 'unbounded'")
        .mark_text(dy=-7, dx=-8, align="right", fontSize=10)
        .encode(x=alt.X("shown_high:Q", scale=scale), text="interval:N")
    )
    counts = rows.mark_text(align="left", fontSize=9.5, dx=4).encode(
        x=alt.value("width"), text="n_said:N"
    )
    layers = alt.layer(
        band_between(-DELTA, DELTA),
        *rules,
        rows.mark_rule(strokeWidth=2).encode(
            x=alt.X("shown_low:Q", scale=scale), x2="shown_high:Q", tooltip=tooltip
        ),
        *arrows,
        unbounded,
        rows.mark_point(filled=True, size=50).encode(x=x, tooltip=tooltip),
        counts.transform_calculate(n_said="'n = ' + datum.n"),
    )
    params = [alt.param(name="edge_low", value=-0.5), alt.param(name="edge_high", value=1.25)]
    return Chart(
        spec_of(layers.add_params(chosen(), *params)),
        "retained",
        f"Share of the standard slope kept under {arm}, with Fieller's 95 % interval",
        {"arm": arm},
        title=f"share kept, {arm}",
        limits="retained",
        follows=follows_of(table),
        row_keys=("row",),
        row_pixels=26,
    )
