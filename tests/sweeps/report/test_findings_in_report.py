"""What the report says of findings, of states of knowledge, and of what was not measured."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from planted_measurements import record_distance, record_result
from planted_store import run_spec, save_sweep, write_run
from planted_verdicts import VERDICTS_OF_STUDY, plant_verdicts

from sweeps.findings.claims import read_claims
from sweeps.reading.tables import open_store
from sweeps.report.charts.chart import arm_dash
from sweeps.report.data import ReportData, gather
from sweeps.report.page import render
from sweeps.report.persistence_text import STATES
from sweeps.report.tables.training import LEAST_SPAN
from sweeps.spec import Measurement
from sweeps.store.store import Store

CLAIMS = Path(__file__).parents[3] / "sweeps" / "library" / "paper.claims.yaml"
MADE = datetime(2026, 1, 2, tzinfo=UTC)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> ReportData:
    store = plant_verdicts(tmp_path_factory.mktemp("verdicts") / "store")
    tables = open_store(store.root, sweep="verdicts")
    return gather(tables, "verdicts", "", "", read_claims(CLAIMS))


@pytest.fixture(scope="module")
def page(data: ReportData) -> str:
    return render(data, MADE)


def charts(page: str) -> dict[str, dict[str, Any]]:
    """Return the charts of a page by what a screen reader says of them."""
    found = re.search(r'id="report-data">(.*?)</script>', page, re.S)
    assert found is not None
    content = json.loads(found[1])
    return {
        chart["label"]: {**chart, "spec": content["specs"][chart["spec"]]}
        for chart in content["charts"]
    }


def test_a_cell_has_verdict_seeds_and_what_was_kept(data: ReportData) -> None:
    cells = data.shown("persistence").select("verdict", "kept_said", "cell").rows()
    assert [verdict for verdict, *_ in cells] == [*VERDICTS_OF_STUDY]
    said = {verdict: (kept, cell) for verdict, kept, cell in cells}
    assert said["persists"] == ("95 %", "[92, 98] %\nn 4\ndose 3.00")
    assert said["no_reference"][1] == "unbounded\nn 3\ndose 3.00"
    assert said["insufficient"] == ("96 %", "n 2\ndose 3.00")


def test_what_each_state_means_is_said_where_it_occurs(page: str, data: ReportData) -> None:
    occurring = set(data.shown("persistence")["verdict"])
    for state, meaning in STATES.items():
        words = meaning.split("`")[0][:40].replace("'", "&#x27;")
        assert (words in page) == (state in occurring), state
    assert "<code>depthsweep power</code>" in page


def test_arms_are_compared_where_they_changed_equally_too(page: str, data: ReportData) -> None:
    table = data.shown("persistence")
    assert table["verdict_equal_change"].to_list() == table["verdict"].to_list()
    assert "at equal mean change: the same verdicts" in page
    assert "at equal evaluation loss: unmatched until a sweep evaluates" in page
    assert page.count("on the same runs, no replication") >= 2


def test_an_interval_needs_three_seeds(data: ReportData) -> None:
    for name, counted, low in (
        ("bands", "n", "low"),
        ("slopes", "seeds", "slope_low"),
        ("steepness", "seeds", "steepness_low"),
        ("persistence", "n", "retained_low"),
    ):
        table = data.tables[name].filter(pl.col("objective") == "contrastive")
        assert name == "steepness" or table["view"].n_unique() == len(data.views)
        if name == "bands":
            table = table.filter(pl.col("layer") > 0)
        few = table.filter(pl.col(counted) < 3)
        assert few.height, name
        assert few[low].null_count() == few.height, name
        assert table.filter(pl.col(counted) >= 3)[low].null_count() == 0, name
    two = data.shown("slopes").filter((pl.col("seeds") == 2) & (pl.col("control") == "standard"))
    assert two["seed_slope"].to_list() == [pytest.approx([0.25, 0.27])]


def test_an_unbounded_share_goes_on_beyond_both_edges(data: ReportData) -> None:
    retained = data.shown("retained")
    assert retained.height == data.shown("persistence").height
    (row,) = retained.filter(pl.col("interval") == "unbounded").to_dicts()
    assert (row["shown_low"], row["shown_high"]) == (row["edge_low"], row["edge_high"])
    assert (row["cut_low"], row["cut_high"]) == (True, True)
    assert not retained.filter(pl.col("verdict") == "persists")["cut_high"].any()
    assert retained["edge_low"][0] < retained["retained"].min()


def test_a_share_beyond_the_scale_is_an_arrow_at_its_edge(tmp_path: Path) -> None:
    store = Store.at(str(tmp_path / "store"))
    runs = []
    for seed in range(3):
        for control, slope in (("standard", 0.02), ("equal_step", 0.4)):
            run = run_spec("m", "clm", control, seed)
            write_run(store, run, [0.1 + (slope + 1e-4 * seed) * i / 6 for i in range(1, 7)])
            runs.append(run)
    save_sweep(store, "toy", runs)
    data = gather(open_store(store.root, sweep="toy"), "toy", "", "", None)
    (row,) = data.shown("retained").to_dicts()
    assert row["retained"] > 15
    assert (row["shown"], row["edge_high"], row["cut_high"]) == (3.0, 3.0, True)
    assert not row["cut_low"]


def test_propagation_and_the_embedding_are_drawn(page: str, data: ReportData) -> None:
    bands = data.shown("bands")
    blocks, embedding = bands.filter(pl.col("layer") > 0), bands.filter(pl.col("layer") == 0)
    assert blocks["without_gradient"].null_count() == 0
    assert embedding.height == data.shown("slopes").height
    spec = charts(page)["Change by depth, tiny-opt, clm"]["spec"]
    drawn = [layer["encoding"]["y"].get("field") for layer in spec["layer"]]
    assert {"without_gradient", "null", "value", "low", "seed_values"} <= set(drawn)


def test_all_models_have_one_scale_of_change_unless_the_reader_asks(data: ReportData) -> None:
    limits = data.shown("band_limits")
    assert (
        limits["model"].to_list()
        == data.shown("bands")["model"].unique(maintain_order=True).to_list()
    )
    assert limits["high_shared"].n_unique() == 1
    assert limits["high_own"].n_unique() == limits.height
    assert limits["high_own"].max() == limits["high_shared"][0]
    assert limits["high_null"][0] >= data.shown("bands")["null_high"].max()


def test_what_a_chart_names_its_table_has(page: str, data: ReportData) -> None:
    made_by_vega = {"data", "least", "most", "said", "rows", "row"}
    for label, chart in charts(page).items():
        named = set(re.findall(r'"field": "([^"]+)"', json.dumps(chart["spec"])))
        made = set(re.findall(r'"as": "([^"]+)"', json.dumps(chart["spec"])))
        assert named - made - made_by_vega <= {*data.tables[chart["table"]].columns}, label


def test_every_chart_names_its_axes_and_says_over_how_many_it_is(
    page: str, data: ReportData
) -> None:
    drawn = charts(page) | charts(render(replace(data, width_like_steepness=-0.4), MADE))
    assert len({chart["table"] for chart in drawn.values()}) >= 8
    for label, chart in drawn.items():
        titles: dict[str, set[str]] = {"x": set(), "y": set()}
        for encoding in _encodings(chart["spec"]):
            for channel, said in titles.items():
                part = encoding.get(channel, {})
                title = part.get("title") or (part.get("axis") or {}).get("title")
                if part.get("type") in ("quantitative", "ordinal") and title:
                    said.add(title)
        kinds = {
            channel: {
                one[channel].get("type") for one in _encodings(chart["spec"]) if channel in one
            }
            for channel in titles
        }
        # Rows and columns of names need no title; what is measured does.
        for channel, said in titles.items():
            measured = kinds[channel] & {"quantitative", "ordinal"}
            assert bool(said) == bool(measured), (label, channel)
        text = json.dumps(chart["spec"])
        counted = any(f'"field": "{name}"' in text for name in ("said", "n_said", "cell"))
        # Maps have no room for it: the page says it in their titles.
        assert counted or chart["table"] in ("changes", "ratios"), label
    assert page.count("<span data-count></span>") == sum(
        chart["table"] in ("changes", "ratios") for chart in charts(page).values()
    )


def _encodings(part: Any) -> list[dict[str, Any]]:
    """Return every encoding of a specification."""
    if isinstance(part, list):
        return [one for each in part for one in _encodings(each)]
    if not isinstance(part, dict):
        return []
    own = [part["encoding"]] if isinstance(part.get("encoding"), dict) else []
    return own + [one for value in part.values() for one in _encodings(value)]


def test_a_saturated_condition_marks_its_card(page: str) -> None:
    marks = re.findall(r'<p class="mark" data-first-view>(.*?)</p>', page)
    assert len(marks) == 1
    assert "contrastive standard in 100 % of blocks" in marks[0]


def test_heat_maps_of_one_objective_have_one_symmetrical_scale(page: str, data: ReportData) -> None:
    ratios = data.tables["ratios"]
    for _, own in ratios.group_by("model", "objective"):
        assert own["arm"].n_unique() == 2
        assert own["span"].n_unique() == 1
        assert own["span"][0] == pytest.approx(max(own["relative"].abs().max(), LEAST_SPAN))
    spec = charts(page)["Update ratio of each block over training, clm, equal_step"]["spec"]
    scale = spec["encoding"]["color"]["scale"]
    assert (scale["domainMin"], scale["domainMax"]) == ({"expr": "-span"}, {"expr": "span"})
    assert "1.05 to 3.00 times the smallest" in page
    assert "as equal steps have them do" not in page


def test_a_run_of_few_steps_leaves_no_gap_in_its_heat_map(data: ReportData) -> None:
    one = data.tables["ratios"].filter(
        (pl.col("model") == "tiny-opt")
        & (pl.col("objective") == "clm")
        & (pl.col("treatment") == "standard")
        & (pl.col("layer") == 1)
    )
    assert one["start"].to_list() == [0, *one["until"].to_list()[:-1]]


def test_a_curve_ends_with_its_first_seed(tmp_path: Path) -> None:
    store = Store.at(str(tmp_path / "store"))
    runs = [run_spec("m", seed=seed) for seed in range(3)]
    for seed, run in enumerate(runs):
        status = "diverged" if seed == 1 else "finished"
        write_run(store, run, [0.1, 0.2], status=status, stop=7 if seed == 1 else None)
    waiting = run_spec("m", "contrastive", seed=0)
    write_run(store, waiting, [0.1, 0.2], status=None, stop=10)
    save_sweep(store, "toy", [*runs, waiting])
    tables = open_store(store.root, sweep="toy", include_running=True)
    curves = gather(tables, "toy", "", "", None).tables["curves"]
    ended = curves.filter(pl.col("objective") == "clm")
    assert ended["step"].to_list() == [*range(1, 8)]
    assert set(ended["n"]) == {3}
    assert ended["loss_low"].to_list() == pytest.approx(ended["loss"].to_list())
    assert curves.filter(pl.col("objective") == "contrastive").height == 10


def test_noisy_and_missing_distances_are_counted(tmp_path: Path) -> None:
    store = Store.at(str(tmp_path / "store"))
    runs = []
    for objective in ("clm", "contrastive", "classification"):
        for seed in range(3):
            run = run_spec("m", objective, seed=seed)
            write_run(store, run, [0.1 + 0.01 * seed, 0.2, 0.3, 0.5])
            runs.append(run)
    noisy = {"distance": 0.4, "low": 0.1, "high": 0.7, "noisy": True}
    record_result(
        store,
        Measurement(kind="objective_distance", run=runs[0]),
        {**noisy, "cosines": [0.6], "common": noisy},
    )
    record_distance(store, runs[3], [0.2])
    save_sweep(store, "toy", runs)
    page = render(gather(open_store(store.root, sweep="toy"), "toy", "", "", None), MADE)
    assert "1 of 3 conditions have no measured distance" in page
    assert "1 hollow: the distance is noisy" in page


def test_width_is_drawn_where_it_is_not_steepness(page: str, data: ReportData) -> None:
    label = "Width of the profile per model and objective, standard training"
    assert label not in charts(page)
    assert re.search(r"rank correlation over the conditions is -(1\.000|0\.9\d\d)", page)
    assert label in charts(render(replace(data, width_like_steepness=-0.4), MADE))
    unknown = render(replace(data, width_like_steepness=float("nan")), MADE)
    assert "from three conditions on" in unknown
    assert label not in charts(unknown)


@pytest.mark.slow
def test_associations_name_their_unit(page: str, tmp_path: Path) -> None:
    assert "4 models are too few" in page
    store = plant_verdicts(tmp_path / "store", models=12)
    wide = render(gather(open_store(store.root, sweep="verdicts"), "v", "", "", None), MADE)
    assert "Explained by family: every model has a family of its own" in wide
    assert re.search(r"xplained by objective: [^;]* models, permutation p = ", wide)
    assert "(objective given model)" in wide
    assert "(objective given model)" in wide


def test_the_header_says_what_intervals_are(page: str) -> None:
    assert "95 % t-intervals over seeds" in page
    assert "bootstrap" not in page[: page.index("<script")]


def test_the_slopes_table_has_every_number_a_slope_needs(page: str) -> None:
    head = re.findall(r"<th[^>]*>(.*?)</th>", page[page.index("<h2>Slopes") :])[:13]
    assert head[4:] == [
        *("slope [95 %]", "over g", "centre", "last quarter", "Theil–Sen", "block left out"),
        *("d₀", "dose", "note"),
    ]


def test_arms_beyond_the_colours_have_dashes_of_their_own() -> None:
    few, many = (pl.DataFrame({"arm": [f"arm {k}" for k in range(n)]}) for n in (4, 10))
    assert arm_dash(few) == {}
    scale = arm_dash(many)["strokeDash"].to_dict()["scale"]
    assert len(scale["domain"]) == len(scale["range"]) == 10
    assert scale["range"][0] == scale["range"][3] != scale["range"][4] != scale["range"][8]
