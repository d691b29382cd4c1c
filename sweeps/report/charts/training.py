"""Charts of training: losses, the change of each block at each probe, and how far it was moved.

Heat maps and curves show one model, the chosen one, so that their number does not grow with models.
"""

from __future__ import annotations

from typing import Any

import altair as alt
import polars as pl

from sweeps.report.charts.chart import (
    METRIC_TITLE,
    Chart,
    arm_colour,
    arm_dash,
    arm_width,
    chosen,
    count_said,
    faded,
    numbers,
    spec_of,
    table_named,
    ticks,
)
from sweeps.report.data import ReportData
from sweeps.report.tables.names import BETWEEN, arms_of


def curve_charts(data: ReportData, table: str, said: str) -> list[Chart]:
    """Return one chart of a loss, ``said`` of which, per condition of the chosen model, its arms on
    shared axes. ``table`` is ``curves`` or ``evaluation_curves``."""
    every = data.tables[table]
    rows = alt.Chart(table_named(table))
    base = rows.encode(
        x=alt.X("step:Q", title="step", axis=ticks()), color=arm_colour(every, lines=True)
    )
    scale = alt.Scale(zero=False)
    y = alt.Y("loss:Q", title=f"{said} (nats)", scale=scale)
    spec = spec_of(
        alt.layer(
            base.mark_area(opacity=0.14).encode(
                y=alt.Y("loss_low:Q", scale=scale, title=f"{said} (nats)"), y2="loss_high:Q"
            ),
            # A line is one mark: what differs along it has no place in what it says.
            base.mark_line().encode(
                y=y, strokeWidth=arm_width(1.25), tooltip=["arm:N", "n:Q"], **arm_dash(every)
            ),
            base.mark_point(size=40, opacity=0).encode(
                y=y, tooltip=["arm:N", "step:Q", *numbers("loss", "loss_low", "loss_high"), "n:Q"]
            ),
            count_said(rows),
        ).properties(height=160)
    )
    return [
        Chart(
            spec,
            table,
            f"{said.capitalize()} during training, {condition}",
            {"condition": condition},
            follows="filter",
            title=f"{said}{BETWEEN}{condition}",
            keyed=True,
        )
        for condition in _conditions(every)
    ]


def _conditions(table: pl.DataFrame) -> list[str]:
    return [str(one) for one in table["condition"].unique(maintain_order=True)]


def learned_chart(data: ReportData) -> Chart:
    """How far the evaluation loss fell against mean change: arms of one condition are joined."""
    table = data.tables["learned"]
    base = alt.Chart(table_named("learned")).transform_filter(
        "isValid(datum.evaluation_loss_change) && isValid(datum.mean)"
    )
    objectives = table["objective"].unique(maintain_order=True).to_list()
    x = alt.X(
        "evaluation_loss_change:Q",
        title="evaluation loss, last less first (nats)",
        scale=alt.Scale(zero=False),
        axis=ticks(),
    )
    y = alt.Y("mean:Q", title=f"mean change over blocks ({data.metric})", axis=ticks())
    shape = alt.Shape("objective:N", legend=alt.Legend(orient="top", title=None))
    seeds = base.transform_flatten(["seed_loss_change", "seed_change"])
    layers = alt.layer(
        base.mark_line(strokeWidth=1).encode(
            x=x, y=y, detail=["model:N", "condition:N"], opacity=faded(0.5)
        ),
        seeds.mark_point(filled=True, size=12).encode(
            x="seed_loss_change:Q", y="seed_change:Q", color=arm_colour(table), opacity=faded(0.4)
        ),
        base.mark_point(filled=True, size=65).encode(
            x=x,
            y=y,
            color=arm_colour(table),
            opacity=faded(),
            **({"shape": shape} if len(objectives) > 1 else {}),
            tooltip=[
                *("model:N", "condition:N", "arm:N"),
                *numbers("evaluation_loss_change", "mean", "final_loss"),
                "n:Q",
            ],
        ),
        count_said(base),
    ).properties(height=280)
    return Chart(
        spec_of(layers.add_params(chosen())),
        "learned",
        "How far the evaluation loss fell, and how far blocks changed, per condition",
        title="learned and changed",
    )


def change_charts(data: ReportData) -> list[Chart]:
    """Return one heat map per condition and arm, of the chosen model: change by step and block."""
    spec = spec_of(
        alt.Chart(table_named("changes"))
        .mark_rect()
        .encode(
            x=alt.X("step:O", title="step of the probe", axis=alt.Axis(labelAngle=0)),
            y=alt.Y("layer:O", title="block", sort="descending"),
            color=alt.Color(
                "value:Q",
                title=METRIC_TITLE,
                scale=alt.Scale(scheme="cividis", domainMin=0, domainMax={"expr": "most"}),
                legend=_bar(),
            ),
            tooltip=["layer:Q", "step:Q", *numbers("value"), "n:Q"],
        )
        .properties(height=140)
        .add_params(alt.param(name="most", value=1.0))
    )
    return _of_each_arm(
        spec, "changes", "Change of each block at each probe", data, limits="change_limits"
    )


def _of_each_arm(
    spec: dict[str, Any], table: str, text: str, data: ReportData, *, limits: str
) -> list[Chart]:
    """Return one chart of a table for each condition and arm, of the chosen model."""
    return [
        Chart(
            spec,
            table,
            f"{text}, {condition}, {arm}",
            {"condition": condition, "arm": arm},
            follows="filter",
            title=f"{condition}{BETWEEN}{arm}",
            limits=limits,
        )
        for condition, arm in _pairs(data.tables[table])
    ]


def _pairs(table: pl.DataFrame) -> list[tuple[str, str]]:
    """Return each condition with each of its arms, arms in the order of their colours."""
    order = arms_of(table)
    pairs = table.select("condition", "arm").unique(maintain_order=True).rows()
    conditions = _conditions(table)
    return sorted(pairs, key=lambda pair: (conditions.index(pair[0]), order.index(pair[1])))


def ratio_charts(data: ReportData) -> list[Chart]:
    """Return one heat map per condition and arm, of the chosen model: the update ratio of blocks.

    ``span`` is the largest value of the model and objective under any arm, so that arms are
    compared on one scale.
    """
    spec = spec_of(
        alt.Chart(table_named("ratios"))
        .mark_rect()
        .encode(
            x=alt.X("start:Q", title="step", axis=ticks()),
            x2="until:Q",
            y=alt.Y("layer:O", title="block", sort="descending"),
            color=alt.Color(
                "relative:Q",
                title="log₂ of ‖ΔW‖/‖W‖ over its mean",
                scale=alt.Scale(
                    scheme="purplegreen",
                    domainMin={"expr": "-span"},
                    domainMax={"expr": "span"},
                    nice=False,
                ),
                legend=_bar(),
            ),
            tooltip=[
                *("model:N", "layer:Q", "start:Q"),
                alt.Tooltip("ratio:Q", format=".3e", title="‖ΔW‖/‖W‖"),
                alt.Tooltip("relative:Q", format=".5f"),
            ],
        )
        .properties(height=140)
        .add_params(alt.param(name="span", value=1.0))
    )
    return _of_each_arm(
        spec, "ratios", "Update ratio of each block over training", data, limits="ratios"
    )


def _bar() -> alt.Legend:
    return alt.Legend(orient="bottom", direction="horizontal", tickCount=5, titleLimit=300)
