"""The report opened in headless Chromium: drawn, silent, offline, every condition, each colour."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from chromium import CHROMIUM, NONE, Visit, open_chromium
from planted_paper import plant_paper
from planted_verdicts import VERDICTS_OF_STUDY, plant_settings, plant_verdicts
from shown_report import plant_report, write_report

from sweeps.findings.verdicts import FINDINGS

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason=NONE)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with open_chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return plant_report(tmp_path_factory.mktemp("browser") / "store")


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
