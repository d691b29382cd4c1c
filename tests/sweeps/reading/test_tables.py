"""The tables of a store: what counts, what is joined, and who else can read the files."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import duckdb
import pandas as pd
import polars as pl
import pytest
from planted_measurements import record_distance
from planted_store import run_spec, save_sweep, write_run

from sweeps.errors import UserError
from sweeps.files.whole_files import write_json
from sweeps.reading.tables import RUN_COLUMNS, open_store, polars_schema
from sweeps.store.schema import TABLES
from sweeps.store.store import Store

RISING = [0.1, 0.2, 0.3, 0.4]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.at(str(tmp_path / "store"))


def test_rows_carry_the_columns_of_their_run(store: Store) -> None:
    run = run_spec("gpt2", "classification", "equal_step", seed=3)
    write_run(store, run, RISING)
    tables = open_store(store.root)
    profiles = tables.profiles().collect()
    assert profiles.height == 2 * 5
    row = profiles.row(0, named=True)
    assert (row["model"], row["objective"], row["control"]) == (
        "gpt2",
        "classification",
        "equal_step",
    )
    assert (row["seed"], row["target"], row["block"]) == (3, "mean", "sequential")
    assert (row["width"], row["model_width"], row["model_layers"]) == (768, 768, 4)
    assert tables.steps().collect().height == 20
    assert tables.layers().collect().height == 20 * 6
    assert tables.attempts().select("cause", "seconds", "model").collect().rows() == [
        ("finished", 60.0, "gpt2")
    ]


@pytest.mark.parametrize("table", sorted(TABLES))
def test_no_column_of_runs_collides_with_one_of_a_table(table: str) -> None:
    assert not (set(RUN_COLUMNS) - {"run_id"}) & set(TABLES[table].names)


def test_only_parts_that_a_closing_record_lists_are_read(store: Store) -> None:
    write_run(store, run_spec(seed=0), RISING)
    write_run(store, run_spec(seed=1), RISING, status="diverged", stop=10)
    write_run(store, run_spec(seed=2), RISING, status="failed", stop=10)
    write_run(store, run_spec(seed=3), RISING, status=None, stop=10)
    stray = write_run(store, run_spec(seed=4), RISING, status="diverged", stop=10)
    (whole,) = stray.parts("steps")
    whole.with_name("part-000010-000020.a2-ffffffff.parquet").write_bytes(whole.read_bytes())
    counted = open_store(store.root).steps().group_by("seed").len().sort("seed").collect()
    assert counted.rows() == [(0, 20), (1, 10), (4, 10)]
    running = open_store(store.root, include_running=True).steps().group_by("seed").len()
    assert running.sort("seed").collect().rows() == [(0, 20), (1, 10), (3, 10), (4, 10)]
    statuses = open_store(store.root).runs().sort("seed").collect()["status"].to_list()
    assert statuses == ["finished", "diverged", "failed", "unfinished", "diverged"]


def test_a_sweep_restricts_the_runs_and_knows_those_not_started(store: Store) -> None:
    mine, pending, other = run_spec(seed=0), run_spec(seed=1), run_spec(seed=2)
    write_run(store, mine, RISING)
    write_run(store, other, RISING)
    save_sweep(store, "mine", [mine, pending])
    tables = open_store(store.root, sweep="mine")
    assert tables.runs().select("seed", "status").collect().rows() == [
        (0, "finished"),
        (1, "pending"),
    ]
    assert tables.profiles().select(pl.col("seed").unique()).collect()["seed"].to_list() == [0]
    with pytest.raises(UserError, match="did you mean 'mine'"):
        open_store(store.root, sweep="mime")


def test_an_empty_store_gives_empty_typed_frames(store: Store) -> None:
    save_sweep(store, "planned", [run_spec()])
    tables = open_store(store.root)
    for name, frame in tables.by_name().items():
        assert frame.collect().height == 0, name
    schema = tables.layers().collect_schema()
    assert schema["update_norm"] == pl.Float64
    assert schema["seed"] == pl.Int64


def test_what_is_no_store_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such folder"):
        open_store(tmp_path / "nowhere")
    with pytest.raises(UserError, match="is no store"):
        open_store(tmp_path)


def test_a_listed_part_that_is_missing_is_named(store: Store) -> None:
    folder = write_run(store, run_spec(), RISING)
    part = folder.parts("layers")[0]
    part.unlink()
    with pytest.raises(UserError, match=rf"layers/{part.name} is missing"):
        open_store(store.root).layers()


def test_a_record_of_another_version_is_named(store: Store) -> None:
    folder = write_run(store, run_spec(), RISING)
    write_json(folder.path / "run.json", {"spec": {"colour": "red"}, "facts": {}})
    with pytest.raises(UserError, match=r"run.json: not the record"):
        open_store(store.root).runs()


def test_a_part_written_before_a_column_existed_still_counts(store: Store) -> None:
    old, _ = (write_run(store, run_spec(seed=seed), RISING) for seed in range(2))
    part = old.parts("profiles")[0]
    pl.read_parquet(part).drop("procrustes_null").write_parquet(part)
    profiles = open_store(store.root).profiles().collect()
    assert profiles.height == 20
    unknown = profiles.filter(pl.col("procrustes_null").is_null())
    assert unknown["run_id"].unique().to_list() == [old.run_id]
    assert unknown.height == 10


@pytest.mark.parametrize("name", ["st[1]", "s*", "s?", "step=3", "a b%20c", "{a,b}"])
def test_a_store_is_read_from_the_path_it_has(tmp_path: Path, name: str) -> None:
    for other in ("st1", "st", "sx", "a", "b"):
        write_run(Store(tmp_path / other), run_spec(seed=9), RISING)
    store = Store(tmp_path / name)
    for seed in range(2):
        write_run(store, run_spec(seed=seed), RISING)
    for table in (open_store(store.root).profiles(), open_store(str(store.root)).profiles()):
        found = table.collect()
        assert sorted(found["seed"].unique()) == [0, 1]
        assert sorted(found["step"].unique()) == [10, 20]


def test_duckdb_and_pandas_read_the_files_as_they_are(store: Store) -> None:
    for seed in range(3):
        write_run(store, run_spec(seed=seed), RISING)
    ours = (
        open_store(store.root)
        .profiles()
        .group_by("run_id")
        .agg(pl.col("procrustes").mean())
        .sort("run_id")
        .collect()
        .rows()
    )
    pattern = str(store.root / "runs" / "*" / "profiles" / "*.parquet")
    theirs = duckdb.sql(
        f"SELECT run_id, avg(procrustes) FROM '{pattern}' GROUP BY ALL ORDER BY ALL"
    ).fetchall()
    assert ours == [(run, pytest.approx(value)) for run, value in theirs]
    parts = sorted(store.root.glob("runs/*/profiles/*.parquet"))
    frame = pd.concat([pd.read_parquet(part) for part in parts])
    means = frame.groupby("run_id")["procrustes"].mean()
    assert ours == [(run, pytest.approx(value)) for run, value in means.items()]
    assert polars_schema(TABLES["profiles"]).names() == list(frame.columns)


def test_objective_distance_is_joined_to_every_run_of_its_model_and_objective(store: Store) -> None:
    standard, controlled = run_spec(seed=0), run_spec(seed=1, control="equal_step")
    other = run_spec(objective="classification")
    for run in (standard, controlled, other):
        write_run(store, run, RISING)
    record_distance(store, standard, [0.5, 0.7])
    runs = open_store(store.root).runs().sort("objective", "seed").collect()
    assert runs["objective_distance"].to_list() == [None, pytest.approx(0.4), pytest.approx(0.4)]


def test_the_short_import_loads_polars_only_when_used() -> None:
    code = (
        "import sys, sweeps.store.store; assert 'polars' not in sys.modules;"
        "from sweeps import open_store; assert 'polars' in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
