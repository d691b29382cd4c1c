"""What a reader of the report chooses, in headless Chromium: model, theme, metric, step, files."""

from __future__ import annotations

import csv
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from chromium import CHROMIUM, NONE, Visit, open_chromium
from planted_store import run_spec, save_sweep, write_run
from shown_report import plant_report

from orchestrator.display.live_report import LiveReport, serve
from sweeps.reading.store_state import StoreState
from sweeps.report.store_page import page_of
from sweeps.store.store import Store

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason=NONE)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with open_chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return plant_report(tmp_path_factory.mktemp("choices") / "store")


def test_a_choice_of_model_reaches_every_chart(browser: Any, report: Path) -> None:
    visit = Visit(browser, report, viewport={"width": 1280, "height": 900})
    page = visit.page
    page.click("nav button[data-model='<b>tiny</b> opt']")
    visit.settle()
    chosen = page.evaluate(
        "depthsweep.views.filter(v => v.view && depthsweep.page.specs[v.chart.spec].params?.some("
        "p => p.name === 'chosen')).map(v => v.view.signal('chosen'))"
    )
    assert len(chosen) == 10
    assert set(chosen) == {"<b>tiny</b> opt"}
    assert page.inner_text("[data-shown-model]") == "<b>tiny</b> opt"
    faded = page.evaluate(
        "[...document.querySelectorAll('.model.unchosen h3')].map(e => e.innerText)"
    )
    assert faded == ["tiny-gpt2"]
    # Clicked in a chart instead: the first dot of the slopes is tiny-gpt2's.
    dots = page.locator("[aria-label^='Slope of change'] svg .mark-symbol path")
    dots.first.scroll_into_view_if_needed()
    box = dots.first.bounding_box()
    page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    visit.settle()
    assert page.get_attribute("nav button[data-model='tiny-gpt2']", "aria-pressed") == "true"
    assert visit.said == []


def test_the_theme_and_the_scale_can_be_switched(browser: Any, report: Path) -> None:
    visit = Visit(browser, report, color_scheme="light")
    page = visit.page
    before = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.click("#theme")
    visit.settle()
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") != before
    top = "depthsweep.views.find(v => v.chart.table === 'bands').view.scale('y').domain()[1]"
    assert page.evaluate(top) < 0.6
    assert page.locator("[aria-label^='Change by depth'] text", has_text="null 1.00↑").count() == 4
    page.select_option("#scale", "null")
    visit.settle()
    assert page.evaluate(top) > 1
    assert page.locator("[aria-label^='Change by depth'] text", has_text="↑").count() == 0
    assert visit.said == []


def test_metric_and_step_can_be_switched(browser: Any, report: Path) -> None:
    visit = Visit(browser, report, viewport={"width": 1280, "height": 900})
    page = visit.page
    axis = "[aria-label^='Change by depth'] .role-axis-title text"
    shown = "document.querySelector('.answer:not([hidden])').dataset.answer"
    slopes = "depthsweep.views.find(v => v.chart.table === 'slopes').view"
    slope = f"{slopes}.data('slopes').map(row => row.slope)"
    before = page.evaluate(slope)
    assert "Procrustes distance" in page.locator(axis).all_text_contents()
    page.select_option("#metric", "cka_distance")
    visit.settle()
    assert page.evaluate(shown) == "cka_distance @ final"
    assert "1 − CKA" in page.locator(axis).all_text_contents()
    # What was written for the first view alone is not left standing under another.
    assert page.locator("[data-first-view]:visible").count() == 0
    assert page.evaluate(slope) != before
    page.select_option("#metric", "procrustes")
    visit.settle()
    assert page.locator("[data-first-view]:visible").count() == 2
    page.select_option("#step", "10")
    visit.settle()
    # Halfway the planted change is half of it.
    half = page.evaluate(slope)
    assert half == pytest.approx([one / 2 for one in before], rel=1e-3)
    assert "step 10" in page.inner_text("[data-shown-step]")
    # The address brings it back.
    page.reload()
    page.wait_for_selector("html[data-charts=drawn]", timeout=60_000)
    assert page.evaluate(shown) == "procrustes @ 10"
    assert visit.said == []


def test_a_chart_can_be_saved_as_svg_png_and_csv(
    browser: Any, report: Path, tmp_path: Path
) -> None:
    visit = Visit(browser, report, viewport={"width": 1280, "height": 900}, color_scheme="dark")
    page = visit.page
    found = {}
    for kind in ("SVG", "PNG", "CSV"):
        with page.expect_download() as waiting:
            page.click(f"button[aria-label='Save as {kind}: Change by depth, tiny-gpt2, clm']")
        path = tmp_path / waiting.value.suggested_filename
        waiting.value.save_as(path)
        found[kind] = path
        assert path.name == f"toy-tiny-gpt2-clm-procrustes-final.{kind.lower()}"
    svg = found["SVG"].read_text(encoding="utf-8")
    # On white, with a title and a legend of its own, whatever the page looks like.
    assert 'fill="#fff"' in svg
    assert "tiny-gpt2 · clm" in svg
    assert "equal_step" in svg
    assert "#1d2129" in svg
    assert found["PNG"].read_bytes().startswith(b"\x89PNG")
    rows = list(csv.DictReader(found["CSV"].open(encoding="utf-8")))
    assert len(rows) == 2 * (6 + 1)
    assert {row["arm"] for row in rows} == {"standard", "equal_step"}
    assert {row["view"] for row in rows} == {"procrustes @ final"}
    last = [row for row in rows if row["layer"] == "6" and row["arm"] == "standard"]
    assert [float(one) for one in last[0]["seed_values"].split(";")] == pytest.approx([0.4, 0.42])
    assert visit.said == []


def test_a_watched_report_reloads_when_a_run_has_ended(browser: Any, tmp_path: Path) -> None:
    store = Store.at(str(tmp_path / "store"))
    runs = [run_spec("tiny", seed=seed) for seed in range(2)]
    save_sweep(store, "toy", runs)
    write_run(store, runs[0], [0.1, 0.2, 0.3])
    server = serve(
        LiveReport(
            StoreState(store, "toy"),
            lambda state: page_of("toy", str(store.root), include_running=True, live=state),
        ),
        "a-token",
    )
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        page = browser.new_page()
        page.goto(f"http://127.0.0.1:{server.server_port}/?token=a-token")
        page.wait_for_selector("html[data-charts=drawn]")
        assert "1\npending" in page.inner_text(".tiles")
        page.click("nav button[data-model='tiny']")
        write_run(store, runs[1], [0.1, 0.2, 0.3])
        page.wait_for_function(
            "document.querySelector('.tiles').innerText.includes('2\\nfinished')"
        )
        page.wait_for_selector("html[data-charts=drawn]")
        pressed = "nav button[data-model='tiny'][aria-pressed=true]"
        page.wait_for_selector(pressed)
        page.close()
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
