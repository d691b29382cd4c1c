"""Figures as files: at the width asked for, with their fonts in them, and what their names say."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from planted_store import run_spec, save_sweep, write_run
from planted_verdicts import plant_settings

from sweeps.errors import UserError
from sweeps.reading.tables import open_store
from sweeps.report.data import ReportData, gather
from sweeps.report.figures.charts import FIGURES, figures_of
from sweeps.report.figures.files import write_figures
from sweeps.report.tables.finite import finite
from sweeps.spec import LayerClip
from sweeps.store.store import Store

COLUMN = 84.0
POINTS = COLUMN * 72 / 25.4


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> ReportData:
    store = plant_settings(tmp_path_factory.mktemp("figures") / "store")
    tables = open_store(store.root, sweep="settings")
    return gather(tables, "settings", "", "", None, switch=False)


def page_of(pdf: bytes) -> list[float]:
    found = re.findall(rb"/MediaBox ?\[([^\]]*)\]", pdf)
    assert len(found) == 1
    return [float(number) for number in found[0].split()]


def test_a_pdf_is_a_column_wide_and_has_its_fonts(data: ReportData, tmp_path: Path) -> None:
    (path,) = write_figures(data, "pdf", tmp_path / "two.pdf", ("profiles", "kept"), COLUMN)
    pdf = path.read_bytes()
    assert pdf.startswith(b"%PDF-")
    left, top, right, bottom = page_of(pdf)
    assert (left, top, right) == (0, 0, pytest.approx(POINTS, abs=0.02))
    assert bottom > POINTS
    fonts = set(re.findall(rb"/FontName ?/(\S+)", pdf))
    assert fonts
    assert all(b"FigureSans" in font for font in fonts)
    assert pdf.count(b"/FontFile2") == len(fonts)


def test_an_svg_carries_its_font(data: ReportData, tmp_path: Path) -> None:
    (path,) = write_figures(data, "svg", tmp_path / "one.svg", ("slopes",), COLUMN)
    svg = path.read_text(encoding="utf-8")
    width = re.search(r'<svg[^>]* width="([\d.]+)pt"', svg)
    assert width is not None
    assert float(width[1]) == pytest.approx(POINTS, abs=0.02)
    assert '@font-face{font-family:"Figure Sans"' in svg
    assert set(re.findall(r'font-family="([^"]+)"', svg)) == {"Figure Sans"}
    assert "slope of change on relative depth" in svg


def test_a_folder_has_a_file_a_figure(data: ReportData, tmp_path: Path) -> None:
    folder = tmp_path / "figures"
    written = write_figures(data, "svg", folder, ("profiles", "verdicts", "learned"), 170.0)
    assert written == [folder / "profiles.svg", folder / "verdicts.svg"]
    assert sorted(path.name for path in folder.iterdir()) == ["profiles.svg", "verdicts.svg"]


def test_the_profiles_have_a_panel_for_each_condition(data: ReportData) -> None:
    (figure,) = figures_of(data, ["profiles"], 330)
    titles = [panel["title"]["subtitle"] for panel in figure.panels]
    assert titles == data.shown("slopes")["condition"].unique(maintain_order=True).to_list()
    assert len(titles) == 4
    for panel, title in zip(figure.panels, titles, strict=True):
        (rows,) = (rows for name, rows in panel["datasets"].items() if name.startswith("bands"))
        assert {row["condition"] for row in rows} == {title}
        assert {row["arm"] for row in rows} == {"standard", "equal_step"}


def test_no_parameter_of_the_page_is_left_in_a_figure(data: ReportData) -> None:
    for figure in figures_of(data, FIGURES, 330):
        for panel in figure.panels:
            text = str({key: part for key, part in panel.items() if key != "datasets"})
            assert not re.search(r"\{'expr': '(low|high|chosen|most|span|edge_\w+)'\}", text)
            assert "{metric}" not in text
            assert "chosen" not in text


def test_colours_are_those_of_the_page_on_paper(data: ReportData) -> None:
    (figure,) = figures_of(data, ["profiles"], 330)
    assert "'range': ['#1d2129', '#c07818']" in str(figure.panels[0])


def test_arms_beyond_the_colours_are_dashed_in_a_figure_too(tmp_path: Path) -> None:
    store = Store.at(str(tmp_path / "store"))
    controls: list[Any] = ["standard", "equal_step"]
    controls += [LayerClip(max_norm=norm) for norm in (0.1, 0.3, 0.5)]
    runs = [run_spec("m", control=control, seed=0) for control in controls]
    for run in runs:
        write_run(store, run, [0.1, 0.2, 0.3, 0.4])
    save_sweep(store, "toy", runs)
    many = gather(open_store(store.root, sweep="toy"), "toy", "", "", None, switch=False)
    (figure,) = figures_of(many, ["profiles"], 330)
    (line,) = (one for one in figure.panels[0]["layer"] if "strokeDash" in one["encoding"])
    hues, dashes = (line["encoding"][name]["scale"]["range"] for name in ("color", "strokeDash"))
    assert len(hues) == len(dashes) == 5
    assert len({(hue, tuple(dash)) for hue, dash in zip(hues, dashes, strict=True)}) == 5


def test_a_run_that_diverged_has_no_number_that_json_cannot_say(tmp_path: Path) -> None:
    """A ratio that has overflowed ends no figure: what is finite beside it is drawn."""
    store = Store.at(str(tmp_path / "store"))
    runs = [run_spec("m", seed=0), run_spec("m", seed=1, learning_rate=1e30)]
    write_run(store, runs[0], [0.1, 0.2], ratios=[1e-3, 2e-3])
    overflown = [float("inf"), float("nan")]
    write_run(store, runs[1], overflown, status="diverged", stop=10, ratios=overflown)
    save_sweep(store, "toy", runs)
    toy = gather(open_store(store.root, sweep="toy"), "toy", "", "", None, switch=False)
    assert not toy.tables["ratios"]["ratio"].is_finite().all()
    written = write_figures(toy, "svg", tmp_path / "figures", (), COLUMN)
    assert {"profiles.svg", "update-ratios.svg"} <= {path.name for path in written}
    for figure in figures_of(toy, FIGURES, 330):
        json.dumps(figure.panels, allow_nan=False)


def test_numbers_that_are_not_finite_are_null_in_columns_and_in_lists() -> None:
    odd = float("inf"), float("nan"), None, 1.5
    table = pl.DataFrame({"n": [1, 2, 3, 4], "x": odd, "seeds": [list(odd), [], None, [2.0]]})
    assert finite(table).to_dict(as_series=False) == {
        "n": [1, 2, 3, 4],
        "x": [None, None, None, 1.5],
        "seeds": [[None, None, None, 1.5], [], None, [2.0]],
    }


def test_a_wrong_name_and_nothing_to_show_are_one_line(data: ReportData, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--figure sloops: no such figure; did you mean 'slopes'"):
        write_figures(data, "pdf", tmp_path / "x.pdf", ("sloops",), COLUMN)
    with pytest.raises(UserError, match="no results yet that a figure could show"):
        write_figures(data, "pdf", tmp_path / "x.pdf", ("learned",), COLUMN)
    with pytest.raises(UserError, match="cannot be written"):
        write_figures(data, "pdf", Path("/proc/none/x.pdf"), ("slopes",), COLUMN)
    assert list(tmp_path.iterdir()) == []
