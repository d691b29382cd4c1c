"""Charts of depth profiles: for each condition of a model its arms on one pair of axes."""

from __future__ import annotations

from typing import Any, NamedTuple

import altair as alt
import polars as pl

from sweeps.report.charts.chart import (
    METRIC_TITLE,
    Chart,
    arm_colour,
    arm_dash,
    arm_width,
    between,
    chosen,
    count_said,
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
from sweeps.report.tables.names import arms_of

# What changes are called on an axis, with their unit; only ranks have one.
METRIC_TITLES = {
    "procrustes": "Procrustes distance",
    "cka_distance": "1 − CKA",
    "cka_distance_debiased": "1 − CKA (debiased)",
    "mean_shift": "mean shift",
    "scale_log_ratio": "log scale ratio",
    "effective_rank": "effective rank",
    "rank_95": "rank at 95 %",
    "rank_99": "rank at 99 %",
    "subspace_overlap": "subspace overlap",
}


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
    """Return one small chart per model and condition, in which its arms lie on shared axes."""
    bands = data.tables["bands"]
    templates: dict[Parts, dict[str, Any]] = {}
    charts = []
    for (model, condition), group in bands.group_by("model", "condition", maintain_order=True):
        parts = Parts.of(group)
        if parts not in templates:
            templates[parts] = _profile_template(bands, parts)
        charts.append(
            Chart(
                templates[parts],
                "bands",
                f"Change by depth, {model}, {condition}",
                {"model": str(model), "condition": str(condition)},
                title=str(condition),
                limits="band_limits",
                keyed=True,
            )
        )
    return charts


def _profile_template(bands: pl.DataFrame, drawn: Parts) -> dict[str, Any]:
    """Return a profile chart; its parameters ``low`` and ``high`` end the scale of change."""
    scale = between("low", "high")
    # The page says which metric it shows.
    title = METRIC_TITLE
    every = alt.Chart(table_named("bands")).encode(
        x=alt.X(
            "depth:Q",
            title="relative depth",
            scale=alt.Scale(domain=[0, 1.02], nice=False),
            axis=alt.Axis(values=[0, 0.5, 1]),
        ),
        color=arm_colour(bands, lines=True),
    )
    base = every.transform_filter("datum.layer > 0")

    def y(name: str) -> alt.Y:
        axis = alt.Axis(tickCount=4, title=title)
        return alt.Y(f"{name}:Q", scale=scale, axis=axis)

    tooltip = [
        *("arm:N", "layer:Q"),
        *numbers("value", "low", "high", "without_gradient", "null"),
        "n:Q",
    ]
    layers = []
    if drawn.band:
        layers.append(base.mark_area(opacity=0.18, clip=True).encode(y=y("low"), y2="high:Q"))
    if drawn.null:
        layers += _null(base, y)
    if drawn.without_gradient:
        noise = base.mark_line(strokeDash=[5, 4], strokeWidth=1.25, opacity=0.8, clip=True)
        layers.append(noise.encode(y=y("without_gradient")))
    seeds = base.transform_flatten(["seed_values"])
    layers.append(
        seeds.mark_point(filled=True, size=7, opacity=0.45, clip=True).encode(y=y("seed_values"))
    )
    layers.append(
        base.mark_line(clip=True).encode(
            y=y("value"), strokeWidth=arm_width(1.75), **arm_dash(bands)
        )
    )
    points = base.mark_point(clip=True, size=20, filled=True, opacity=1)
    kinds = {}
    if drawn.kinds:
        kinds = {"shape": alt.Shape("block_class:N", legend=legend())}
        tooltip.append(alt.Tooltip("block_class:N", title="block"))
    layers.append(points.encode(y=y("value"), tooltip=tooltip, **kinds))
    if drawn.embedding:
        embedding = every.transform_filter("datum.layer === 0").mark_point(
            shape="diamond", size=50, filled=False, strokeWidth=1.5, opacity=1
        )
        said = ["arm:N", alt.Tooltip("value:Q", format=".4f", title="embedding"), "n:Q"]
        layers.append(embedding.encode(y=y("value"), tooltip=said))
    rows = alt.Chart(table_named("bands")).transform_filter("datum.layer > 0")
    layers.append(count_said(rows))
    layered = alt.layer(*layers).add_params(
        chosen(),
        alt.param(name="low", value=0.0),
        alt.param(name="high", value=1.0),
    )
    return spec_of(layered.properties(height=120))


def _null(base: Any, y: Any) -> list[Any]:
    """Return the row-shuffled null as a dotted line; beyond the scale, as a number at its edge."""
    rows = alt.Chart(table_named("bands")).transform_filter("datum.layer > 0")
    beyond = (
        rows.transform_aggregate(null="mean(null)")
        .transform_filter("datum.null > high")
        .transform_calculate(said="'null ' + format(datum.null, '.2f') + '↑'")
        .mark_text(align="right", baseline="bottom", fontSize=9.5)
        .encode(x=alt.value("width"), y=alt.value(-2), text="said:N")
    )
    return [
        base.mark_area(opacity=0.1, clip=True).encode(y=y("null_low"), y2="null_high:Q"),
        base.mark_line(strokeDash=[1, 3], opacity=0.9, clip=True).encode(y=y("null")),
        beyond,
    ]


def slope_chart(data: ReportData) -> Chart:
    """The forest plot: one row per condition, one colour per arm, every seed a point."""
    table = data.shown("slopes")
    order = arms_of(table)
    every = (
        alt.Chart(table_named("slopes"))
        .transform_filter("datum.n > 0")
        .transform_calculate(row="datum.model + ' · ' + datum.condition")
        .encode(
            y=alt.Y(
                "row:N",
                title=None,
                sort=None,
                axis=alt.Axis(labelLimit=470),
            ),
            yOffset=alt.YOffset("arm:N", sort=order),
            color=arm_colour(table),
        )
    )
    base = every.encode(opacity=faded())
    seeds = (
        every.transform_flatten(["seed_slope", "seed"])
        .mark_point(filled=True, size=24)
        .encode(
            x="seed_slope:Q",
            opacity=faded(0.6),
            tooltip=["model:N", "condition:N", "arm:N", "seed:Q", *numbers("seed_slope")],
        )
    )
    intervals = base.mark_rule(strokeWidth=1.25).encode(x="slope_low:Q", x2="slope_high:Q")
    count = base.mark_text(align="left", fontSize=9.5, dx=4).encode(
        x=alt.value("width"), text="n_said:N"
    )
    layers = alt.layer(
        rule_at(0, [4, 4]),
        *([intervals] if has(table, "slope_low") else []),
        seeds,
        base.mark_point(filled=True, size=70).encode(
            x=alt.X("slope:Q", title="slope of change on relative depth", axis=ticks()),
            tooltip=[
                *("model:N", "condition:N", "arm:N"),
                *numbers("slope", "slope_low", "slope_high"),
                *("n:Q", "flags:N"),
            ],
        ),
        count.transform_calculate(n_said="'n = ' + datum.n"),
    )
    return Chart(
        spec_of(layers.add_params(chosen())),
        "slopes",
        "Slope of change on depth with 95 % intervals and seeds, per condition",
        title="slopes",
        follows=follows_of(table),
        row_keys=("model", "condition"),
        row_pixels=max(11 * len(order), 26),
    )
