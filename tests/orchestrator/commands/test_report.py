"""``depthsweep report`` as a user calls it."""

from __future__ import annotations

from pathlib import Path

import pytest
from planted_store import run_spec, save_sweep, write_run

from sweeps.store.store import Store
from tests.orchestrator.command_line import typed


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
    done = typed("report", "toy", "--store", str(store.root), "-o", str(target))
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(str(target))
    page = target.read_text(encoding="utf-8")
    assert "<title>toy: depth profiles</title>" in page
    assert "fetch('/state')" not in page
    assert sorted(path.name for path in tmp_path.iterdir()) == ["report.html"]


def test_a_file_is_what_its_name_ends_in(store: Store, tmp_path: Path) -> None:
    target = tmp_path / "figure2.pdf"
    words = ["--figure", "slopes", "--width", "170"]
    done = typed("report", "toy", "--store", str(store.root), "-o", str(target), *words)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{target}: ")
    assert target.read_bytes().startswith(b"%PDF-")
    folder = tmp_path / "figures"
    done = typed("report", "toy", "--store", str(store.root), "--format", "svg", "-o", str(folder))
    assert done.returncode == 0, done.stderr
    written = sorted(path.name for path in folder.iterdir())
    assert written == [
        "changes.svg",
        "profiles.svg",
        "slopes.svg",
        "training-losses.svg",
        "update-ratios.svg",
    ]
    assert all((folder / name).read_text(encoding="utf-8").startswith("<svg") for name in written)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["report", "tyo"], "did you mean 'toy'"),
        (["report", "toy", "-o", "/nowhere/report.html"], "/nowhere; make it first"),
        (["report", "toy", "-o", "figure.docx"], "end it in .html, .pdf or .svg"),
        (["report", "toy", "-o", "a.pdf", "--format", "svg"], "ends in .pdf, and --format is svg"),
        (["report", "toy", "--figure", "slopes"], "--figure: a page has every figure"),
        (["report", "toy", "-o", "a.svg", "--figure", "sloops"], "did you mean 'slopes'"),
        (["report", "toy", "-o", "a.svg", "--figure", "kept"], "no results yet that a figure"),
        (
            ["report", "toy", "-o", "a.pdf", "--claims", "c.yaml"],
            "--claims: figures show no claims",
        ),
        (["query", "SELECT 1 FROM runs", "-o", "answer.xlsx"], "no such form of a table"),
        (["report", "toy", "--claims", "gone.yaml"], "gone.yaml: no such file"),
        (["watch", "tyo"], "did you mean 'toy'"),
        (["distance", "tyo"], "did you mean 'toy'"),
    ],
)
def test_a_users_mistake_is_one_line(store: Store, arguments: list[str], message: str) -> None:
    done = typed(*arguments, "--store", str(store.root))
    assert done.returncode == 2
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1
