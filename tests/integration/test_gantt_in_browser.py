"""The schedule's page opened in headless Chromium: a bar a run and GPU, offline, text escaped."""

import shutil

import pytest
from planted_store import run_spec

from orchestrator.display.gantt import bars, gantt_page
from orchestrator.policy.next_start import Waiting
from orchestrator.policy.occupancy import Demand
from orchestrator.policy.simulation import simulate

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
RUNS = {run.run_id: run for run in (run_spec("<b>tiny</b>", seed=seed) for seed in range(6))}
DEMANDS = [Demand(gpus=2), Demand(), *[Demand.of(0.25)] * 4]


def schedule():
    waiting = [
        Waiting(run_id, demand, 60.0 + k)
        for k, (run_id, demand) in enumerate(zip(RUNS, DEMANDS, strict=True))
    ]
    return simulate(waiting, [("node 1", 2)])


def test_bars_of_a_gpu_never_lie_on_each_other():
    found = bars(schedule(), RUNS)
    assert len(found) == 7  # the run on two GPUs has two
    for n, a in enumerate(found):
        for b in found[:n]:
            apart_in_time = a["to"] <= b["from"] or b["to"] <= a["from"]
            assert apart_in_time or a["bottom"] <= b["top"] or b["bottom"] <= a["top"]


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
def test_the_page_is_drawn_in_silence_and_offline(tmp_path):
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    path = tmp_path / "gantt.html"
    path.write_text(gantt_page("<i>study</i>", schedule(), RUNS, ["a < b"]), encoding="utf-8")
    said, asked = [], []
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"]
        )
        page = browser.new_page()
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(path.as_uri())
        page.wait_for_selector("html[data-charts=drawn]")
        assert page.locator("#chart svg .mark-rect path").count() == 7
        assert page.inner_text("h1") == "<i>study</i>"
        assert "a < b" in page.inner_text("pre")
        browser.close()
    assert said == []
    assert asked == [path.as_uri()]
