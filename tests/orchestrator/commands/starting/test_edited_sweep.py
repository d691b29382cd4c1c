"""A store after its sweep was edited: what is asked, shown and listed of it, as a user calls it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from planted_store import run_spec, save_sweep, write_run

from orchestrator.cli import cli
from orchestrator.display.sweep_console import change_lines
from orchestrator.sweep_run import plan_sweep
from sweeps.declaration.expand import Sweep
from sweeps.errors import UserError
from sweeps.files.whole_files import remove_folder
from sweeps.spec import RunSpec
from sweeps.store.store import Store


def runs(steps: int, rates: tuple[float, ...] = (1e-3, 1e-4)) -> list[RunSpec]:
    return [
        run_spec(
            "a-model-of-a-rather-long-name",
            "classification",
            control,
            seed,
            steps=steps,
            probe_every=steps,
            learning_rate=rate,
        )
        for rate in rates
        for control in ("standard", "equal_step")
        for seed in (0, 1)
    ]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    store = Store.at(str(tmp_path_factory.mktemp("cli") / "store"))
    save_sweep(store, "other", [run_spec("other", steps=2, probe_every=2)])
    write_run(store, run_spec("other", steps=2, probe_every=2), [0.1, 0.2])
    for run in (*runs(4), *runs(2)):
        write_run(store, run, lambda x, k=run.optimizer.learning_rate: 0.1 + 100 * k * x)
    save_sweep(store, "mine", runs(4))
    # Of before there were versions: what the first one named was overwritten.
    remove_folder(store.version("mine").folder)
    save_sweep(store, "mine", runs(2))
    return store


def depthsweep(*arguments: str) -> Result:
    result = CliRunner().invoke(cli, list(arguments))
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


COUNT = "SELECT model, steps, learning_rate, count(*) AS n FROM runs GROUP BY ALL ORDER BY ALL"


def asked(store: Store, *arguments: str) -> list[dict[str, object]]:
    said = depthsweep("query", COUNT, "--store", str(store.root), "--format", "json", *arguments)
    rows: list[dict[str, object]] = json.loads(said.output)
    return rows


def test_a_query_is_about_the_sweep_that_ran_last(store: Store) -> None:
    assert [(row["steps"], row["learning_rate"], row["n"]) for row in asked(store)] == [
        (2, 1e-4, 4),
        (2, 1e-3, 4),
    ]
    assert asked(store) == asked(store, "--sweep", "mine")
    assert [row["model"] for row in asked(store, "--sweep", "other")] == ["other"]
    assert sum(int(str(row["n"])) for row in asked(store, "--all")) == 17


def test_all_and_one_sweep_are_two_questions(store: Store, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="give one of them"):
        depthsweep("query", COUNT, "--store", str(store.root), "--all", "--sweep", "mine")
    empty = Store.at(str(tmp_path))
    write_run(empty, run_spec(steps=2, probe_every=2), [0.1, 0.2])
    with pytest.raises(UserError, match="holds no sweep; --all"):
        depthsweep("query", COUNT, "--store", str(empty.root))


def test_runs_have_the_outcome_beside_the_settings(store: Store) -> None:
    sql = "SELECT learning_rate, final_loss, seconds, attempts FROM runs LIMIT 1"
    said = depthsweep("query", sql, "--store", str(store.root), "--format", "json").output
    assert json.loads(said) == [
        {"learning_rate": 1e-3, "final_loss": 1.5, "seconds": 60.0, "attempts": 1}
    ]
    sql = "SELECT count(*) AS n FROM steps WHERE scheduled_learning_rate = learning_rate"
    said = depthsweep("query", sql, "--store", str(store.root), "--format", "json").output
    assert json.loads(said) == [{"n": 16}]


def test_status_lists_runs_that_no_sweep_names(store: Store) -> None:
    page = depthsweep("status", "--store", str(store.root)).output
    assert "8 runs belong to no sweep of the store" in " ".join(page.split())
    assert max(map(len, page.splitlines())) <= 80
    for rate in ("0.001", "0.0001"):
        lines = [line.split() for line in page.splitlines() if f" {rate} " in line]
        assert [line[-1] for line in lines] == ["2", "2"]
    data = json.loads(depthsweep("status", "--store", str(store.root), "--json").output)
    strays = {run.run_id for run in runs(4)}
    assert {row["run_id"] for row in data["(no sweep)"]} == strays
    assert data["mine"][0]["settings"] == {"learning_rate": 1e-3}


def test_doctor_counts_them_and_finds_nothing_wrong(store: Store) -> None:
    result = depthsweep("doctor", "--store", str(store.root), "--json")
    assert set(json.loads(result.output)["no_sweep"]) == {run.run_id for run in runs(4)}
    result = depthsweep("doctor", "--store", str(store.root))
    assert "17 runs looked at, " in result.output
    assert result.output.rstrip().endswith("8 of no sweep")
    assert result.output.count("belongs to no sweep") == 8


def test_compare_keeps_the_verdict_and_the_swept_setting_at_80_columns(store: Store) -> None:
    page = depthsweep("compare", "mine", "--store", str(store.root)).output
    assert max(map(len, page.splitlines())) <= 80
    head = next(line for line in page.splitlines() if "verdict" in line)
    assert "learning_rate" in head
    rows = [line.split() for line in page.splitlines() if line.startswith("  class")]
    assert [row[1] for row in rows] == ["0.001", "0.0001"]
    assert all("insufficient" in row for row in rows)  # of two seeds


def test_one_row_a_run_names_the_swept_setting(store: Store) -> None:
    said = depthsweep("profile", "mine", "--runs", "--store", str(store.root), "--export", "json")
    rows = json.loads(said.output)
    assert [row["learning_rate"] for row in rows] == [1e-4, 1e-4, 1e-3, 1e-3] * 2
    assert {row["final_loss"] for row in rows} == {1.5}


def test_an_edit_is_reported_setting_by_setting(store: Store) -> None:
    sweep = Sweep("mine", "", "", tuple(runs(6)))
    assert list(change_lines(plan_sweep(sweep, store))) == [
        "the sweep has changed: 0 runs as before, 8 changed, 0 added, 0 no longer in it (kept in"
        " the store)",
        "  steps: 2 -> 6 in 8 runs",
        "  probe_every: 2 -> 6 in 8 runs",
    ]


def test_a_plan_names_each_run_by_what_it_varies(store: Store) -> None:
    for run in runs(2):
        store.run(run.run_id).forget_results()
    page = depthsweep("plan", "mine", "--store", str(store.root)).output
    assert max(map(len, page.replace(str(store.root), "").splitlines())) <= 80
    named = " ".join(page.split())
    assert "equal_step(mean) learning_rate 0.001 seed 1" in named
