"""The report as text: what it holds, that nothing a user wrote can act, and that it is offline."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path

import polars as pl
import pytest
from planted_measurements import record_distance
from planted_store import run_spec, save_sweep, write_run

from sweeps.files.whole_files import read_json, write_json
from sweeps.findings.claim_spec import Claim, ClaimsFile, Measure, Test
from sweeps.reading.tables import open_store
from sweeps.report.data import ReportData, gather
from sweeps.report.page import render
from sweeps.report.tables import training
from sweeps.report.tables.names import arms_of
from sweeps.report.tables.training import CURVE_POINTS, LEAST_POINTS, moments_of, ratios
from sweeps.store.store import Store

EVIL = "</script><script>alert(1)</script><img src=x onerror=alert(2)>"


def claims(text: str = "Later blocks change more.") -> ClaimsFile:
    measure = Measure(statistic="slope", reduce="share", above=0.0)
    test = Test.model_validate({"measure": measure, "is": "at_least", "than": 1.0})
    return ClaimsFile(source=EVIL, claims=[Claim(id="C", text=text, tests=[test])])


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> ReportData:
    store = Store.at(str(tmp_path_factory.mktemp("report") / "store"))
    runs = []
    for control, slope in (("standard", 0.3), ("equal_step", 0.1)):
        for seed in range(2):
            run = run_spec(EVIL, "clm", control, seed)
            equal = [1e-3] * 6 if control == "equal_step" else None
            profile = [0.1 + slope * i / 6 + 0.01 * seed for i in range(1, 7)]
            write_run(store, run, profile, ratios=equal)
            record_distance(store, run, [0.5])
            runs.append(run)
    failed = run_spec("gpt2", seed=5)
    folder = write_run(store, failed, [0.1, 0.2], status="failed", stop=10)
    attempt = read_json(folder.attempt_path(1))
    write_json(folder.attempt_path(1), {**attempt, "error": f"ValueError: {EVIL}"})
    diverged = run_spec("gpt2", seed=6)
    write_run(store, diverged, [0.1, 0.2], status="diverged", stop=10)
    save_sweep(store, "toy", [*runs, failed, diverged])
    tables = open_store(store.root, sweep="toy")
    return gather(tables, "toy", EVIL, f"name: toy # {EVIL}", claims(EVIL))


@pytest.fixture(scope="module")
def page(data: ReportData) -> str:
    return render(data, datetime(2026, 1, 2, 3, 4, tzinfo=UTC))


class _Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))


def test_nothing_a_user_wrote_becomes_markup(page: str) -> None:
    parser = _Tags()
    parser.feed(page)
    assert [tag for tag, _ in parser.tags].count("script") == 3
    assert "img" not in [tag for tag, _ in parser.tags]
    assert not [name for _, attributes in parser.tags for name in attributes if name[:2] == "on"]
    assert "&lt;/script&gt;" in page


def test_the_page_names_no_address_to_load(page: str) -> None:
    parser = _Tags()
    parser.feed(page)
    links = [
        value
        for _, attributes in parser.tags
        for name, value in attributes.items()
        if name in ("src", "href")
    ]
    assert links == ["data:,"]


def test_tables_travel_whole(page: str, data: ReportData) -> None:
    found = re.search(r'id="report-data">(.*?)</script>', page, re.S)
    assert found is not None
    content = json.loads(found[1])
    assert content["models"] == [EVIL, "gpt2"]
    bands = content["tables"]["bands"]
    assert bands["length"] == data.tables["bands"].height == 14 * len(data.views)
    assert bands["columns"]["model"] == {"same": EVIL}
    arms = bands["columns"]["arm"]
    assert [arms["names"][code] for code in arms["codes"]] == data.tables["bands"]["arm"].to_list()
    assert bands["columns"]["layer"].count(0) == 2 * len(data.views)
    first = dict(zip(data.tables["bands"].columns, data.tables["bands"].row(5), strict=True))
    assert bands["columns"]["value"][5] == pytest.approx(first["value"], rel=1e-4)
    seeds = bands["columns"]["seed_values"][5]
    assert seeds == pytest.approx(first["seed_values"], rel=1e-4)
    assert len(seeds) == 2


def test_update_ratios_show_whether_the_control_held(data: ReportData) -> None:
    spread = dict(data.tables["spread"].filter(model=EVIL).select("treatment", "spread").rows())
    assert spread["equal_step"] == pytest.approx(0, abs=1e-9)
    assert spread["standard"] == pytest.approx(5)
    ratios = data.tables["ratios"].filter(treatment="equal_step")
    assert ratios["relative"].abs().max() == pytest.approx(0, abs=1e-9)
    assert sorted(ratios["layer"].unique()) == [1, 2, 3, 4, 5, 6]


def test_of_recorded_steps_each_weighs_as_many_as_it_covers(tmp_path: Path) -> None:
    store = Store.at(str(tmp_path / "store"))
    run = run_spec(probe_every=20, part_steps=20).model_copy(update={"record_every": 20})
    folder = write_run(store, run, [0.1, 0.2])
    assert run.recorded_steps.until(20) == [1, 20]
    (part,) = folder.parts("layers")
    rows = pl.read_parquet(part).with_columns(
        update_norm=pl.col("layer") * pl.when(step=1).then(100.0).otherwise(1.0),
        weight_norm=pl.lit(1.0),
    )
    rows.write_parquet(part)
    tables, keys = open_store(store.root), ["model", "objective", "control"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "HEAT_COLUMNS", 1)
        patch.setattr(training, "LEAST_COLUMNS", 1)
        found = ratios(tables, tables.runs().collect(), keys)["ratios"]
    mean = (100 * 1 + 1 * 19) / 20
    assert found.select("layer", "ratio", "start", "until").rows() == [
        (1, pytest.approx(mean), 0, 20),
        (2, pytest.approx(2 * mean), 0, 20),
    ]


def test_change_over_training_ends_at_what_the_profiles_show(data: ReportData) -> None:
    changes = data.tables["changes"]
    assert set(changes["metric"]) == {"procrustes", "cka_distance", "cka_distance_debiased"}
    assert sorted(changes["step"].unique()) == [10, 20]
    keys = ["model", "condition", "arm", "layer"]
    last = changes.filter(step=20, metric="procrustes").select(*keys, "value", "n")
    shown = data.shown("bands").filter(pl.col("layer") > 0).select(*keys, "value", "n")
    assert last.height == shown.height == 12
    both = last.join(shown, on=keys, suffix="_shown")
    assert both["value"].to_list() == pytest.approx(both["value_shown"].to_list())
    assert both["n"].to_list() == both["n_shown"].to_list() == [2] * 12
    halfway = changes.filter(step=10, metric="procrustes")["value"].sum()
    assert halfway == pytest.approx(last["value"].sum() / 2)


def test_maps_that_a_page_cannot_hold_are_left_out_with_a_word(data: ReportData) -> None:
    assert "too many for maps" not in render(data, datetime(2026, 1, 2, tzinfo=UTC))
    bare = {name: data.tables[name].clear() for name in ("changes", "change_limits", "ratios")}
    page = render(replace(data, tables=data.tables | bare), datetime(2026, 1, 2, tzinfo=UTC))
    assert page.count("too many for maps of each on one page") == 2
    assert "largest spread" in page


def test_of_many_conditions_each_has_fewer_moments() -> None:
    most, least = CURVE_POINTS, LEAST_POINTS
    assert moments_of(10, most, least) == most
    assert moments_of(5_000, most, least) == 12
    assert moments_of(10**6, most, least) == least


def test_failed_and_diverged_runs_are_named(page: str) -> None:
    assert "Runs without a profile" in page
    assert page.count("<td>diverged</td>") == 1
    assert "ValueError: &lt;/script&gt;" in page


def test_every_chart_has_an_accessible_name(page: str) -> None:
    parser = _Tags()
    parser.feed(page)
    charts = [attributes for _, attributes in parser.tags if "data-chart" in attributes]
    assert len(charts) >= 8
    assert all(attributes["role"] == "img" and attributes["aria-label"] for attributes in charts)


def test_a_sweep_that_brings_no_claims_is_judged_by_none(tmp_path: Path) -> None:
    store = Store.at(str(tmp_path / "store"))
    write_run(store, run_spec(), [0.1, 0.2])
    save_sweep(store, "toy", [run_spec()])
    data = gather(open_store(store.root, sweep="toy"), "toy", "", "", None)
    page = render(data, datetime(2026, 1, 2, tzinfo=UTC))
    assert "<h2>Slopes</h2>" in page
    assert "<h2>Claims</h2>" not in page
    assert '<article class="claim' not in page


def test_each_learning_rate_has_a_cell_a_legend_and_a_row(tmp_path: Path) -> None:
    store = Store.at(str(tmp_path / "store"))
    runs = []
    for rate, kept in ((1e-3, 0.001), (1e-4, 0.3)):
        for seed in range(6):
            for control, slope in (("standard", 0.3), ("equal_step", kept)):
                run = run_spec("m", "clm", control, seed, learning_rate=rate)
                noise = 0.01 * (seed - 2)
                profile = [0.2 + (slope + noise) * i / 6 for i in range(1, 7)]
                write_run(store, run, profile, status="diverged" if seed == 5 else "finished")
                runs.append(run)
    save_sweep(store, "toy", runs)
    data = gather(open_store(store.root, sweep="toy"), "toy", "", "", None)
    cells = data.shown("persistence").select("condition", "arm", "verdict").rows()
    assert cells == [
        ("clm · learning_rate 0.001", "equal_step", "collapses"),
        ("clm · learning_rate 0.0001", "equal_step", "persists"),
    ]
    assert arms_of(data.tables["slopes"]) == ["standard", "equal_step"]
    shown = set(data.shown("slopes").select("condition", "arm").rows())
    assert len(shown) == 4
    for table in (data.left_out, data.tables["curves"], data.tables["learned"]):
        assert set(table.select("condition", "arm").rows()) == shown


def test_a_sweep_over_steps_has_its_ratios(tmp_path: Path) -> None:
    store = Store.at(str(tmp_path / "store"))
    runs = [run_spec(steps=steps, probe_every=24, part_steps=24) for steps in (24, 48)]
    for run in runs:
        write_run(store, run, [0.1, 0.2])
    save_sweep(store, "toy", runs)
    ratios = gather(open_store(store.root, sweep="toy"), "toy", "", "", None).tables["ratios"]
    ends = dict(ratios.group_by("treatment").agg(pl.col("until").max()).rows())
    assert ends == {"standard · steps 24": 24, "standard · steps 48": 48}


def test_a_sweep_not_begun_has_a_page(tmp_path_factory: pytest.TempPathFactory) -> None:
    store = Store.at(str(tmp_path_factory.mktemp("early") / "store"))
    save_sweep(store, "toy", [run_spec()])
    data = gather(open_store(store.root, sweep="toy"), "toy", "", "", claims())
    page = render(data, datetime(2026, 1, 2, tzinfo=UTC))
    assert "No finished run has a profile yet." in page
    assert "insufficient data" in page
    assert "no run has a profile yet" in page
