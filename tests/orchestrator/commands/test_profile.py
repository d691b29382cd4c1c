"""``depthsweep profile`` as a user calls it."""

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
    runs = [run_spec(control=c, seed=s) for c in ("standard", "equal_step") for s in (0, 1)]
    for run in runs:
        write_run(store, run, lambda x, seed=run.seed: 0.1 + (0.2 + 0.1 * seed) * x)
    save_sweep(store, "toy", runs)
    save_sweep(store, "later", [run_spec(seed=9)])
    return store.root


def test_the_page_shows_each_condition(store: Path) -> None:
    done = typed("profile", "toy", "--store", str(store))
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "toy: procrustes at the last step, 4 of 4 runs"
    assert "0.250 [-0.385, 0.885]" in lines[4]
    flag = "! only 2 seeds: no verdict: gpt2 clm standard; gpt2 clm equal_step"
    assert flag in lines


def test_json_and_export_hold_blocks_and_quantities(store: Path, tmp_path: Path) -> None:
    done = typed("profile", "toy", "--store", str(store), "--json")
    page = json.loads(done.stdout)
    assert page["conditions"][0]["slope"] == pytest.approx(0.25)
    assert len(page["blocks"]) == 24
    target = tmp_path / "profiles.parquet"
    done = typed(
        "profile", "toy", "--store", str(store), "--metric", "cka_distance", "-o", str(target)
    )
    assert done.returncode == 0, done.stderr
    exported = pl.read_parquet(target)
    assert exported.height == 24
    assert {"layer", "value", "low", "slope_low", "width", "n"} <= set(exported.columns)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["tyo"], "did you mean 'toy'"),
        (["later"], "has no finished run"),
        (["toy", "--metric", "cka"], "--metric cka: unknown"),
        (["toy", "--at", "last"], "--at last: give final"),
        (["toy", "--by", "colour"], "--by colour"),
    ],
)
def test_a_users_mistake_is_one_line(store: Path, arguments: list[str], message: str) -> None:
    done = typed("profile", *arguments, "--store", str(store))
    assert done.returncode == 2
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_blocks_of_one_class_are_shown_alone(tmp_path: Path) -> None:
    store = Store.at(str(tmp_path / "store"))
    kinds = ["Mamba", "Attention"] * 3
    runs = [run_spec("zamba", seed=seed) for seed in (0, 1, 2)]
    for run in runs:
        write_run(store, run, [0.1, 0.9, 0.2, 0.9, 0.3, 0.9], classes=kinds)
    save_sweep(store, "hybrid", runs)
    done = typed("profile", "hybrid", "--store", str(store.root), "--block-class", "Mamba")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "hybrid: procrustes at the last step, blocks of class Mamba, 3 of 3 runs"
    assert "▃▆█" in done.stdout
    done = typed("profile", "hybrid", "--store", str(store.root), "--block-class", "RNN")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "--block-class RNN: no block is one" in done.stderr


@pytest.fixture(scope="module")
def varied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two settings vary beside objective and control."""
    store = Store.at(str(tmp_path_factory.mktemp("varied") / "store"))
    runs = []
    for rate in (1e-3, 2.5e-5):
        for schedule in ("cosine", "constant"):
            for seed in (0, 1, 2):
                run = run_spec(objective="classification", seed=seed, learning_rate=rate)
                optimizer = run.optimizer.model_copy(update={"schedule": schedule})
                runs.append(run.model_copy(update={"optimizer": optimizer}))
                ratios = [1e-3, 1e-3 * (2, 3, 10)[seed]]
                write_run(store, runs[-1], [0.1, 0.2 + 0.01 * seed], ratios=ratios)
    save_sweep(store, "varied", runs)
    return store.root


def test_no_setting_that_varies_and_no_number_is_dropped_at_eighty_columns(varied: Path) -> None:
    done = typed("profile", "varied", "--store", str(varied))
    assert "no room" not in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80
    for rate in ("0.001", "2.5e-05"):
        for schedule in ("cosine", "constant"):
            name = f"  classification, standard, learning_rate {rate}, schedule {schedule}"
            assert name in done.stdout.splitlines()
    assert {"by", "depth", "centre", "over", "g"} <= set(done.stdout.splitlines()[2].split())


def test_runs_on_a_terminal_are_told_apart_by_what_varies(varied: Path) -> None:
    head = typed("profile", "varied", "--store", str(varied), "--runs").stdout.splitlines()[0]
    assert head.split()[:7] == [
        *("run_id", "model", "objective", "control", "learning_rate", "schedule", "seed")
    ]


def test_a_dose_is_the_median_of_its_seeds_wherever_it_is_said(varied: Path) -> None:
    done = typed("profile", "varied", "--store", str(varied), "--json")
    assert {round(one["dose"], 6) for one in json.loads(done.stdout)["conditions"]} == {3.0}
