"""Charts of runs and of their depth profiles: status, a card a model, and a forest of slopes."""

from __future__ import annotations

from typing import Any, NamedTuple

import altair as alt
import polars as pl

from sweeps.report.charts.chart import (
    TICKS,
    Chart,
    chosen,
    faded,
    has,
    legend,
    named,
    numbers,
    objectives,
    rows_high,
    rule_at,
    spec_of,
    treatments,
)
from sweeps.report.data import ReportData


def run_chart(data: ReportData) -> Chart:
    statuses = ["finished", "diverged", "failed", "unfinished", "pending", "stopped"]
    chart = (
        alt.Chart(named("runs"))
        .add_params(chosen())
        .mark_bar(cornerRadius=2)
        .encode(
            x=alt.X("runs:Q", title="runs", axis=alt.Axis(tickMinStep=1, tickCount=6)),
            y=alt.Y("model:N", title=None, sort=None),
            color=alt.Color(
                "status:N", scale=alt.Scale(domain=statuses), legend=legend(), sort=statuses
            ),
            opacity=faded(),
            tooltip=["model:N", "status:N", "runs:Q", alt.Tooltip("seconds:Q", format=".0f")],
        )
    )
    chart = chart.properties(height=20 * data.tables["runs"]["model"].n_unique() + 10)
    return Chart(spec_of(chart), "runs", f"Runs of {data.name} per model by status")


class Parts(NamedTuple):
    """What a profile chart has to draw beside its lines."""

    band: bool
    null: bool
    without_gradient: bool
    embedding: bool
    kinds: bool

    @classmethod
    def of(cls, rows: pl.DataFrame) -> Parts:
        names = ("low", "null", "without_gradient")
        band, null, without_gradient = (has(rows, name) for name in names)
        kinds = rows["block_class"].drop_nulls().n_unique() if "block_class" in rows else 0
        return cls(band, null, without_gradient, bool((rows["layer"] == 0).any()), kinds > 1)


def profile_charts(data: ReportData) -> list[Chart]:
    """Return one small chart per model and treatment, on one scale of change for a model."""
    bands = data.tables["bands"]
    domain = objectives(data)
    tops = {
        model: {
            "top": _largest(own, "value", "high", "without_gradient"),
            "ceiling": _largest(own, "value", "high", "without_gradient", "null_high"),
        }
        for (model,), own in bands.group_by("model")
    }
    templates: dict[Parts, dict[str, Any]] = {}
    charts = []
    for (model, treatment), group in bands.group_by("model", "treatment", maintain_order=True):
        parts = Parts.of(group)
        if parts not in templates:
            templates[parts] = _profile_template(domain, parts)
        params = [
            {**param, "value": tops[model].get(param["name"], param["value"])}
            for param in templates[parts]["params"]
        ]
        charts.append(
            Chart(
                {**templates[parts], "params": params},
                "bands",
                f"{data.metric} by depth, {model}, {treatment}",
                {"model": str(model), "treatment": str(treatment)},
                title=str(treatment),
            )
        )
    return charts


