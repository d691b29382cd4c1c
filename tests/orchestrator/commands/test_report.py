"""``depthsweep report`` and ``depthsweep distance`` as a user calls them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from planted_store import run_spec, save_sweep, write_run
from sweeps.reading.objective_distance import distance_path

from sweeps.reading.tables import open_store
from sweeps.store.store import Store

MAIN = [sys.executable, "-c", "from orchestrator.cli import main; main()"]


def depthsweep(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*MAIN, *arguments], capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    store = Store.at(str(tmp_path_factory.mktemp("cli") / "store"))
    runs = [run_spec("gpt2", "clm", seed=seed) for seed in (0, 1)]
    for run in runs:
        write_run(store, run, [0.1, 0.2, 0.3])
    save_sweep(store, "toy", runs)
    return store


def test_the_report_is_one_file_for_the_sweep(store: Store, tmp_path: Path) -> None:
    target = tmp_path / "report.html"
    done = depthsweep("report", "toy", "--store", str(store.root), "-o", str(target))
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(str(target))
    page = target.read_text(encoding="utf-8")
    assert "<title>toy: depth profiles</title>" in page
    assert "fetch('/state')" not in page
    assert sorted(path.name for path in tmp_path.iterdir()) == ["report.html"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["report", "tyo"], "did you mean 'toy'"),
        (["report", "toy", "-o", "/nowhere/report.html"], "-o /nowhere/report.html: cannot be"),
        (["report", "toy", "--claims", "gone.yaml"], "gone.yaml: no such file"),
        (["watch", "tyo"], "did you mean 'toy'"),
        (["distance", "tyo"], "did you mean 'toy'"),
    ],
)
def test_a_users_mistake_is_one_line(store: Store, arguments: list[str], message: str) -> None:
    done = depthsweep(*arguments, "--store", str(store.root))
    assert done.returncode == 2
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_distances_are_measured_once_and_reach_the_tables(store: Store) -> None:
    first = depthsweep("distance", "toy", "--store", str(store.root))
    assert first.returncode == 0, first.stderr
    assert first.stdout.splitlines() == [
        "1 pairs of model and objective, 0 measured before",
        "gpt2 clm: 0.0000",
    ]
    again = depthsweep("distance", "toy", "--store", str(store.root))
    assert again.stdout.splitlines() == ["1 pairs of model and objective, 1 measured before"]
    runs = open_store(store.root).runs().collect()
    assert runs["objective_distance"].to_list() == [0.0, 0.0]
    assert len(list(distance_path(store, "any").parent.iterdir())) == 1
