"""Change over (iteration, block): of models whose blocks run several times."""

from __future__ import annotations

import altair as alt
import polars as pl

from sweeps.report.charts.chart import (
    METRIC_TITLE,
    Chart,
    numbers,
    spec_of,
    table_named,
)
from sweeps.report.data import ReportData

BLOCK_PIXELS = 26


def called(bands: pl.DataFrame) -> pl.DataFrame:
    """Return the rows of conditions in which some block runs more than once."""
    if "iteration" not in bands.columns:
        return bands.clear()
    again = (pl.col("iteration") > 0).any().over("model", "condition", "arm")
    return bands.filter(again & (pl.col("layer") > 0))


def call_charts(data: ReportData) -> list[Chart]:
    """Return a chart per model, condition and arm: a row a distinct block, a column an iteration,
    the shade how far the state has moved that this call gives."""
    bands = called(data.tables["bands"])
    charts = []
    keys = ("model", "condition", "arm")
    for (model, condition, arm), group in bands.group_by(keys, maintain_order=True):
        blocks = group["block_number"].n_unique()
        charts.append(
            Chart(
                _template(blocks),
                "bands",
                f"Change by iteration and block, {model}, {condition}, {arm}",
                {"model": str(model), "condition": str(condition), "arm": str(arm)},
                title=f"{condition}, {arm}",
                limits="band_limits",
                keyed=True,
            )
        )
    return charts


def _template(blocks: int) -> dict[str, object]:
    # Of any colour of text, in a light or a dark theme: shades do not hide the numbers on them.
    shade = alt.Scale(domain=[{"expr": "low"}, {"expr": "high"}], range=[0.05, 0.6])
    cells = (
        alt.Chart(table_named("bands"))
        .transform_filter("datum.layer > 0")
        .encode(
            x=alt.X("iteration:O", title="iteration", axis=alt.Axis(labelAngle=0)),
            y=alt.Y("block_number:O", title="block"),
        )
    )
    shades = cells.mark_rect().encode(
        opacity=alt.Opacity("value:Q", scale=shade, title=METRIC_TITLE, legend=None),
        tooltip=["iteration:O", "block_number:O", *numbers("value", "low", "high"), "n:Q"],
    )
    said = cells.mark_text(fontSize=9.5).encode(text=alt.Text("value:Q", format=".3f"))
    layered = alt.layer(shades, said).add_params(
        alt.param(name="chosen", value=""),
        alt.param(name="low", value=0.0),
        alt.param(name="high", value=1.0),
    )
    return spec_of(layered.properties(height=max(2 * BLOCK_PIXELS, blocks * BLOCK_PIXELS)))
