"""Change over (iteration, block), and what turns share, where blocks run several times."""

from __future__ import annotations

from functools import cache

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

BLOCK_PIXELS, TURN_PIXELS = 26, 32
# Of the colour of text, in a light or a dark theme: so faint that numbers are read on them.
SHADES = [0.03, 0.28]
# So many columns leave room for a third digit.
FEW_TURNS = 5


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
                _template(blocks, group["iteration"].n_unique()),
                "bands",
                f"Change by iteration and block, {model}, {condition}, {arm}",
                {"model": str(model), "condition": str(condition), "arm": str(arm)},
                title=f"{condition}, {arm}",
                limits="band_limits",
                keyed=True,
            )
        )
    return charts


def turn_charts(data: ReportData) -> list[Chart]:
    """Return a chart per model, condition, arm and block that runs several times: a row an earlier
    turn, a column a later one, the shade what share of the later is in the earlier's subspace."""
    table = data.tables["turns"]
    if table.is_empty():
        return []
    several = table["block_number"].n_unique() > 1 or table["stack"].n_unique() > 1
    charts = []
    keys = ("model", "condition", "arm", "loop")
    for (model, condition, arm, loop), group in table.group_by(keys, maintain_order=True):
        said = f"{condition}, {arm}" + (f", {loop}" if several else "")
        charts.append(
            Chart(
                _turns_template(group["iteration"].n_unique()),
                "turns",
                f"What the turns of {loop} have in common, {model}, {said}",
                {"model": str(model), "condition": str(condition), "arm": str(arm)}
                | {"loop": str(loop)},
                title=said,
                keyed=True,
            )
        )
    return charts


@cache
def _turns_template(turns: int) -> dict[str, object]:
    shade = alt.Scale(domain=[0, 1], range=SHADES)
    cells = alt.Chart(table_named("turns")).encode(
        x=alt.X("later_iteration:O", title="later turn", axis=alt.Axis(labelAngle=0)),
        y=alt.Y("iteration:O", title="earlier turn"),
    )
    shades = cells.mark_rect().encode(
        opacity=alt.Opacity("value:Q", scale=shade, legend=None),
        tooltip=[
            *("iteration:O", "later_iteration:O"),
            *numbers("value", "low", "high", "before", "rank_95"),
            "n:Q",
        ],
    )
    said = cells.mark_text(fontSize=9.5, dy=-5).encode(text=alt.Text("value:Q", format=".2f"))
    before = (
        cells.transform_calculate(said="'(' + format(datum.before, '.2f') + ')'")
        .mark_text(fontSize=8.5, dy=6)
        .encode(text="said:N")
    )
    layered = alt.layer(shades, said, before).add_params(alt.param(name="chosen", value=""))
    return spec_of(layered.properties(height=max(2 * TURN_PIXELS, turns * TURN_PIXELS)))


def _template(blocks: int, turns: int) -> dict[str, object]:
    digits = ".3f" if turns <= FEW_TURNS else ".2f"
    shade = alt.Scale(domain=[{"expr": "low"}, {"expr": "high"}], range=SHADES)
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
    said = cells.mark_text(fontSize=9.5).encode(text=alt.Text("value:Q", format=digits))
    layered = alt.layer(shades, said).add_params(
        alt.param(name="chosen", value=""),
        alt.param(name="low", value=0.0),
        alt.param(name="high", value=1.0),
    )
    return spec_of(layered.properties(height=max(2 * BLOCK_PIXELS, blocks * BLOCK_PIXELS)))
