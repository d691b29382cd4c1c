"""The depth profiles of one run as a picture, drawn by what draws the reports.

vl-convert makes the SVG and the PNG alike, and is there with every installation; matplotlib or
pillow would be one more library, and one more look.
"""

from __future__ import annotations

from typing import Any

import altair as alt
import polars as pl

METRIC = "procrustes"


def profile_picture(profiles: pl.DataFrame | None, title: str, form: str = "svg") -> bytes:
    """Return the change of each block by relative depth, a line a probe step, as svg or png.

    Raises ValueError where there is no profile.
    """
    if profiles is None:
        raise ValueError("no profile to draw")
    import vl_convert

    spec = _spec(profiles, title)
    version = ".".join(alt.SCHEMA_VERSION.removeprefix("v").split(".")[:2])
    if form == "svg":
        return str(vl_convert.vegalite_to_svg(spec, vl_version=version)).encode()
    return bytes(vl_convert.vegalite_to_png(spec, vl_version=version, scale=2))


def _spec(profiles: pl.DataFrame, title: str) -> dict[str, Any]:
    drawn = profiles.filter(pl.col("layer") > 0, pl.col(METRIC).is_finite())
    rows = drawn.select("step", "stack", "depth", change=METRIC).to_dicts()
    dashes = {}
    if drawn["stack"].is_not_null().any():
        dashes = {"strokeDash": alt.StrokeDash("stack:N", title="stack")}
    chart = (
        alt.Chart(alt.InlineData(values=rows))
        .mark_line(point=True)
        .encode(
            x=alt.X("depth:Q", title="depth", scale=alt.Scale(domain=[0, 1])),
            y=alt.Y("change:Q", title=f"{METRIC} change"),
            color=alt.Color("step:O", title="step", scale=alt.Scale(scheme="viridis")),
            **dashes,
        )
    )
    spec = chart.properties(title=title, width=420, height=220, background="white").to_dict()
    assert isinstance(spec, dict)
    return spec
