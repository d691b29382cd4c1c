"""What the page says of models whose depth is a loop: what the turns of a block share."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest
from planted_store import run_spec, save_sweep, write_run

from sweeps.reading.tables import open_store
from sweeps.report.charts.calls import turn_charts
from sweeps.report.data import ReportData, gather
from sweeps.report.page import render
from sweeps.store.store import Store

MADE = datetime(2026, 11, 26, tzinfo=UTC)
PROFILE = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]


def share(block: int, earlier: int, later: int, seed: int) -> float:
    return 0.9 - 0.1 * (later - earlier) - 0.05 * block + 0.01 * (seed - 1)


def planted(root: Path, seeds: int, calls: list[int]) -> ReportData:
    store = Store.at(str(root / "store"))
    runs = []
    for control in ("standard", "equal_step"):
        for seed in range(seeds):
            run = run_spec("looped", "clm", control, seed)
            less = 0.0 if control == "standard" else 0.1
            write_run(
                store,
                run,
                PROFILE,
                calls=calls,
                overlaps=lambda *turns, s=seed, d=less: share(*turns, s) - d,
            )
            plain = run_spec("opt", "clm", control, seed)
            write_run(store, plain, PROFILE)
            runs += [run, plain]
    save_sweep(store, "loops", runs)
    return gather(open_store(store.root, sweep="loops"), "loops", "", "", None)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> ReportData:
    return planted(tmp_path_factory.mktemp("loops"), 3, [1, 2] * 3)


def test_each_pair_of_turns_has_its_mean_over_seeds_with_an_interval(data: ReportData) -> None:
    table = data.tables["turns"]
    assert set(table["model"]) == {"looped"}
    for row in table.to_dicts():
        less = 0.0 if row["arm"] == "standard" else 0.1
        turns = row["block_number"], row["iteration"], row["later_iteration"]
        assert row["value"] == pytest.approx(share(*turns, 1) - less)
        # t(0.975, 2)·s/√3 of three seeds that are 0.01 apart.
        assert row["high"] - row["value"] == pytest.approx(4.3027 * 0.01 / 3**0.5, rel=1e-3)
        assert (row["n"], row["before"], row["rank_95"]) == (3, 0.5, 3.0)
    # Of each arm two blocks of three turns.
    assert table.height == 2 * 2 * 3


def test_a_chart_an_arm_and_block_has_the_rows_of_that_block(data: ReportData) -> None:
    charts = turn_charts(data)
    assert [(chart.only["arm"], chart.only["loop"]) for chart in charts] == [
        (arm, block) for arm in ("standard", "equal_step") for block in ("block 1", "block 2")
    ]
    for chart in charts:
        rows = data.tables[chart.table].filter(
            pl.all_horizontal(pl.col(name) == value for name, value in chart.only.items())
        )
        assert rows.select("iteration", "later_iteration").rows() == [(0, 1), (0, 2), (1, 2)]
    page = render(data, MADE)
    assert "What the turns of a block have in common" in page
    held = json.loads(page.split('id="report-data">')[1].split("</script>")[0])
    assert held["tables"]["turns"]["length"] == 12


def test_of_fewer_than_three_seeds_there_is_no_interval(tmp_path: Path) -> None:
    table = planted(tmp_path, 2, [1] * 6).tables["turns"]
    assert table.height == 2 * 15
    assert table["low"].null_count() == table.height
    assert table["value"].null_count() == 0
    assert set(table["loop"]) == {"block 1"}


def test_a_sweep_without_loops_says_nothing_of_turns(tmp_path: Path) -> None:
    store = Store.at(str(tmp_path / "store"))
    write_run(store, run_spec("opt"), PROFILE)
    save_sweep(store, "plain", [run_spec("opt")])
    data = gather(open_store(store.root, sweep="plain"), "plain", "", "", None)
    assert turn_charts(data) == []
    assert "turns of a block" not in render(data, MADE)
