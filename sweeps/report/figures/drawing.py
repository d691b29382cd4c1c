"""A figure as SVG and PDF: at a width in millimetres, on paper's colours, with its fonts in it.

Charts are drawn by ``vl_convert``, which altair itself draws with: no browser, and no network. Its
PDF has a subset of each font; an SVG carries the whole of Figure Sans, which is under ``assets``.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

FONT = "Figure Sans"
_FONTS = Path(__file__).parents[1] / "assets" / "fonts"
_FILES = {"normal": "FigureSans-Regular.ttf", "bold": "FigureSans-Bold.ttf"}
POINTS_A_MILLIMETRE = 72 / 25.4
# Points of a pixel of a page: letters of 11 pixels, on paper, are as small as a caption's.
POINTS_A_PIXEL = 0.72
# Pixels that a panel of a grid has at least, its axes included, and between two of them.
_PANEL, _BETWEEN = 160, 14
_INK, _SOFT, _LINE = "#1d2129", "#4d5763", "#dfe2e6"

CONFIG: dict[str, Any] = {
    "background": "#ffffff",
    "font": FONT,
    "view": {"stroke": None},
    "mark": {"color": _INK},
    "axis": {
        **{"labelColor": _SOFT, "titleColor": _SOFT, "gridColor": _LINE, "domainColor": _SOFT},
        **{"tickColor": _SOFT, "titleFontWeight": "normal"},
        **{"labelFontSize": 11, "titleFontSize": 11},
    },
    "legend": {
        "layout": {"top": {"direction": "vertical", "anchor": "start", "margin": 4}},
        **{"labelColor": _INK, "titleColor": _SOFT, "labelFontSize": 11.5, "titleFontSize": 11},
        **{"symbolType": "circle", "titleFontWeight": "normal"},
        **{"symbolBaseFillColor": _SOFT, "symbolBaseStrokeColor": _SOFT},
    },
    "title": {
        **{"color": _INK, "subtitleColor": _SOFT, "anchor": "start", "fontSize": 11.5},
        "subtitleFontSize": 10,
    },
    "rule": {"color": _SOFT},
    "text": {"color": _SOFT},
}


def pixels_of(millimetres: float) -> float:
    return millimetres * POINTS_A_MILLIMETRE / POINTS_A_PIXEL


def svg_of(panels: Sequence[dict[str, Any]], millimetres: float, *, one_scale: bool) -> str:
    """Return one panel, or several in a grid, as SVG of exactly this width.

    Args:
        panels: specifications with their data; of a grid each with its title.
        one_scale: whether colours of all panels mean the same, and have one legend.
    """
    width = pixels_of(millimetres)
    if len(panels) == 1:
        fit = {"autosize": {"type": "fit-x", "contains": "padding"}, "width": width}
        return _sized(_drawn({**panels[0], **fit}), millimetres)
    columns = max(1, min(len(panels), int(width // _PANEL)))
    inner = width / columns - 70
    for _ in range(2):
        # What axes and legends take is known when they are drawn.
        svg = _drawn(_grid(panels, columns, inner, one_scale=one_scale))
        inner = max(30.0, inner + (width - _size(svg)[0]) / columns)
    svg = _drawn(_grid(panels, columns, inner, one_scale=one_scale))
    return _sized(svg, millimetres)


def _grid(
    panels: Sequence[dict[str, Any]], columns: int, inner: float, *, one_scale: bool
) -> dict[str, Any]:
    data = {name: rows for panel in panels for name, rows in panel["datasets"].items()}
    own = ("datasets", "$schema", "config", "width", "autosize")
    return {
        "$schema": panels[0]["$schema"],
        "datasets": data,
        "columns": columns,
        "spacing": _BETWEEN,
        "concat": [
            {**{k: v for k, v in panel.items() if k not in own}, "width": inner} for panel in panels
        ],
        "resolve": {"scale": {"color": "shared" if one_scale else "independent"}},
    }


def _drawn(spec: dict[str, Any]) -> str:
    import vl_convert

    _register_fonts()
    text = json.dumps(spec, allow_nan=False)
    svg: str = vl_convert.vegalite_to_svg(text, config=CONFIG, show_warnings=False)
    return svg


@cache
def _register_fonts() -> None:
    import vl_convert

    vl_convert.register_font_directory(str(_FONTS))


def _size(svg: str) -> tuple[float, float]:
    """Return the width and height that an SVG says of itself."""
    found = re.search(r'<svg[^>]* width="([\d.]+)(?:pt)?" height="([\d.]+)(?:pt)?"', svg)
    assert found is not None, svg[:200]
    return float(found[1]), float(found[2])


def _sized(svg: str, millimetres: float) -> str:
    """Return an SVG as wide as asked for, to the point; what is drawn keeps its proportions."""
    width, height = _size(svg)
    points = millimetres * POINTS_A_MILLIMETRE
    return re.sub(
        r'width="[\d.]+" height="[\d.]+"',
        f'width="{points:.2f}pt" height="{height * points / width:.2f}pt"',
        svg,
        count=1,
    )


def stacked(svgs: Sequence[str]) -> str:
    """Return figures under each other as one SVG."""
    if len(svgs) == 1:
        return svgs[0]
    placed, top, width = [], 0.0, max(_size(svg)[0] for svg in svgs)
    for svg in svgs:
        placed.append(svg.replace("<svg ", f'<svg x="0" y="{top:.2f}pt" ', 1))
        top += _size(svg)[1] + 18
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.2f}pt" height="{top:.2f}pt"'
        f' viewBox="0 0 {width * 4 / 3:.2f} {top * 4 / 3:.2f}">{"".join(placed)}</svg>'
    )


def with_fonts(svg: str) -> str:
    """Return an SVG that is drawn alike where its font is not installed."""
    weights = ["normal", *(["bold"] if 'font-weight="bold"' in svg else [])]
    faces = "".join(_face(weight) for weight in weights)
    end = svg.index(">") + 1
    return f"{svg[:end]}<style>{faces}</style>{svg[end:]}"


def _face(weight: str) -> str:
    font = base64.b64encode((_FONTS / _FILES[weight]).read_bytes()).decode()
    return (
        f'@font-face{{font-family:"{FONT}";font-weight:{weight};'
        f"src:url(data:font/ttf;base64,{font}) format('truetype')}}"
    )


def pdf_of(svg: str) -> bytes:
    """Return an SVG as one page of PDF, with the fonts it uses in it."""
    import vl_convert

    _register_fonts()
    # A point of a page is a pixel of the drawing here.
    page: bytes = vl_convert.svg_to_pdf(re.sub(r'(?<=[\d])pt"', '"', svg))
    return page
