"""``depthsweep query`` as a user calls it."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest
from planted_store import run_spec, save_sweep, write_run

from sweeps.store.store import Store
from tests.orchestrator.command_line import typed


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    store = Store.at(str(tmp_path_factory.mktemp("cli") / "store"))
    write_run(store, run_spec("gpt2"), [0.1, 0.3])
    write_run(store, run_spec("opt"), [0.1, 0.5])
    save_sweep(store, "toy", [run_spec("gpt2"), run_spec("opt")])
    return store.root


SQL = "SELECT model, control, max(procrustes) AS d FROM profiles GROUP BY ALL ORDER BY d"


def test_the_answer_is_a_table_that_fits_the_page(store: Path) -> None:
    done = typed("query", SQL, "--store", str(store))
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "model  control     d",
        "gpt2   standard  0.3",
        "opt    standard  0.5",
        "(2 rows)",
    ]


def test_other_formats_and_files(store: Path, tmp_path: Path) -> None:
    done = typed("query", SQL, "--store", str(store), "--format", "json")
    assert [row["model"] for row in json.loads(done.stdout)] == ["gpt2", "opt"]
    target = tmp_path / "answer.parquet"
    done = typed("query", SQL, "--store", str(store), "-o", str(target))
    assert done.returncode == 0, done.stderr
    assert pl.read_parquet(target)["d"].to_list() == [0.3, 0.5]


def test_a_wrong_query_is_one_line_with_the_nearest_name(store: Path) -> None:
    done = typed("query", "SELECT nope FROM runs", "--store", str(store))
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert "no column 'nope' in runs; did you mean" in done.stderr


def test_a_store_that_is_not_there_is_a_users_mistake(tmp_path: Path) -> None:
    done = typed("query", "SELECT 1", "--store", str(tmp_path / "gone"))
    assert done.returncode == 2
    assert "no such folder" in done.stderr


def test_a_file_in_a_folder_that_is_not_there_is_refused_with_what_to_do(
    store: Path, tmp_path: Path
) -> None:
    done = typed("query", SQL, "--store", str(store), "-o", str(tmp_path / "no" / "x.txt"))
    assert done.returncode == 2
    assert f"there is no folder {tmp_path / 'no'}; make it first" in done.stderr
