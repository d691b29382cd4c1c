"""What people come for, each answered by one command that the README shows, on one screen.

The store is of another study than the demo: one model, two learning rates, under which a profile
persists at one and collapses at the other; two of its runs failed.
"""

import itertools
import re
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest
from planted_store import run_spec, save_sweep, write_run

from orchestrator.cli import cli
from sweeps.store.store import Store

README = Path("README.md").read_text(encoding="utf-8")
MAIN = [sys.executable, "-m", "orchestrator"]
LOW, HIGH = 1e-4, 1e-2
SCREEN = 40  # lines; and 80 columns


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    store = Store.at(str(tmp_path_factory.mktemp("tasks") / "store"))
    runs = []
    for rate, control, seed in itertools.product((LOW, HIGH), ("standard", "equal_step"), range(3)):
        run = run_spec("my-model", "clm", control, seed, learning_rate=rate)
        kept = 0.3 if control == "standard" or rate == LOW else 0.0
        slope = kept + 0.01 * (seed - 1)
        write_run(store, run, lambda x, s=slope: 0.2 + s * x)
        runs.append(run)
    for seed in (3, 4):
        runs.append(run_spec("my-model", "clm", "standard", seed, learning_rate=HIGH))
        write_run(store, runs[-1], [0.1], status="failed")
    save_sweep(store, "mine", runs)
    return store


def screen(store, command, shown):
    """Return what a command says, as the README has it shown."""
    assert f"`depthsweep {shown}`" in README
    words = [*shlex.split(command), "--store", store.location]
    done = subprocess.run([*MAIN, *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) <= SCREEN
    assert max(map(len, lines)) <= 80
    return lines


def row(lines, *cells):
    """Return the words of the one line that begins with these cells."""
    found = [line.split() for line in lines if line.split()[: len(cells)] == list(cells)]
    assert len(found) == 1, (cells, lines)
    return found[0]


def below(lines, condition):
    """Return the words under a condition that stands on a line of its own."""
    (at,) = [k for k, line in enumerate(lines) if line.strip() == condition]
    return lines[at + 1].split()


def test_where_does_it_change(store):
    lines = screen(store, "profile mine", "profile demo")
    n, shape, slope, low = below(lines, "clm, standard, learning_rate 0.0001")[:4]
    assert (n, slope) == ("3", "0.300")
    assert shape[0] < shape[-1]  # bars, low to high: the end changes more
    assert float(low.strip("[,")) > 0
    assert below(lines, "clm, equal_step, learning_rate 0.01")[2] == "0.000"


def test_does_it_survive(store):
    lines = screen(store, "compare mine", "compare demo")
    assert row(lines, "clm", "0.0001")[-1] == "persists"
    assert row(lines, "clm", "0.01")[-1] == "collapses"
    assert "1 persists, 1 collapses, 0 reverses" in lines


def test_which_runs_failed_and_why(store):
    lines = screen(store, "status mine", "status NAME")
    failed = [lines[k : k + 2] for k in range(len(lines)) if lines[k].startswith("failed ")]
    assert [one[0].split(" ", 2)[2] for one in failed] == [
        f"my-model clm standard learning_rate 0.01 seed {seed}" for seed in (3, 4)
    ]
    assert {one[1].strip() for one in failed} == {"ValueError: planted"}


def writes_figures():
    report = cli.get_command(click.Context(cli), "report")
    return any("--format" in parameter.opts for parameter in report.params)


@pytest.mark.skipif(not writes_figures(), reason="report writes no figures yet")
def test_give_me_figure_2_for_the_paper(store, tmp_path):
    command = "report mine --format svg -o figures"
    assert "depthsweep report demo --format svg -o figures" in README
    words = [*shlex.split(command), "--store", store.location]
    done = subprocess.run([*MAIN, *words], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    figures = sorted((tmp_path / "figures").glob("*.svg"))
    assert len(figures) > 1
    assert any("<svg" in one.read_text(encoding="utf-8") for one in figures)


def test_the_loss_of_each_learning_rate(tmp_path):
    """By the very query of the README; runs at the higher rate are half as long here."""
    (command,) = re.findall(r"`depthsweep (query \"SELECT model, learning_rate.*?\")`", README)
    store, runs = Store.at(str(tmp_path / "store")), []
    for rate, seed in itertools.product((LOW, HIGH), range(2)):
        steps = 20 if rate == LOW else 10
        run = run_spec("my-model", seed=seed, learning_rate=rate, steps=steps)
        write_run(store, run, [0.1, 0.2])  # whose loss at step t is 3 / t
        runs.append(run)
    save_sweep(store, "mine", runs)
    done = subprocess.run(
        [*MAIN, *shlex.split(command), "--store", store.location], capture_output=True, text=True
    )
    assert sorted(line.split() for line in done.stdout.splitlines()[1:-1]) == [
        ["my-model", "0.0001", "0.15", "2"],
        ["my-model", "0.01", "0.3", "2"],
    ]
