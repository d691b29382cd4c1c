"""Charts of what a control left of the slopes: verdicts as a map, and the share that was kept."""

from __future__ import annotations

import altair as alt

from sweeps.findings.verdicts import DELTA, FINDINGS, VERDICTS
from sweeps.report.charts.chart import (
    Chart,
    band_between,
    chosen,
    faded,
    legend,
    named,
    numbers,
    rows_high,
    rule_at,
    spec_of,
)
from sweeps.report.data import NO_FINDING, ReportData

# Pixels that a verdict needs beside others, and its three lines above others.
_CELL_WIDE, _CELL_HIGH = 92, 56


def persistence_chart(data: ReportData) -> Chart:
    """One cell per condition: a row for each model under each other setting that varies."""
    table = data.tables["persistence"]
    rows = alt.Axis(labelLimit=300, labelExpr="split(datum.label, ' · ')")
    base = (
        alt.Chart(named("persistence"))
        .add_params(chosen())
        .encode(
            x=alt.X("objective:N", title=None, axis=alt.Axis(orient="top", labelAngle=0)),
            y=alt.Y("setting:N", title=None, sort=None, axis=rows),
            opacity=faded(),
        )
    )
    tooltip = [
        *("setting:N", "objective:N", "verdict:N", "n:Q", alt.Tooltip("dose:Q", format=".2f")),
        *numbers("slope_against", "slope_control", "along_low", "along_high"),
        *numbers("retained", "retained_low", "retained_high"),
        *(f"{name}:N" for name in table.columns if name.startswith("verdict_equal")),
        "flags:N",
    ]
    # No legend: each cell says its verdict, which is never told by colour alone.
    marks = base.mark_rect(cornerRadius=3).encode(
        color=alt.Color("verdict:N", scale=alt.Scale(domain=[*VERDICTS]), legend=None),
        tooltip=tooltip,
    )
    verdict = base.mark_text(fontSize=11, fontWeight="bold", dy=-13).encode(
        text="verdict_said:N", color=alt.value("#fff"), tooltip=tooltip
    )
    numbered = base.mark_text(fontSize=10.5, dy=2, lineBreak="\n", lineHeight=14).encode(
        text="cell:N", color=alt.value("#fff"), tooltip=tooltip
    )
    layers = alt.layer(marks, verdict, numbered).properties(
        height=rows_high(table, ["setting"], _CELL_HIGH)
    )
    return Chart(
        spec_of(layers),
        "persistence",
        "Does the profile outlive equal steps: models by objectives",
        narrowest=110 + _CELL_WIDE * table["objective"].n_unique(),
    )


def retained_chart(data: ReportData) -> Chart:
    """The share of the slope that was kept, per condition, with Fieller's interval.

    What lies beyond the scale, and each end of an unbounded interval, is an arrow at its edge.
    """
    table = data.tables["retained"]
    ends = [float(table["view_low"][0]), float(table["view_high"][0])]
    scale = alt.Scale(domain=ends, nice=False, zero=False)
    x = alt.X("shown:Q", title="slope kept, over the standard slope", scale=scale)
    rows = alt.Chart(named("retained")).encode(
        y=alt.Y(
            "condition:N",
            title=None,
            sort=table["condition"].to_list(),
            axis=alt.Axis(labelLimit=300),
        ),
        color=alt.Color(
            "finding:N", scale=alt.Scale(domain=[*FINDINGS, NO_FINDING]), legend=legend()
        ),
        opacity=faded(),
    )
    tooltip = [
        *("setting:N", "objective:N", "verdict:N", "n:Q"),
        *numbers("retained", "retained_low", "retained_high"),
        "interval:N",
    ]
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
    layers = alt.layer(
        band_between(-DELTA, DELTA),
        *rules,
        rows.mark_rule(strokeWidth=2).encode(
            x=alt.X("shown_low:Q", scale=scale), x2="shown_high:Q", tooltip=tooltip
        ),
        *arrows,
        unbounded,
        rows.mark_point(filled=True, size=50).encode(x=x, tooltip=tooltip),
    ).properties(height=rows_high(table, ["condition"], 26))
    return Chart(
        spec_of(layers.add_params(chosen())),
        "retained",
        "Share of the standard slope kept under equal steps, with Fieller's 95 % interval",
    )
