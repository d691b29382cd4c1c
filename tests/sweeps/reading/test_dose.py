"""How unevenly a run's steps were spread, against a sum written out; and when it is computed."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from planted_store import run_spec, unsay_dose, write_run
from scipy import stats

from sweeps.attempts.dose import dose_of as in_closing_record
from sweeps.errors import UserError
from sweeps.files.whole_files import read_json, write_json
from sweeps.findings.claim_spec import Measure
from sweeps.reading import tables as tables_module
from sweeps.reading.closings import add_to_index
from sweeps.reading.digest import digests
from sweeps.reading.query import query
from sweeps.reading.run_table import RUN_COLUMNS
from sweeps.reading.tables import Tables, open_store
from sweeps.statistics.profiles import measure
from sweeps.store.run_folder import RunFolder
from sweeps.store.schema import ADDED_TABLES, TABLES
from sweeps.store.store import Store

PROFILE = [0.1, 0.2, 0.3]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.at(str(tmp_path / "store"))


def change_layers(folder: RunFolder, change: pl.Expr | None = None, kept: pl.Expr | None = None):
    unsay_dose(folder)
    for part in folder.parts("layers"):
        rows = pl.read_parquet(part)
        rows = rows if kept is None else rows.filter(kept)
        (rows if change is None else rows.with_columns(change)).write_parquet(part)


def dose_of(store: Store) -> tuple[float | None, float | None]:
    runs = open_store(store.root).runs().select("dose", "dose_slope").collect()
    assert runs.height == 1
    return runs.row(0)


def test_a_dose_is_the_sum_over_steps_written_out(store: Store) -> None:
    folder = write_run(store, run_spec(steps=30), PROFILE)
    unsay_dose(folder)
    norms = np.random.default_rng(0).uniform(0.5, 2, (30, 5, 2))
    for part in folder.parts("layers"):
        rows = pl.read_parquet(part)
        drawn = norms[rows["step"].to_numpy() - 1, rows["layer"].to_numpy()]
        rows.with_columns(
            update_norm=pl.Series(drawn[:, 0]), weight_norm=pl.Series(drawn[:, 1])
        ).write_parquet(part)
    sizes = [
        math.sqrt(sum((norms[t, block, 0] / norms[t, block, 1]) ** 2 for t in range(30)))
        for block in (1, 2, 3)  # neither the embedding, 0, nor the head, 4
    ]
    slope = stats.linregress([1 / 3, 2 / 3, 1], np.log2(sizes)).slope
    dose, dose_slope = dose_of(store)
    assert dose == pytest.approx(max(sizes) / min(sizes), rel=1e-8)
    assert dose_slope == pytest.approx(slope, rel=1e-9)


def test_of_recorded_steps_each_counts_as_often_as_it_covers_steps(store: Store) -> None:
    run = run_spec(steps=30).model_copy(update={"record_every": 7})
    folder = write_run(store, run, PROFILE)
    unsay_dose(folder)
    norms = np.random.default_rng(1).uniform(0.5, 2, (31, 5))
    for part in folder.parts("layers"):
        rows = pl.read_parquet(part)
        drawn = norms[rows["step"].to_numpy(), rows["layer"].to_numpy()]
        rows.with_columns(update_norm=pl.Series(drawn), weight_norm=pl.lit(1.0)).write_parquet(part)
    times = {1: 1, 7: 6, 10: 3, 14: 4, 20: 6, 21: 1, 28: 7, 30: 2}
    assert sum(times.values()) == 30
    sizes = [
        math.sqrt(sum(often * norms[step, block] ** 2 for step, often in times.items()))
        for block in (1, 2, 3)
    ]
    slope = stats.linregress([1 / 3, 2 / 3, 1], np.log2(sizes)).slope
    expected = (pytest.approx(max(sizes) / min(sizes), rel=1e-8), pytest.approx(slope, rel=1e-8))
    assert dose_of(store) == expected
    told = in_closing_record(pq.read_table(part) for part in folder.parts("layers"))
    assert told is not None
    assert (told["dose"], told["dose_slope"]) == expected


def test_equal_steps_are_a_dose_of_one(store: Store) -> None:
    write_run(store, run_spec(control="equal_step"), PROFILE, ratios=[1e-3] * 3)
    assert dose_of(store) == (pytest.approx(1), pytest.approx(0, abs=1e-9))


def test_one_block_has_a_dose_and_no_slope(store: Store) -> None:
    write_run(store, run_spec(), [0.1])
    assert dose_of(store) == (1.0, None)


@pytest.mark.parametrize(
    "harm",
    [
        {"kept": pl.col("layer") != 2},
        {"kept": pl.col("layer") != 3},
        {"kept": pl.col("layer") != 1},
        {
            "change": pl.when(layer=2, step=7)
            .then(0.0)
            .otherwise("weight_norm")
            .alias("weight_norm")
        },
        {"change": pl.when(layer=2).then(0.0).otherwise("update_norm").alias("update_norm")},
        {
            "change": pl.when(layer=1, step=3)
            .then(None)
            .otherwise("update_norm")
            .alias("update_norm")
        },
        {
            "change": pl.when(layer=1, step=3)
            .then(math.nan)
            .otherwise("update_norm")
            .alias("update_norm")
        },
    ],
    ids=["middle", "last", "first", "no weight", "no step", "null", "nan"],
)
def test_a_block_without_row_weight_or_step_leaves_no_dose(store: Store, harm) -> None:
    folder = write_run(store, run_spec(), PROFILE)
    assert None not in dose_of(store)
    change_layers(folder, **harm)
    assert dose_of(store) == (None, None)


def test_doses_are_of_runs_that_count_and_of_running_ones_on_request(store: Store) -> None:
    write_run(store, run_spec(seed=0), PROFILE)
    write_run(store, run_spec(seed=1), PROFILE, status="diverged", stop=10)
    write_run(store, run_spec(seed=2), PROFILE, status=None, stop=10)
    for running, known in ((False, [True, True, False]), (True, [True] * 3)):
        runs = open_store(store.root, include_running=running).runs().sort("seed").collect()
        assert runs["dose"].is_not_null().to_list() == known


@pytest.fixture
def counted(store: Store, monkeypatch: pytest.MonkeyPatch) -> tuple[Tables, list[int]]:
    """Tables of two runs, and a list that grows whenever doses are computed."""
    for seed, low in ((0, 1e-3), (1, 5e-4)):
        ratios = [low, 1e-3, 1e-3]
        run = run_spec(seed=seed)
        unsay_dose(write_run(store, run, PROFILE, ratios=ratios, deleted=[PROFILE] * 2))
    times: list[int] = []
    doses = tables_module.doses
    monkeypatch.setattr(tables_module, "doses", lambda *given: (times.append(1), doses(*given))[1])
    return open_store(store.root), times


def test_only_a_question_that_names_a_dose_reads_the_layers(counted) -> None:
    tables, times = counted
    assert len(list(digests(tables))) == 1 + len(TABLES) - len(ADDED_TABLES)
    query(tables, "SELECT model, status, count(*) AS n FROM runs WHERE seed = 1 GROUP BY ALL")
    query(tables, "SELECT count(*) FROM runs")
    for name, frame in tables.by_name().items():
        if name != "runs":
            assert "dose" not in frame.collect().columns
    assert times == []
    answer = query(tables, "SELECT seed, dose FROM runs WHERE dose > 1.5 ORDER BY seed")
    assert answer.rows() == [(1, pytest.approx(2))]
    assert query(tables, "SELECT seed FROM runs WHERE dose < 1.5")["seed"].to_list() == [0]
    assert list(tables.runs().collect().columns) == list(RUN_COLUMNS)
    assert query(tables, "SELECT * FROM runs LIMIT 1").height == 1
    assert times == [1]


def test_profiles_and_claims_know_doses(counted) -> None:
    profiles = measure(counted[0])
    assert profiles.runs.sort("seed")["dose"].to_list() == [pytest.approx(1), pytest.approx(2)]
    where = {"dose": {"at_least": 1.5}}
    assert Measure(statistic="slope", reduce="mean", where=where).where.keys() == {"dose"}


def test_a_missing_part_is_named_by_who_asks_for_a_dose(store: Store) -> None:
    folder = write_run(store, run_spec(), PROFILE)
    unsay_dose(folder)
    folder.parts("layers")[0].unlink()
    tables = open_store(store.root)
    assert tables.runs().select("model").collect().height == 1
    with pytest.raises(UserError, match="is missing though DONE"):
        tables.runs().select("dose").collect()


@pytest.mark.parametrize("blocks", [1, 2, 7])
def test_a_closing_record_says_what_its_rows_do(store: Store, blocks: int, monkeypatch) -> None:
    ratios = [1e-3 * (1 + (3 * i) % blocks) for i in range(blocks)]
    folder = write_run(store, run_spec(), [0.1] * blocks, ratios=ratios)
    add_to_index(store, [folder.run_id])
    monkeypatch.setattr(tables_module, "doses", None)  # no row is asked
    told = dose_of(store)
    monkeypatch.undo()
    unsay_dose(folder)
    assert dose_of(store) == told


@pytest.mark.parametrize("layers", [3, 5])
def test_a_dose_over_less_than_all_blocks_is_none(store: Store, layers: int) -> None:
    folder = write_run(store, run_spec(), PROFILE)
    record = read_json(folder.path / "run.json")
    record["facts"]["layers"] = layers
    write_json(folder.path / "run.json", record)
    assert (dose_of(store)[0] is None) == (layers != len(PROFILE))


@pytest.mark.parametrize(
    ("column", "value"),
    [("weight_norm", 0.0), ("update_norm", 0.0), ("update_norm", math.nan), ("layer", 7)],
)
def test_a_closing_record_says_that_a_run_has_no_dose(column: str, value: float) -> None:
    rows = {"layer": [1, 2], "group": ["block"] * 2, "update_norm": [1.0, 2.0]}
    sound = pa.table({**rows, "weight_norm": [1.0, 1.0]})
    said = in_closing_record([sound, sound])
    assert said is not None
    assert (said["dose"], said["dose_slope"], said["blocks"]) == (2, 2, 2)
    wrong = {**sound.to_pydict(), column: [sound[column][0].as_py(), value]}
    assert in_closing_record([pa.table(wrong)]) is None


def test_a_run_of_two_stacks_has_no_one_dose_in_its_closing_record() -> None:
    stacks = {"stack": ["encoder", "decoder"], "layer": [1, 1], "group": ["block"] * 2}
    rows = {**stacks, "update_norm": [1.0, 2.0], "weight_norm": [1.0, 1.0]}
    assert in_closing_record([pa.table(rows)]) is None


def test_what_a_study_freezes_is_no_part_of_the_dose(store: Store) -> None:
    """Of three blocks the first is frozen: the ratio is of the two that are controlled."""
    run = run_spec()
    source = run.model.source.model_copy(update={"freeze": ("blocks 1",)})
    frozen = run.model_copy(update={"model": run.model.model_copy(update={"source": source})})
    for one in (run, frozen):
        folder = write_run(store, one, PROFILE, ratios=[9e-3, 1e-3, 2e-3])
        unsay_dose(folder)
        for part in folder.parts("layers"):
            pl.read_parquet(part).filter(pl.col("layer") != 1).write_parquet(part)
    runs = open_store(store.root).runs().select("run_id", "dose").collect()
    assert dict(runs.iter_rows()) == {run.run_id: None, frozen.run_id: pytest.approx(2)}


def test_a_closing_record_leaves_the_dose_of_frozen_layers_to_its_readers(store: Store) -> None:
    run = run_spec()
    source = run.model.source.model_copy(update={"freeze": ("head",)})
    frozen = run.model_copy(update={"model": run.model.model_copy(update={"source": source})})
    done = write_run(store, frozen, PROFILE).done()
    assert done is not None
    assert "dose" not in done
    assert None not in dose_of(store)
