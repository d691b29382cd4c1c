"""Chart of what a control does to alignment: change of degradation against change of slope."""

from __future__ import annotations

from typing import Any

import altair as alt

from sweeps.report.charts.chart import (
    Chart,
    arm_colour,
    chosen,
    faded,
    has,
    numbers,
    rule_at,
    spec_of,
    table_named,
    ticks,
)
from sweeps.report.data import ReportData


def alignment_chart(data: ReportData) -> Chart | None:
    """Each condition under a control as a point with its intervals, its seeds as small ones: left
    of 0 the profile is flatter than under standard training, below 0 less was lost. None where no
    condition has a pair at equal evaluation loss."""
    table = data.tables["alignment"]
    if table.is_empty() or not has(table, "slope_change"):
        return None
    x = alt.X("slope_change:Q", title="change of slope, control − standard", axis=ticks(5))
    y = alt.Y(
        "degradation_change:Q",
        title="change of degradation, control − standard",
        axis=ticks(5),
    )
    every = (
        alt.Chart(table_named("alignment"))
        .transform_filter("isValid(datum.slope_change)")
        .encode(color=arm_colour(table))
    )
    base = every.encode(opacity=faded())
    seeds = (
        every.transform_flatten(["seed_slope_change", "seed_degradation_change"])
        .mark_point(filled=True, size=14)
        .encode(
            x="seed_slope_change:Q",
            y="seed_degradation_change:Q",
            opacity=faded(0.45),
        )
    )
    bars = []
    if has(table, "slope_change_low"):
        across = {"x": "slope_change_low:Q", "x2": "slope_change_high:Q", "y": y}
        along = {"y": "degradation_change_low:Q", "y2": "degradation_change_high:Q", "x": x}
        bars = [base.mark_rule().encode(**across), base.mark_rule().encode(**along)]
    marks = base.mark_point(filled=True, size=75).encode(
        x=x,
        y=y,
        tooltip=[
            *("model:N", "condition:N", "arm:N", "outcome:N", "n:Q"),
            *numbers("slope_change", "slope_change_low", "slope_change_high"),
            *numbers("degradation_change", "degradation_change_low", "degradation_change_high"),
        ],
    )
    count = base.mark_text(align="left", fontSize=9.5, dx=7, dy=-7).encode(x=x, y=y, text="said:N")
    layers = alt.layer(
        rule_at(0, [4, 4]),
        _level(),
        *bars,
        seeds,
        marks,
        count.transform_calculate(said="datum.model + ', n = ' + datum.n"),
    )
    return Chart(
        spec_of(layers.add_params(chosen()).properties(height=320)),
        "alignment",
        "Change of degradation against change of slope at equal evaluation loss, per condition",
        title="alignment",
    )


def _level() -> Any:
    """Return the line on which degradation is as under standard training."""
    one = alt.Chart(alt.InlineData(values=[{}]))
    return one.mark_rule(strokeDash=[4, 4]).encode(y=alt.datum(0))
