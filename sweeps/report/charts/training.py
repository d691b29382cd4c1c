"""Charts of training itself: loss, and how far each block was moved at each step."""

from __future__ import annotations

import altair as alt

from sweeps.report.charts.chart import (
    TICKS,
    Chart,
    chosen,
    faded,
    legend,
    named,
    spec_of,
    treatments,
)
from sweeps.report.data import ReportData

# Dashes that the eye tells apart; further ones differ by their length.
_DASHES = [[1, 0], [6, 3], [2, 2], [9, 3, 2, 3], [1, 4], [12, 4], [5, 2, 1, 2, 1, 2]]


def dashes(count: int) -> list[list[int]]:
    """Return as many dashes as there are treatments, each another one."""
    return [*_DASHES, *([16 + 4 * k, 4] for k in range(count))][:count]


def curve_charts(data: ReportData, table: str, said: str) -> list[Chart]:
    """Return one chart of a loss, ``said`` of which, per objective: a hue for each model, a dash a
    treatment. ``table`` is ``curves`` or ``evaluation_curves``."""
    curves = data.tables[table]
    models = data.tables["runs"]["model"].unique(maintain_order=True).to_list()
    charts = []
    for (objective,), own in curves.sort("objective", maintain_order=True).group_by(
        "objective", maintain_order=True
    ):
        order = treatments(own)
        base = alt.Chart(named(table)).encode(
            x=alt.X("step:Q", title="step", axis=TICKS),
            color=alt.Color(
                "model:N",
                # A model has one hue in all objectives; a legend names those that are drawn.
                scale=alt.Scale(domain=models),
                legend=legend([name for name in models if (own["model"] == name).any()]),
            ),
            detail=["model:N", "treatment:N"],
        )
        y = alt.Y("loss:Q", title=said, scale=alt.Scale(zero=False))
        dash = alt.StrokeDash(
            "treatment:N",
            scale=alt.Scale(domain=order, range=dashes(len(order))),
            legend=legend(lines=True),
        )
        layers = alt.layer(
            base.mark_area().encode(
                y=alt.Y("loss_low:Q", scale=alt.Scale(zero=False), title=said),
                y2="loss_high:Q",
                opacity=faded(0.1),
            ),
            base.mark_line(strokeWidth=1.5).encode(
                y=y,
                strokeDash=dash,
                opacity=faded(),
                # A line is one mark: what differs along it has no place in what it says.
                tooltip=["model:N", "treatment:N", "n:Q"],
            ),
        ).properties(height=220)
        label = f"{said.capitalize()}, {objective}, mean over seeds"
        charts.append(
            Chart(
                spec_of(layers.add_params(chosen())),
                table,
                label,
                {"objective": str(objective)},
                title=str(objective),
            )
        )
    return charts


def ratio_charts(data: ReportData) -> list[Chart]:
    """Return one heat map per treatment and objective, of the chosen model alone.

    The page gives ``span`` the largest value of the model and objective under any treatment, so
    that treatments are compared on one scale.
    """
    charts = []
    ratios = data.tables["ratios"]
    order = treatments(ratios)
    pairs = ratios.select("objective", "treatment").unique().rows()
    for objective, treatment in sorted(pairs, key=lambda pair: (pair[0], order.index(pair[1]))):
        chart = (
            alt.Chart(named("ratios"))
            .mark_rect()
            .encode(
                x=alt.X("start:Q", title="step", axis=TICKS),
                x2="until:Q",
                y=alt.Y("layer:O", title="block", sort="descending"),
                color=alt.Color(
                    "relative:Q",
                    title="log₂ of ratio to mean",
                    scale=alt.Scale(
                        scheme="blueorange",
                        domainMin={"expr": "-span"},
                        domainMax={"expr": "span"},
                        nice=False,
                    ),
                    legend=alt.Legend(orient="bottom", direction="horizontal", tickCount=5),
                ),
                tooltip=[
                    "model:N",
                    "layer:Q",
                    "start:Q",
                    alt.Tooltip("ratio:Q", format=".3e", title="‖ΔW‖/‖W‖"),
                    alt.Tooltip("relative:Q", format=".5f"),
                ],
            )
            .properties(height=180)
            .add_params(alt.param(name="span", value=1.0))
        )
        label = f"Update ratio of each block over training, {objective}, {treatment}"
        charts.append(
            Chart(
                spec_of(chart),
                "ratios",
                label,
                {"treatment": treatment, "objective": objective},
                follows="filter",
                title=f"{objective}, {treatment}",
            )
        )
    return charts
