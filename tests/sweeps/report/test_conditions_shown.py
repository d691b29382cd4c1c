"""No condition of a sweep is hidden on its page, or drawn with another, by the page's own data."""

from __future__ import annotations

import json
import re
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from planted_store import run_spec, save_sweep, write_run
from planted_verdicts import KEPT_BY_SETTING, plant_settings

from sweeps.declaration.expand import Sweep, read_sweep
from sweeps.reading.tables import open_store
from sweeps.report.data import ReportData, gather
from sweeps.report.page import render
from sweeps.spec import LayerClip, RunSpec
from sweeps.statistics.conditions import condition_columns, everyone
from sweeps.statistics.profiles import measure
from sweeps.store.store import Store

MADE = datetime(2026, 1, 2, tzinfo=UTC)
REPLICA = Path(__file__).parents[3] / "sweeps" / "library" / "replica-verdicts.yaml"
Rows = list[dict[str, Any]]


class Page:
    """A page, taken apart as its script does."""

    def __init__(self, data: ReportData) -> None:
        found = re.search(r'id="report-data">(.*?)</script>', render(data, MADE), re.S)
        assert found is not None
        self.content = json.loads(found[1])
        self.view = self.content["views"][0]

    def rows(self, table: str, only: dict[str, Any]) -> Rows:
        """Return the rows of a table that a chart with these values draws at first."""
        stored = self.content["tables"][table]
        columns = {}
        for name, column in stored["columns"].items():
            if isinstance(column, list):
                columns[name] = column
            elif "same" in column:
                columns[name] = [column["same"]] * stored["length"]
            else:
                names = column["names"]
                columns[name] = [None if code is None else names[code] for code in column["codes"]]
        wanted = {"view": self.view["name"], "metric": self.view["metric"], **only}
        rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
        return [row for row in rows if all(row.get(k, v) == v for k, v in wanted.items())]

    def charts(self, table: str, label: str) -> list[dict[str, Any]]:
        return [
            one
            for one in self.content["charts"]
            if one["table"] == table and one["label"].startswith(label)
        ]


def require_all_shown(store: Store, name: str) -> Page:
    """Assert that every condition is drawn, once, and by itself; of any sweep."""
    tables = open_store(store.root, sweep=name)
    data = gather(tables, name, "", "", None)
    page = Page(data)
    profiles = measure(tables)
    keys = condition_columns(everyone(profiles))
    conditions = profiles.runs.select(keys).unique().height
    layers = profiles.blocks.group_by(keys).agg(pl.col("layer").n_unique())["layer"].sum()

    drawn: Counter[tuple[str, ...]] = Counter()
    points = 0
    for chart in page.charts("bands", "Change by depth"):
        rows = [row for row in page.rows("bands", chart["only"]) if row["layer"] > 0]
        points += len(rows)
        arms = Counter(row["arm"] for row in rows)
        drawn.update((*chart["only"].values(), arm) for arm in arms)
        for arm in arms:
            # One line: each block once, of as many seeds as its runs.
            line = [row for row in rows if row["arm"] == arm]
            assert sorted(row["layer"] for row in line) == list(range(1, len(line) + 1))
            assert all(len(row["seed_values"]) == row["n"] for row in line)
    assert len(drawn) == conditions
    assert set(drawn.values()) == {1}
    assert points == layers

    (slopes,) = page.charts("slopes", "Slope of change")
    rows = page.rows("slopes", slopes["only"])
    names = {(row["model"], row["condition"], row["arm"]) for row in rows}
    assert len(names) == conditions
    assert sum(row["n"] for row in rows) == profiles.runs.select("run_id", "stack").n_unique()
    cells = [
        (row["model"], row["condition"], row["arm"])
        for chart in page.charts("persistence", "What")
        for row in page.rows("persistence", chart["only"])
    ]
    controlled = everyone(profiles).filter(pl.col("control") != "standard")
    assert len(cells) == len(set(cells)) == controlled.select(keys).n_unique()
    # A condition is called the same everywhere.
    assert {name for name in names if name[2] != "standard"} <= set(cells)
    return page


