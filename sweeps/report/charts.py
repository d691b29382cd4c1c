"""The charts of a report, in Altair: each a Vega-Lite specification that names its table.

A chart holds no data. The page keeps each table once, hands every chart its rows, and draws it in
the colours of the reader's light or dark theme. The parameter ``chosen`` of a chart is the model
the reader has clicked, empty for none: that is how all charts follow one selection.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import altair as alt
import polars as pl

from sweeps.findings.verdicts import VERDICTS
from sweeps.report.data import ReportData

_TICKS = alt.Axis(tickCount=6)
NOT_CHOSEN = "chosen !== '' && datum.model !== chosen"


@dataclass(frozen=True)
class Chart:
    """A specification with what a page needs to place it.

    Attributes:
        table: name of the table it draws; ``only`` keeps the rows with these values.
        label: what a screen reader says in place of the picture.
        follows: ``fade`` dims what is not chosen, ``filter`` shows the chosen model alone.
    """

    spec: dict[str, Any]
    table: str
    label: str
    only: dict[str, str] = field(default_factory=dict)
    follows: str = "fade"
    title: str = ""


def objectives(data: ReportData) -> list[str]:
    """Return the objectives in the order that gives each one colour in every chart."""
    return sorted(data.tables["slopes"]["objective"].unique())


def treatments(data: ReportData) -> list[str]:
    """Return the treatments in the order that gives each one colour: standard training first."""
    names = sorted(data.tables["slopes"]["treatment"].unique())
    return sorted(names, key=lambda name: not name.startswith("standard"))


def run_chart(data: ReportData) -> Chart:
    statuses = ["finished", "diverged", "failed", "unfinished", "pending"]
    chart = (
        _rows(alt.Chart(_named("runs")))
        .mark_bar(cornerRadius=2)
        .encode(
            x=alt.X("runs:Q", title="runs", axis=alt.Axis(tickMinStep=1, tickCount=6)),
            y=alt.Y("model:N", title=None, sort=None),
            color=alt.Color(
                "status:N", scale=alt.Scale(domain=statuses), legend=_legend(), sort=statuses
            ),
            opacity=_faded(),
            tooltip=["model:N", "status:N", "runs:Q", alt.Tooltip("seconds:Q", format=".0f")],
        )
    )
    chart = chart.properties(height=20 * data.tables["runs"]["model"].n_unique() + 10)
    return Chart(_spec(chart), "runs", f"Runs of {data.name} per model by status")


def profile_charts(data: ReportData) -> list[Chart]:
    """Return one small chart per model and treatment, on one scale of change for a model."""
    bands = data.tables["bands"]
    domain = objectives(data)
    tops = {
        model: {
            "top": _largest(own, "value", "high"),
            "ceiling": _largest(own, "value", "high", "null_high"),
        }
        for (model,), own in bands.group_by("model")
    }
    templates: dict[tuple[bool, bool], dict[str, Any]] = {}
    charts = []
    for (model, treatment), group in bands.group_by("model", "treatment", maintain_order=True):
        # One seed has no band and an unmeasured null no line: a layer of nothing has no extent.
        parts = (bool(group["low"].is_not_null().any()), bool(group["null"].is_not_null().any()))
        if parts not in templates:
            templates[parts] = _profile_template(domain, *parts)
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


def _profile_template(domain: list[str], banded: bool, with_null: bool) -> dict[str, Any]:
    """Return a profile chart; its parameters ``top``, or ``ceiling``, end the scale of change."""
    scale = alt.Scale(domainMin=0, domainMax={"expr": "tonull ? ceiling : top"})
    base = alt.Chart(_named("bands")).encode(
        x=alt.X(
            "depth:Q", title="depth", scale=alt.Scale(domain=[0, 1]), axis=alt.Axis(tickCount=3)
        ),
        color=alt.Color("objective:N", scale=alt.Scale(domain=domain), legend=None),
    )
    y = alt.Y("value:Q", title=None, scale=scale, axis=alt.Axis(tickCount=4))
    tooltip = ["objective:N", "layer:Q", *_numbers("value", "low", "high", "null"), "n:Q"]
    parts = [
        base.mark_line(clip=True, strokeWidth=2).encode(y=y),
        base.mark_point(clip=True, size=18, filled=True, opacity=1).encode(y=y, tooltip=tooltip),
    ]
    if with_null:
        null = base.mark_line(strokeDash=[2, 3], opacity=0.7, clip=True)
        spread = base.mark_area(opacity=0.12, clip=True)
        parts.insert(0, null.encode(y=alt.Y("null:Q", title=None, scale=scale)))
        parts.insert(
            0,
            spread.encode(y=alt.Y("null_low:Q", title=None, scale=scale), y2="null_high:Q"),
        )
    if banded:
        band = base.mark_area(opacity=0.2, clip=True)
        parts.insert(0, band.encode(y=alt.Y("low:Q", title=None, scale=scale), y2="high:Q"))
    layers = alt.layer(*parts).add_params(
        _chosen(),
        alt.param(name="tonull", value=False),
        alt.param(name="top", value=1.0),
        alt.param(name="ceiling", value=1.0),
    )
    return _spec(layers.properties(height=130))


def slope_chart(data: ReportData) -> Chart:
    """The forest plot: one row per condition, one colour per treatment."""
    order = treatments(data)
    base = (
        alt.Chart(_named("slopes"))
        .transform_calculate(condition="datum.model + ' · ' + datum.objective")
        .encode(
            y=alt.Y("condition:N", title=None, sort=None, axis=alt.Axis(labelLimit=220)),
            yOffset=alt.YOffset("treatment:N", sort=order),
            color=alt.Color("treatment:N", legend=_legend(), scale=alt.Scale(domain=order)),
            opacity=_faded(),
        )
    )
    zero = alt.Chart().mark_rule(strokeDash=[4, 4]).encode(x=alt.datum(0))
    layers = alt.layer(
        zero,
        base.mark_rule(strokeWidth=2).encode(x="slope_low:Q", x2="slope_high:Q"),
        base.mark_point(filled=True, size=50).encode(
            x=alt.X("slope:Q", title="slope of change on depth", axis=_TICKS),
            tooltip=[
                "model:N",
                "objective:N",
                "treatment:N",
                *_numbers("slope", "slope_low", "slope_high"),
                "n:Q",
                "flags:N",
            ],
        ),
    ).properties(height=_rows_high(data.tables["slopes"], ["model", "objective"], 11 * len(order)))
    return Chart(
        _spec(layers.add_params(_chosen())),
        "slopes",
        f"Slope of {data.metric} on depth with 95 % intervals, per condition",
    )


def persistence_chart(data: ReportData) -> Chart:
    """One cell per condition: a row for each model under each other setting that varies."""
    base = _rows(alt.Chart(_named("persistence"))).encode(
        x=alt.X("objective:N", title=None, axis=alt.Axis(orient="top", labelAngle=0)),
        y=alt.Y("setting:N", title=None, sort=None, axis=alt.Axis(labelLimit=260)),
        opacity=_faded(),
    )
    marks = base.mark_rect(cornerRadius=3).encode(
        color=alt.Color("verdict:N", scale=alt.Scale(domain=[*VERDICTS]), legend=_legend()),
        tooltip=[
            "setting:N",
            "objective:N",
            "verdict:N",
            "n:Q",
            *_numbers("slope_against", "slope_control", "along_low", "along_high", "retained"),
            "flags:N",
        ],
    )
    # A verdict is never told by colour alone.
    text = base.mark_text(fontSize=11, fontWeight="bold").encode(
        text="verdict:N", color=alt.value("#fff")
    )
    layers = alt.layer(marks, text).properties(
        height=_rows_high(data.tables["persistence"], ["setting"], 28)
    )
    return Chart(
        _spec(layers), "persistence", "Does the profile outlive equal steps: models by objectives"
    )


def steepness_chart() -> Chart:
    base = alt.Chart(_named("steepness")).encode(
        x=alt.X(
            "objective_distance:Q",
            title="objective distance",
            scale=alt.Scale(zero=False),
            axis=_TICKS,
        ),
        color=alt.Color("family:N", legend=_legend()),
        opacity=_faded(),
    )
    layers = alt.layer(
        base.mark_rule().encode(y="steepness_low:Q", y2="steepness_high:Q"),
        base.mark_point(filled=True, size=70).encode(
            y=alt.Y("steepness:Q", title="steepness", scale=alt.Scale(zero=False)),
            shape=alt.Shape("objective:N", legend=_legend()),
            tooltip=[
                "model:N",
                "objective:N",
                "treatment:N",
                *_numbers("objective_distance", "steepness", "steepness_low", "steepness_high"),
                "n:Q",
            ],
        ),
    ).properties(height=280)
    return Chart(
        _spec(layers.add_params(_chosen())),
        "steepness",
        "Steepness under standard training against objective distance",
    )


def width_chart(data: ReportData) -> Chart:
    base = _rows(alt.Chart(_named("slopes"))).encode(
        y=alt.Y("family:N", title=None),
        yOffset=alt.YOffset("objective:N"),
        color=alt.Color("objective:N", legend=_legend(), scale=alt.Scale(domain=objectives(data))),
        opacity=_faded(),
    )
    layers = alt.layer(
        base.mark_rule().encode(x="width_low:Q", x2="width_high:Q"),
        base.mark_point(filled=True, size=50).encode(
            x=alt.X("width:Q", title="width", scale=alt.Scale(zero=False), axis=_TICKS),
            tooltip=[
                "model:N",
                "objective:N",
                "treatment:N",
                *_numbers("width", "width_low", "width_high"),
                "n:Q",
            ],
        ),
    ).properties(height=_rows_high(data.tables["slopes"], ["family", "objective"], 16))
    return Chart(
        _spec(layers),
        "slopes",
        "Width of the profile per family and objective, standard training",
        {"control": "standard"},
    )


def curve_charts(data: ReportData) -> list[Chart]:
    """Return one chart of training loss per objective."""
    curves = data.tables["curves"]
    scale = alt.Scale(domain=treatments(data))
    charts = []
    for objective in curves["objective"].unique(maintain_order=True):
        chart = (
            alt.Chart(_named("curves"))
            .mark_line(strokeWidth=1.5)
            .encode(
                x=alt.X("step:Q", title="step", axis=_TICKS),
                y=alt.Y("loss:Q", title="loss", scale=alt.Scale(zero=False)),
                color=alt.Color("treatment:N", legend=_legend(), scale=scale),
                detail="model:N",
                opacity=_faded(),
                tooltip=["model:N", "treatment:N", "step:Q", alt.Tooltip("loss:Q", format=".4f")],
            )
            .properties(height=220)
            .add_params(_chosen())
        )
        label = f"Training loss, {objective}, mean over seeds"
        charts.append(
            Chart(_spec(chart), "curves", label, {"objective": objective}, title=objective)
        )
    return charts


def ratio_charts(data: ReportData) -> list[Chart]:
    """Return one heat map per treatment and objective, of the chosen model alone."""
    charts = []
    ratios = data.tables["ratios"]
    order = treatments(data)
    pairs = ratios.select("objective", "treatment").unique().rows()
    for objective, treatment in sorted(pairs, key=lambda pair: (pair[0], order.index(pair[1]))):
        chart = (
            alt.Chart(_named("ratios"))
            .mark_rect()
            .encode(
                x=alt.X("start:Q", title="step", axis=_TICKS),
                x2="stop:Q",
                y=alt.Y("layer:O", title="block", sort="descending"),
                color=alt.Color(
                    "relative:Q",
                    title="log₂ of ratio to mean",
                    scale=alt.Scale(scheme="blueorange", domain=[-2, 2], clamp=True),
                    legend=alt.Legend(orient="bottom", direction="horizontal"),
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
        )
        label = f"Update ratio of each block over training, {objective}, {treatment}"
        charts.append(
            Chart(
                _spec(chart),
                "ratios",
                label,
                {"treatment": treatment, "objective": objective},
                follows="filter",
                title=f"{objective}, {treatment}",
            )
        )
    return charts


def _largest(table: pl.DataFrame, *columns: str) -> float:
    """Return a little more than the largest value of some columns."""
    return 1.05 * max(float(x) for name in columns for x in table[name].drop_nulls().to_list())


def _rows_high(table: pl.DataFrame, keys: list[str], pixels: int) -> int:
    """Return the height that gives each distinct row its pixels.

    Said outright: Vega-Lite fits a stepped height to the container, and warns that it cannot.
    """
    return max(table.select(keys).n_unique() * pixels, 40)


def _named(table: str) -> alt.NamedData:
    return alt.NamedData(name=table)


def _chosen() -> alt.Parameter:
    return alt.param(name="chosen", value="")


def _rows(chart: alt.Chart) -> alt.Chart:
    return chart.add_params(_chosen())


def _faded() -> Any:
    return alt.condition(NOT_CHOSEN, alt.value(0.12), alt.value(1))


def _legend() -> alt.Legend:
    return alt.Legend(orient="top", title=None, labelLimit=480, columns=3)


def _numbers(*names: str) -> list[alt.Tooltip]:
    return [alt.Tooltip(f"{name}:Q", format=".4f") for name in names]


def _spec(chart: Any) -> dict[str, Any]:
    """Return the specification, as wide as its place, in no colours of its own."""
    spec = chart.properties(width="container").to_dict()
    assert isinstance(spec, dict)
    spec.pop("config", None)
    return spec
