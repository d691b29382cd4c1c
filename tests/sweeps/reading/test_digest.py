"""Digests tell stores apart by their rows and by nothing else."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import polars as pl
from planted_store import evaluated, run_spec, save_sweep, write_run

from sweeps.reading.digest import _digest, digests
from sweeps.reading.tables import open_store
from sweeps.store.store import Store

RUNS = [evaluated(run_spec("gpt2", seed=seed)) for seed in (0, 1)]


def made(place: Path, runs: list = RUNS, profile: float = 0.3) -> dict[str, str]:
    store = Store.at(str(place))
    for run in runs:
        write_run(store, run, [0.1, profile if run.seed else 0.3], deleted=[[0.1, 0.2]] * 3)
    save_sweep(store, "toy", runs)
    return {each.table: each.sha256 for each in digests(open_store(place, sweep="toy"))}


def test_equal_rows_in_another_order_of_writing_have_equal_digests(tmp_path: Path) -> None:
    assert made(tmp_path / "a") == made(tmp_path / "b", RUNS[::-1])


def test_one_value_that_differs_in_its_last_bit_changes_its_table_alone(tmp_path: Path) -> None:
    first = made(tmp_path / "a")
    second = made(tmp_path / "b", profile=float(np.nextafter(0.3, 1)))
    assert {table for table in first if first[table] != second[table]} == {"profiles"}


def test_a_run_that_is_missing_changes_every_table(tmp_path: Path) -> None:
    first = made(tmp_path / "a")
    shutil.rmtree(Store.at(str(tmp_path / "a")).run(RUNS[1].run_id).path)
    after = {each.table: each for each in digests(open_store(tmp_path / "a", sweep="toy"))}
    assert all(after[table].sha256 != first[table] for table in first)
    assert after["runs"].rows == 2
    assert after["profiles"].rows == after["steps"].rows / 20 * 2 * 3


def test_a_null_is_not_a_zero() -> None:
    one, other = (
        _digest("t", pl.DataFrame({"x": [1.0, last]}, schema={"x": pl.Float64}))
        for last in (None, 0.0)
    )
    assert one.rows == other.rows
    assert one.sha256 != other.sha256


def test_a_column_that_a_store_of_before_has_not_is_in_no_digest() -> None:
    before = pl.DataFrame({"x": [1.0, 2.0]})
    texts = pl.Series([None, None], dtype=pl.String)
    added = before.with_columns(stack=texts)
    assert _digest("t", added) == _digest("t", before)
    told = before.with_columns(stack=pl.Series([None, "decoder"]))
    assert _digest("t", told) != _digest("t", before)
    other = before.with_columns(anything_else=texts)
    assert _digest("t", other) != _digest("t", before)


def test_lists_count_by_their_numbers_and_by_where_each_ends() -> None:
    def of(*rows: list[float | None] | None) -> str:
        return _digest("t", pl.DataFrame({"x": rows}, schema={"x": pl.List(pl.Float32)})).sha256

    different = [
        ([1.0, 2.0], [3.0]),
        ([1.0], [2.0, 3.0]),
        ([1.0, 2.0], [4.0]),
        ([1.0, 2.0], None),
        ([1.0, 2.0], []),
        ([1.0, 2.0], [None]),
        ([1.0, 2.0], [0.0]),
    ]
    assert len({of(*rows) for rows in different}) == len(different)
    assert of([1.0, 2.0], [3.0]) == of([1.0, 2.0], [3.0])
