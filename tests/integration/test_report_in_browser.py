"""The report opened in headless Chromium: drawn, silent, offline, and answering to a click."""

from __future__ import annotations

import csv
import shutil
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from planted_measurements import record_distance
from planted_paper import plant_paper
from planted_store import evaluated, run_spec, save_sweep, write_run
from planted_verdicts import VERDICTS_OF_STUDY, plant_settings, plant_verdicts

from orchestrator.display.live_report import LiveReport, serve
from sweeps.findings.claims import read_claims
from sweeps.findings.verdicts import FINDINGS
from sweeps.reading.store_state import StoreState
from sweeps.reading.tables import open_store
from sweeps.report.data import gather
from sweeps.report.page import render
from sweeps.report.store_page import page_of
from sweeps.store.store import Store

CLAIMS = Path(__file__).parents[2] / "sweeps" / "library" / "paper.claims.yaml"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="no Chromium on this machine (Debian: apt-get install chromium)"
)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    store = Store.at(str(tmp_path_factory.mktemp("browser") / "store"))
    runs = []
    for model, family in (("tiny-gpt2", "gpt2"), ("<b>tiny</b> opt", "opt")):
        for objective in ("clm", "contrastive"):
            for control in ("standard", "equal_step"):
                for seed in range(2):
                    run = run_spec(model, objective, control, seed)
                    slope = 0.3 + 0.02 * seed
                    facts = {"layers": 6, "family": family}
                    run = evaluated(run)
                    write_run(store, run, lambda x, s=slope: 0.1 + s * x, facts=facts)
                    record_distance(store, run, [0.5 if objective == "clm" else 0.1])
                    runs.append(run)
    save_sweep(store, "toy", runs)
    return write_report(store, "toy")


def write_report(store: Store, name: str) -> Path:
    tables = open_store(store.root, sweep=name)
    data = gather(tables, name, "A study.", "", read_claims(CLAIMS))
    path = store.root / "report.html"
    path.write_text(render(data, datetime.now(UTC)), encoding="utf-8")
    return path


class Visit:
    """A page that was opened, with everything it said and asked for."""

    def __init__(self, browser: Any, path: Path, **options: Any) -> None:
        self.page = browser.new_context(**options).new_page()
        self.said: list[str] = []
        self.asked: list[str] = []
        self.page.on("console", lambda message: self.said.append(message.text))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.url = path.as_uri()
        started = time.perf_counter()
        self.page.goto(self.url)
        self.page.wait_for_selector("html[data-ready=yes]")
        self.interactive = time.perf_counter() - started
        self.page.wait_for_selector("html[data-charts=drawn]", timeout=60_000)
        self.drawn = time.perf_counter() - started

    def settle(self) -> None:
        self.page.wait_for_timeout(100)
        self.page.wait_for_selector("html[data-charts=drawn]", timeout=60_000)


@pytest.mark.parametrize(
    "options",
    [
        {"viewport": {"width": 1280, "height": 900}, "color_scheme": "light"},
        {"viewport": {"width": 390, "height": 844}, "color_scheme": "dark"},
    ],
    ids=["desktop-light", "phone-dark"],
)
def test_every_chart_is_drawn_in_silence_and_offline(
    browser: Any, report: Path, options: dict[str, Any]
) -> None:
    visit = Visit(browser, report, **options)
    states = visit.page.evaluate(
        "[...document.querySelectorAll('[data-chart]')].map("
        "e => [e.dataset.drawn, e.querySelectorAll('svg path').length])"
    )
    # Profiles 4, of a control 3, slopes, learned, losses 4, changes 4, ratios 4, steepness.
    assert len(states) == 22
    assert all(drawn == "yes" and paths > 0 for drawn, paths in states)
    assert visit.said == []
    assert [url for url in visit.asked if url != visit.url] == []
    assert visit.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    scheme = visit.page.evaluate("document.documentElement.dataset.theme")
    assert scheme == options["color_scheme"]


