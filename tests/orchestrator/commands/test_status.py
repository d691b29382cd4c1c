"""``depthsweep status`` as a user calls it: which runs failed and why, and what is to come."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
from planted_store import run_spec, save_sweep, write_run

from sweeps.spec import RunSpec
from sweeps.store.store import Store
from tests.orchestrator.command_line import typed

RATES = (1e-3, 1e-2)


@pytest.fixture(autouse=True)
def soon_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """An attempt that nobody is at is not watched for long."""
    monkeypatch.setenv("DEPTHSWEEP_STALE_SECONDS", "0.5")


def runs() -> list[RunSpec]:
    grid = itertools.product(RATES, ("standard", "equal_step"), (0, 1))
    return [run_spec("gpt2", "clm", c, s, learning_rate=rate) for rate, c, s in grid]


def plant(folder: Path, statuses: dict[int, str | None]) -> Store:
    """Write a store in which runs ended so, by their place; None is an attempt nobody is at."""
    store, planned = Store.at(str(folder / "store")), runs()
    for place, status in statuses.items():
        write_run(store, planned[place], [0.1, 0.3], status=status)
    save_sweep(store, "rates", planned)
    return store


def status(store: Store, *words: str) -> subprocess.CompletedProcess[str]:
    return typed("status", *words, "--store", store.location)


def test_failed_and_lost_runs_are_told_apart_by_what_varies_with_their_errors(
    tmp_path: Path,
) -> None:
    store = plant(tmp_path, {0: "finished", 1: "failed", 6: "failed", 7: None})
    lines = status(store, "rates").stdout.splitlines()
    said = {lines[k]: lines[k + 1].strip() for k in range(len(lines) - 1)}
    ids = [run.run_id for run in runs()]
    assert said[f"failed {ids[1]} gpt2 clm standard learning_rate 0.001 seed 1"] == (
        "ValueError: planted"
    )
    equal = "equal_step(mean) learning_rate 0.01"
    assert said[f"failed {ids[6]} gpt2 clm {equal} seed 0"] == "ValueError: planted"
    assert said[f"lost {ids[7]} gpt2 clm {equal} seed 1"] == "its process is gone"
    assert f"`depthsweep logs {ids[1]}` shows the rest of what the first one said" in lines
    assert max(map(len, lines)) <= 80


def test_many_failures_are_told_by_cause_with_the_first_of_each(tmp_path: Path) -> None:
    store = Store.at(str(tmp_path / "store"))
    planned = [run_spec("gpt2", seed=seed) for seed in range(12)]
    for run in planned:
        write_run(store, run, [0.1], status="failed")
    save_sweep(store, "rates", planned)
    lines = status(store, "rates").stdout.splitlines()
    failed = [line for line in lines if line.startswith("failed ")]
    assert failed == [f"failed {planned[0].run_id} gpt2 clm standard seed 0"]
    assert "  ValueError: planted (12 runs say that)" in lines


def test_a_sweep_without_failures_names_none(tmp_path: Path) -> None:
    said = status(plant(tmp_path, {0: "finished"}), "rates").stdout
    assert "failed" not in said
    assert "rates: 8 runs, 1 finished, 7 waiting; 60 seconds in runs" in said


def test_a_watched_sweep_is_said_again_as_runs_end_until_nothing_is_left(tmp_path: Path) -> None:
    store = plant(tmp_path, dict.fromkeys(range(7), "finished"))
    watching = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "orchestrator",
            "status",
            "rates",
            "--store",
            store.location,
            "--watch",
            "--every",
            "0.2",
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert watching.stdout is not None
    assert watching.stdout.readline().startswith("rates: 8 runs, 7 finished, 1 waiting")
    time.sleep(1)
    assert watching.poll() is None
    write_run(store, runs()[7], [0.1, 0.3])
    rest, _ = watching.communicate(timeout=60)
    heads = [line for line in rest.splitlines() if line.startswith("rates: ")]
    assert heads[-1] == "rates: 8 runs, 8 finished; 8 minutes in runs"
    assert watching.returncode == 0


def test_a_watch_ends_with_1_where_a_run_failed(tmp_path: Path) -> None:
    statuses: dict[int, str | None] = dict.fromkeys(range(8), "finished")
    store = plant(tmp_path, statuses | {3: "failed"})
    assert status(store, "rates", "--watch").returncode == 1
    assert status(store, "rates").returncode == 0


@pytest.mark.parametrize(
    ("words", "told"),
    [(("--every", "1"), "give both"), (("--watch", "--json"), "for a person")],
)
def test_words_that_do_not_go_together_are_refused(
    tmp_path: Path, words: tuple[str, ...], told: str
) -> None:
    done = status(plant(tmp_path, {}), "rates", *words)
    assert done.returncode == 2
    assert told in done.stderr


def test_its_data_has_every_run_with_what_varies(tmp_path: Path) -> None:
    page = json.loads(status(plant(tmp_path, {2: "failed"}), "rates", "--json").stdout)
    assert [run["settings"]["learning_rate"] for run in page["rates"]] == sorted(RATES * 4)
    assert page["rates"][2]["error"] == "ValueError: planted"
