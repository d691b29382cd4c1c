"""Charts of what steepness goes with: the distance of the objective, and the width."""

from __future__ import annotations

from typing import Any

import altair as alt

from sweeps.report.charts.chart import (
    Chart,
    chosen,
    count_said,
    faded,
    has,
    legend,
    numbers,
    spec_of,
    table_named,
    ticks,
)
from sweeps.report.data import ReportData


def steepness_chart(data: ReportData) -> Chart:
    """Steepness over distance: points of one model are joined and named once, noisy distances are
    hollow."""
    every = (
        alt.Chart(table_named("steepness"))
        .transform_filter("isValid(datum.objective_distance)")
        .encode(
            x=alt.X(
                "objective_distance:Q",
                title="objective distance (1 − cosine)",
                scale=alt.Scale(zero=False),
                axis=ticks(),
            ),
        )
    )
    base = every.encode(opacity=faded())
    y = alt.Y(
        "steepness:Q", title="steepness (slope over mean change)", scale=alt.Scale(zero=False)
    )
    points = base.encode(
        y=y,
        shape=alt.Shape("objective:N", legend=legend()),
        tooltip=[
            *("model:N", "family:N", "condition:N", "arm:N"),
            *numbers("objective_distance", "objective_distance_low", "objective_distance_high"),
            "objective_distance_noisy:N",
            *numbers("steepness", "steepness_low", "steepness_high"),
            alt.Tooltip("mean:Q", format=".4f", title="mean change"),
            "n:Q",
        ],
    )
    known = data.tables["steepness"].drop_nulls(["steepness", "objective_distance"])
    noisy = known["objective_distance_noisy"].fill_null(value=False)
    marks = []
    if not noisy.all():
        sound = points.transform_filter("!datum.objective_distance_noisy")
        marks.append(sound.mark_point(filled=True, size=70))
    if noisy.any():
        hollow = points.transform_filter("datum.objective_distance_noisy")
        marks.append(hollow.mark_point(filled=False, size=70, strokeWidth=1.5))
    intervals = base.mark_rule().encode(y="steepness_low:Q", y2="steepness_high:Q")
    layers = alt.layer(
        every.mark_line(strokeWidth=1).encode(
            y=y, detail=["model:N", "setting:N"], opacity=faded(0.5)
        ),
        every.transform_flatten(["seed_steepness"])
        .mark_point(filled=True, size=12)
        .encode(y=alt.Y("seed_steepness:Q", scale=alt.Scale(zero=False)), opacity=faded(0.35)),
        *([intervals] if has(known, "steepness_low") else []),
        *marks,
        _model_names(every, y),
        count_said(every),
    ).properties(height=280)
    return Chart(
        spec_of(layers.add_params(chosen())),
        "steepness",
        "Steepness under standard training against objective distance",
        title="steepness",
    )


def _model_names(every: alt.Chart, y: alt.Y) -> Any:
    """Return the name of each model at its farthest point."""
    return (
        every.transform_joinaggregate(farthest="max(objective_distance)", groupby=["model"])
        .transform_filter("datum.objective_distance === datum.farthest")
        .mark_text(align="right", dx=-7, dy=-7, fontSize=9.5)
        .encode(y=y, text="model:N", opacity=faded())
    )


def width_chart(data: ReportData) -> Chart:
    """Width, of sweeps in which it says something else than steepness: a row per model."""
    base = (
        alt.Chart(table_named("steepness"))
        .add_params(chosen())
        .encode(
            y=alt.Y("model:N", title=None, sort=None, axis=alt.Axis(labelLimit=220)),
            yOffset=alt.YOffset("condition:N"),
            opacity=faded(),
        )
    )
    intervals = base.mark_rule().encode(x="width_low:Q", x2="width_high:Q")
    layers = alt.layer(
        *([intervals] if has(data.tables["steepness"], "width_low") else []),
        base.mark_point(filled=True, size=50).encode(
            x=alt.X(
                "width:Q",
                title="width (share of blocks)",
                scale=alt.Scale(zero=False),
                axis=ticks(),
            ),
            shape=alt.Shape("objective:N", legend=legend()),
            tooltip=[
                *("model:N", "family:N", "condition:N", "arm:N"),
                *numbers("width", "width_low", "width_high", "width_beyond_slope", "steepness"),
                "n:Q",
            ],
        ),
        count_said(alt.Chart(table_named("steepness"))),
    )
    return Chart(
        spec_of(layers),
        "steepness",
        "Width of the profile per model and objective, standard training",
        title="width",
        row_keys=("model", "condition"),
        row_pixels=16,
    )
