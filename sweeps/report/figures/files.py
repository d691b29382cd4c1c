"""The figures of a sweep as files: one file of all that was asked for, or a folder of them."""

from __future__ import annotations

import re
from pathlib import Path

from sweeps.errors import UserError, closest
from sweeps.report.data import ReportData
from sweeps.report.figures.charts import FIGURES, figures_of
from sweeps.report.figures.drawing import pdf_of, pixels_of, stacked, svg_of, with_fonts

FORMATS = ("pdf", "svg")


def write_figures(
    data: ReportData, kind: str, output: Path, names: tuple[str, ...], millimetres: float
) -> list[Path]:
    """Write figures as PDF or SVG, ``kind`` of ``FORMATS``; return the files.

    Where ``output`` ends in the kind it is one file, in which several figures lie under each other;
    else a folder with a file a figure.

    Args:
        names: of ``FIGURES``; none for all of them.
        millimetres: how wide they are.

    Raises:
        UserError: an unknown name, nothing to show, or a file that cannot be written.
    """
    for name in names:
        if name not in FIGURES:
            raise UserError(f"--figure {name}: no such figure; {closest(name, FIGURES)}")
    figures = figures_of(data, names or FIGURES, pixels_of(millimetres))
    if not figures:
        asked = f"--figure {', '.join(names)}: " if names else ""
        raise UserError(f"{asked}{data.name} has no results yet that a figure could show")
    drawn = {
        figure.name: svg_of(figure.panels, millimetres, one_scale=figure.one_scale)
        for figure in figures
    }
    if output.suffix.lower() == f".{kind}":
        return [_written(output, kind, stacked(list(drawn.values())))]
    return [_written(output / f"{_plain(name)}.{kind}", kind, svg) for name, svg in drawn.items()]


def _plain(name: str) -> str:
    return re.sub(r"[^\w.]+", "-", name)


def _written(path: Path, kind: str, svg: str) -> Path:
    content = pdf_of(svg) if kind == "pdf" else with_fonts(svg).encode()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    except OSError as error:
        raise UserError(f"-o {path}: cannot be written ({error.strerror})") from None
    return path