@pytest.fixture(scope="module")
def verdicts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of twelve models with a condition of each kind."""
    store = plant_verdicts(tmp_path_factory.mktemp("verdicts") / "store", models=12)
    return write_report(store, "verdicts")


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_every_kind_of_verdict_is_drawn_in_silence(
    browser: Any, verdicts: Path, scheme: str, width: int
) -> None:
    visit = Visit(browser, verdicts, viewport={"width": width, "height": 900}, color_scheme=scheme)
    page = visit.page
    assert visit.said == []
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert page.evaluate("document.querySelectorAll('[data-drawn=empty]').length") == 0
    cells = page.evaluate(
        "[...document.querySelectorAll(\"[aria-label^='What equal_step keeps'] .mark-rect path\")]"
        ".map(e => [e.__data__.datum.verdict, e.getAttribute('fill')])"
    )
    hues = page.evaluate("depthsweep.page.colours.verdict.strong")
    assert {verdict for verdict, _ in cells} == set(VERDICTS_OF_STUDY)
    assert all(fill == hues[verdict] for verdict, fill in cells)
    assert len({hues[finding] for finding in FINDINGS}) == len(FINDINGS)
    kept = "[aria-label^='Share of the standard slope'] "
    # At 0, at 1, at either side of what counts as gone, and the intervals.
    assert page.locator(f"{kept} .mark-rule line").count() >= 4 + 20
    assert page.locator(f"{kept} .mark-text text", has_text="unbounded").count() == 1


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_colour_means_an_arm_or_a_verdict_and_nothing_else(
    browser: Any, verdicts: Path, scheme: str
) -> None:
    page = Visit(browser, verdicts, color_scheme=scheme).page
    scales = page.evaluate(
        "depthsweep.views.filter(v => v.view).flatMap(v => { try {"
        " const scale = v.view.scale('color'); return [scale.domain().map(n => [n, scale(n)])]; }"
        " catch { return []; } })"
    )
    meant = page.evaluate("depthsweep.page.colours")
    known = {**meant["arm"][scheme], **meant["verdict"][scheme]}
    named = [pairs for pairs in scales if any(isinstance(name, str) for name, _ in pairs)]
    assert len(named) > 20
    strong = meant["verdict"]["strong"]
    for pairs in named:
        assert all(hue in (known[name], strong.get(name)) for name, hue in pairs), pairs


@pytest.mark.slow
def test_a_legend_is_never_cut_off(browser: Any, verdicts: Path) -> None:
    for width in (1280, 390):
        page = Visit(browser, verdicts, viewport={"width": width, "height": 900}).page
        beyond = page.evaluate(
            "[...document.querySelectorAll('.chart')].flatMap(chart => ["
            "...chart.querySelectorAll('.role-legend-label text')].filter(label =>"
            " label.getBoundingClientRect().right > chart.getBoundingClientRect().right + 1)"
            ".map(label => label.textContent))"
        )
        assert beyond == []


@pytest.mark.slow
def test_treatments_of_an_objective_have_one_scale_of_ratios(browser: Any, verdicts: Path) -> None:
    visit = Visit(browser, verdicts, viewport={"width": 1280, "height": 900})
    found = (
        "depthsweep.views.filter(v => v.view && v.chart.table === 'ratios'"
        " && v.chart.only.condition === 'clm').map(v => v.view.scale('color').domain())"
    )
    wide = visit.page.evaluate(found)
    assert wide[0] == wide[1]
    assert wide[0][0] == pytest.approx(-wide[0][-1])
    visit.page.click("nav button[data-model='tiny-opt']")
    visit.settle()
    narrow = visit.page.evaluate(found)
    assert narrow[0] == narrow[1]
    assert narrow[0][-1] < wide[0][-1] / 5
    assert visit.said == []


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
    assert page.evaluate(slope) != before
    page.select_option("#metric", "procrustes")
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


def test_no_condition_is_hidden(browser: Any, tmp_path_factory: pytest.TempPathFactory) -> None:
    store = plant_settings(tmp_path_factory.mktemp("settings") / "store")
    visit = Visit(browser, write_report(store, "settings"), viewport={"width": 1280, "height": 900})
    page = visit.page
    titles = page.locator(".model .panel figcaption").all_inner_texts()
    assert len(titles) == len(set(titles)) == 4
    for title in titles:
        lines = page.evaluate(
            "title => [...document.querySelectorAll(`[aria-label='Change by depth, m, ${title}']"
            " .mark-line path`)].map(e => [e.__data__.datum.arm, e.getAttribute('stroke-width'),"
            " e.getAttribute('d')])",
            title,
        )
        solid = {arm: path for arm, width, path in lines if float(width) > 1.5}
        # Both arms are lines of their own, the wider one beneath.
        assert set(solid) == {"standard", "equal_step"}
        assert solid["standard"] != solid["equal_step"]
    cells = "[aria-label^='What equal_step keeps'] .mark-rect path"
    assert page.locator(cells).count() == 4
    assert visit.said == []


@pytest.mark.slow
def test_the_page_prints_with_every_chart_and_without_its_controls(
    browser: Any, report: Path
) -> None:
    visit = Visit(browser, report, viewport={"width": 1280, "height": 900})
    pdf = visit.page.pdf()
    assert pdf.startswith(b"%PDF")
    visit.page.emulate_media(media="print")
    assert not visit.page.is_visible("nav.models")
    assert not visit.page.is_visible(".save")
    assert (
        visit.page.evaluate("document.querySelectorAll('[data-chart]:not([data-drawn])').length")
        == 0
    )


def test_a_watched_report_reloads_when_a_run_has_ended(browser: Any, tmp_path: Path) -> None:
    store = Store.at(str(tmp_path / "store"))
    runs = [run_spec("tiny", seed=seed) for seed in range(2)]
    save_sweep(store, "toy", runs)
    write_run(store, runs[0], [0.1, 0.2, 0.3])
    server = serve(
        LiveReport(
            StoreState(store, "toy"),
            lambda state: page_of("toy", str(store.root), include_running=True, live=state),
        )
    )
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        page = browser.new_page()
        page.goto(f"http://127.0.0.1:{server.server_port}/")
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


@pytest.mark.slow
def test_a_report_of_240_runs_is_small_and_quick(
    browser: Any, tmp_path_factory: pytest.TempPathFactory
) -> None:
    store = plant_paper(tmp_path_factory.mktemp("paper") / "store", steps=48)
    path = write_report(store, "paper")
    assert path.stat().st_size < 10e6
    visit = Visit(browser, path, viewport={"width": 1280, "height": 900})
    print(
        f"240 runs: {path.stat().st_size / 1e6:.1f} MB, interactive in {visit.interactive:.2f} s,"
        f" drawn in {visit.drawn:.2f} s"
    )
    assert visit.said == []
    # Each model once, each of its objectives a panel, whatever their number.
    assert visit.page.locator(".model").count() == 15
    assert visit.page.locator(".model .panel").count() == 12 * 3 + 2 * 2 + 1
    assert visit.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    button = visit.page.locator("nav button[data-model]").nth(3)
    button.click()
    visit.settle()
    assert button.get_attribute("aria-pressed") == "true"
