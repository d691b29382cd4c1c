"""A real bash completes commands, sweeps and run ids, with click's own script."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from planted_store import run_spec, save_sweep, write_run

from sweeps.store.store import Store

ROOT = Path(__file__).resolve().parents[3]
RUNS = [run_spec("gpt2", seed=seed) for seed in (0, 1)]
# Calls what bash calls when TAB is pressed at the end of the words given.
PRESS_TAB = """
eval "$(_DEPTHSWEEP_COMPLETE=bash_source depthsweep)"
function compopt { :; }  # is for an interactive shell
COMP_WORDS=("$@"); COMP_CWORD=$(( $# - 1 ))
_depthsweep_completion depthsweep
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a store, and a program `depthsweep` that is this checkout's."""
    folder = tmp_path_factory.mktemp("shell")
    store = Store.at(str(folder / "store"))
    for run in RUNS:
        write_run(store, run, [0.1, 0.2])
    save_sweep(store, "rates", RUNS)
    save_sweep(Store.at(str(folder / "elsewhere")), "other", RUNS)
    (folder / "bin").mkdir()
    program = folder / "bin" / "depthsweep"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m orchestrator "$@"\n')
    program.chmod(0o755)
    return folder


def offered(folder, *words):
    """Return what bash offers, and what it said besides."""
    path = f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "--norc", "-c", PRESS_TAB, "bash", "depthsweep", *words],
        cwd=folder,
        env={**os.environ, "PATH": path, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split(), done.stderr


def test_commands_are_completed(folder):
    assert offered(folder, "pro") == (["profile"], "")
    names, _ = offered(folder, "")
    assert {"run", "status", "query"} <= set(names)


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (("profile", ""), ["rates"]),
        (("status", "ra"), ["rates"]),
        (("status", "--store", "elsewhere", ""), ["other"]),
        (("query", "--sweep", ""), ["rates"]),
        (("logs", "rat"), ["rates"]),
        (("plan", "rat"), ["rates"]),
        (("run", "replica-v"), ["replica-verdicts"]),
        (("status", "none-of-this"), []),
    ],
)
def test_sweeps_are_completed_from_the_store_and_from_those_that_come_along(folder, words, names):
    found, said = offered(folder, *words)
    assert [name for name in found if name in {"rates", "other", *names}] == names
    assert said == ""


def test_run_ids_are_completed_from_their_first_digits(folder):
    ids = sorted(run.run_id for run in RUNS)
    assert offered(folder, "forget", "") == (ids, "")
    assert offered(folder, "logs", ids[0][:5])[0] == [ids[0]]


def test_a_mistyped_line_completes_nothing_and_says_nothing(folder):
    found, said = offered(folder, "plann", "")
    assert (found, said) == ([], "")