def _profile_template(domain: list[str], drawn: Parts) -> dict[str, Any]:
    """Return a profile chart; its parameters ``top``, or ``ceiling``, end the scale of change."""
    scale = alt.Scale(domainMin=0, domainMax={"expr": "tonull ? ceiling : top"})
    every = alt.Chart(named("bands")).encode(
        x=alt.X(
            "depth:Q", title="depth", scale=alt.Scale(domain=[0, 1]), axis=alt.Axis(tickCount=3)
        ),
        color=alt.Color("objective:N", scale=alt.Scale(domain=domain), legend=None),
    )
    base = every.transform_filter("datum.layer > 0")

    def y(name: str) -> alt.Y:
        return alt.Y(f"{name}:Q", title=None, scale=scale, axis=alt.Axis(tickCount=4))

    tooltip = [
        *("objective:N", "layer:Q"),
        *numbers("value", "low", "high", "without_gradient", "null"),
        "n:Q",
    ]
    layers = []
    if drawn.band:
        band = base.mark_area(opacity=0.2, clip=True)
        layers.append(band.encode(y=y("low"), y2="high:Q"))
    if drawn.null:
        spread = base.mark_area(opacity=0.12, clip=True)
        layers.append(spread.encode(y=y("null_low"), y2="null_high:Q"))
        null = base.mark_line(strokeDash=[1, 3], opacity=0.8, clip=True)
        layers.append(null.encode(y=y("null")))
    if drawn.without_gradient:
        noise = base.mark_line(strokeDash=[6, 4], strokeWidth=1.5, opacity=0.75, clip=True)
        layers.append(noise.encode(y=y("without_gradient")))
    layers.append(base.mark_line(clip=True, strokeWidth=2).encode(y=y("value")))
    points = base.mark_point(clip=True, size=18, filled=True, opacity=1)
    kinds = {}
    if drawn.kinds:
        kinds = {"shape": alt.Shape("block_class:N", legend=legend())}
        tooltip.append(alt.Tooltip("block_class:N", title="block"))
    layers.append(points.encode(y=y("value"), tooltip=tooltip, **kinds))
    if drawn.embedding:
        embedding = every.transform_filter("datum.layer === 0").mark_point(
            shape="diamond", size=55, filled=False, strokeWidth=1.5, opacity=1
        )
        said = ["objective:N", alt.Tooltip("value:Q", format=".4f", title="embedding"), "n:Q"]
        layers.append(embedding.encode(y=y("value"), tooltip=said))
    layered = alt.layer(*layers).add_params(
        chosen(),
        alt.param(name="tonull", value=False),
        alt.param(name="top", value=1.0),
        alt.param(name="ceiling", value=1.0),
    )
    return spec_of(layered.properties(height=130))


def slope_chart(data: ReportData) -> Chart:
    """The forest plot: one row per condition, one colour per treatment, every seed a point."""
    table = data.tables["slopes"]
    order = treatments(table)
    conditions = table.select(pl.format("{} · {}", "model", "objective")).to_series()
    every = (
        alt.Chart(named("slopes"))
        .transform_calculate(condition="datum.model + ' · ' + datum.objective")
        .encode(
            y=alt.Y(
                "condition:N",
                title=None,
                sort=conditions.unique(maintain_order=True).to_list(),
                axis=alt.Axis(labelLimit=300),
            ),
            yOffset=alt.YOffset("treatment:N", sort=order),
            color=alt.Color("treatment:N", legend=legend(), scale=alt.Scale(domain=order)),
        )
    )
    base = every.encode(opacity=faded())
    seeds = (
        every.transform_flatten(["seed_slope", "seed"])
        .mark_point(filled=True, size=24)
        .encode(
            x="seed_slope:Q",
            opacity=faded(0.6),
            tooltip=["model:N", "objective:N", "treatment:N", "seed:Q", *numbers("seed_slope")],
        )
    )
    intervals = base.mark_rule(strokeWidth=1.25).encode(x="slope_low:Q", x2="slope_high:Q")
    layers = alt.layer(
        rule_at(0, [4, 4]),
        *([intervals] if has(table, "slope_low") else []),
        seeds,
        base.mark_point(filled=True, size=70).encode(
            x=alt.X("slope:Q", title="slope of change on depth", axis=TICKS),
            tooltip=[
                *("model:N", "objective:N", "treatment:N"),
                *numbers("slope", "slope_low", "slope_high"),
                *("n:Q", "flags:N"),
            ],
        ),
    ).properties(height=rows_high(table, ["model", "objective"], max(11 * len(order), 26)))
    return Chart(
        spec_of(layers.add_params(chosen())),
        "slopes",
        f"Slope of {data.metric} on depth with 95 % intervals and seeds, per condition",
    )


def _largest(table: pl.DataFrame, *columns: str) -> float:
    """Return a little more than the largest value of some columns."""
    return 1.05 * max(float(x) for name in columns for x in table[name].drop_nulls().to_list())