def test_two_rates_and_two_schedules_are_four_conditions(tmp_path: Path) -> None:
    store = plant_settings(tmp_path / "store")
    page = require_all_shown(store, "settings")
    rows = page.rows("persistence", {})
    assert [row["condition"] for row in rows] == [
        f"clm · learning_rate {rate:g} · schedule {schedule}".replace("1e-04", "0.0001")
        for rate, schedule in KEPT_BY_SETTING
    ]
    kept = [row["kept_said"] for row in rows]
    assert kept == ["90 %", "2 %", "50 %", "-90 %"]
    # Each has its own panel of loss, and its own row of what was learned.
    losses = page.charts("curves", "Training loss")
    assert sorted(one["only"]["condition"] for one in losses) == sorted(
        row["condition"] for row in rows
    )


def test_every_control_is_compared_and_its_options_told_apart(tmp_path: Path) -> None:
    store = Store.at(str(tmp_path / "store"))
    controls: list[Any] = ["standard", "equal_step", *(LayerClip(max_norm=n) for n in (0.1, 0.5))]
    runs = [run_spec("m", control=control, seed=seed) for control in controls for seed in range(3)]
    for run in runs:
        write_run(store, run, [0.1 + 0.01 * run.seed, 0.2, 0.3, 0.4 + 0.02 * run.seed])
    save_sweep(store, "toy", runs)
    page = require_all_shown(store, "toy")
    arms = {row["arm"] for row in page.rows("slopes", {})}
    assert arms == {
        "standard",
        "equal_step",
        "layer_clip · max_norm 0.1",
        "layer_clip · max_norm 0.5",
    }
    assert next(iter(page.content["colours"]["arm"]["light"])) == "standard"
    assert len(set(page.content["colours"]["arm"]["light"].values())) == 4
    (panel,) = page.charts("bands", "Change by depth")
    assert {row["arm"] for row in page.rows("bands", panel["only"])} == arms
    # A chart of each kind for each control.
    assert len(page.charts("persistence", "Slope under")) == 3


def test_what_varies_under_one_control_alone_names_conditions_of_all(tmp_path: Path) -> None:
    store = Store.at(str(tmp_path / "store"))
    arms: list[tuple[Any, float]] = [("standard", 1e-3), ("equal_step", 1e-3)]
    arms += [(LayerClip(max_norm=0.1), 1e-3), (LayerClip(max_norm=0.1), 1e-4)]
    runs = [
        run_spec("m", control=control, seed=seed, learning_rate=rate)
        for control, rate in arms
        for seed in range(3)
    ]
    for run in runs:
        write_run(store, run, [0.1 + 0.01 * run.seed, 0.2, 0.3, 0.4 + 0.02 * run.seed])
    save_sweep(store, "toy", runs)
    page = require_all_shown(store, "toy")
    said = {(row["condition"], row["arm"], row["n"]) for row in page.rows("persistence", {})}
    assert said == {
        ("clm · learning_rate 0.001", "equal_step", 3),
        ("clm · learning_rate 0.001", "layer_clip", 3),
        ("clm · learning_rate 0.0001", "layer_clip", 0),
    }


@pytest.mark.slow
def test_the_replica_hides_nothing(tmp_path: Path) -> None:
    sweep: Sweep = read_sweep(REPLICA)
    store = Store.at(str(tmp_path / "store"))
    runs: list[RunSpec] = list(sweep.runs)
    for run in runs:
        slope = 0.3 + 0.01 * run.seed
        write_run(store, run, lambda x, s=slope: 0.1 + s * x, facts={"layers": 6})
    save_sweep(store, "replica-verdicts", runs)
    page = require_all_shown(store, "replica-verdicts")
    assert len(page.content["models"]) == 15
