"""What the page of a study of alignment says of it."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from statistics import fmean

import pytest
from planted_store import run_spec, save_sweep, write_run
from planted_verdicts import ALIGNMENT, plant_alignment

from sweeps.findings.alignment.outcomes import IN_WORDS, alignment_table
from sweeps.reading.tables import Tables, open_store
from sweeps.report.alignment_text import alignment_text
from sweeps.report.book import Book
from sweeps.report.charts.alignment import alignment_chart
from sweeps.report.data import ReportData, gather
from sweeps.report.page import render
from sweeps.report.sections.alignment import alignment_section, outcome_sentence
from sweeps.statistics.profiles import measure_each
from sweeps.store.store import Store

MADE = datetime(2026, 11, 26, tzinfo=UTC)


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Tables:
    return plant_alignment(tmp_path_factory.mktemp("alignment"), ALIGNMENT)


@pytest.fixture(scope="module")
def data(tables: Tables) -> ReportData:
    return gather(tables, "planted", "", "", None, switch=False)


def test_the_outcome_is_said_in_one_sentence_with_its_seeds(data: ReportData) -> None:
    table = data.tables["alignment"]
    for model in ALIGNMENT:
        said = outcome_sentence(table.filter(model=model))
        assert said == f"Under equal_step ({model}, clm, 5 seeds): {IN_WORDS[model]}."
    assert outcome_sentence(table).endswith("; so it is in 1 of 4 comparisons.")
    assert outcome_sentence(table) in render(data, MADE)


def test_each_condition_has_its_numbers_with_intervals(data: ReportData) -> None:
    page = alignment_section(data, Book())
    for row in data.tables["alignment"].to_dicts():
        assert f"{row['degradation']:.3f} [{row['degradation_low']:.3f}" in page
        assert f"{row['slope_change']:.3f} [{row['slope_change_low']:.3f}" in page
        assert row["outcome"].replace("_", " ") in page


@pytest.mark.parametrize("width", [80, 140])
def test_as_text_a_condition_has_its_outcome_and_both_changes(tables: Tables, width: int) -> None:
    table = alignment_table(measure_each(tables, ["procrustes"])["procrustes"], "equal_step")
    shown = alignment_text(table, "equal_step", "standard", width)
    assert max(map(len, shown.splitlines())) <= width
    for row in table.to_dicts():
        assert f"{row['degradation_change']:.3f} [{row['degradation_change_low']:.3f}" in shown
        assert f"{row['slope_change']:.3f} [{row['slope_change_low']:.3f}" in shown
        assert f"{row['outcome']}: {IN_WORDS[row['outcome']]}" in shown


def test_a_chart_beside_the_sentence_has_every_pair_of_seeds(data: ReportData) -> None:
    chart = alignment_chart(data)
    assert chart is not None
    drawn = json.dumps(chart.spec)
    for row in data.tables[chart.table].to_dicts():
        pairs = row["seed_slope_change"], row["seed_degradation_change"]
        assert [len(values) for values in pairs] == [row["n"], row["n"]]
        for values, name in zip(pairs, ("slope_change", "degradation_change"), strict=True):
            assert fmean(values) == pytest.approx(row[name])
    assert all(f"{name}_low" in drawn for name in ("slope_change", "degradation_change"))
    page = render(data, MADE)
    assert chart.label in page
    assert page.index(chart.label) > page.index(outcome_sentence(data.tables["alignment"]))


def test_a_sweep_that_asks_no_prompts_has_no_such_section(tmp_path: Path) -> None:
    store = Store.at(str(tmp_path / "store"))
    runs = [run_spec("m", "clm", control, 0) for control in ("standard", "equal_step")]
    for run in runs:
        write_run(store, run, lambda x: 0.1 + 0.2 * x)
    save_sweep(store, "plain", runs)
    data = gather(open_store(store.root, sweep="plain"), "plain", "", "", None, switch=False)
    assert alignment_section(data, Book()) == ""
    assert alignment_chart(data) is None
