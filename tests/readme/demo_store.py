"""A folder with a store of the demo, in which what pages say can be typed."""

from __future__ import annotations

import fcntl
import os
import sys
from pathlib import Path

import polars as pl
import pytest

from sweeps import open_store
from sweeps.declaration.expand import read_sweep
from sweeps.errors import UserError
from tests.readme.__main__ import workplace
from tests.readme.page import ROOT, output_of

DEMO = "sweeps/library/demo.yaml"


def has_demo(store: str) -> bool:
    """Whether a store has a result for each run of the demo as it is declared now."""
    try:
        found = open_store(store, sweep="demo").runs().collect()
    except UserError:
        return False
    finished = set(found.filter(pl.col("status") == "finished")["run_id"])
    left_out = set(open_store(store, sweep="demo").jackknife().collect()["run_id"])
    whole = not found["propagation"].has_nulls() and left_out == finished
    return whole and finished == {run.run_id for run in read_sweep(DEMO).runs}


def demo_folder(factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a finished demo: that of `make demo` where it was made, else one that
    the first who asks makes, in minutes, for all who test beside it."""
    store = ROOT / "store"
    if not (store.is_dir() and has_demo(str(store))):
        base = factory.getbasetemp()
        # The processes of one test run have folders beside each other.
        store = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "demo"
        with open(f"{store}.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not has_demo(str(store)):
                output_of(f"depthsweep run {DEMO} --store {store}", ROOT)
    return workplace(factory.mktemp("finished"), store)


def write_program(folder: Path) -> Path:
    """Write a program `depthsweep` that is this checkout's into a folder, and return that."""
    folder.mkdir(exist_ok=True)
    program = folder / "depthsweep"
    program.write_text(f'#!/bin/sh\nPYTHONPATH={ROOT} exec {sys.executable} -m orchestrator "$@"\n')
    program.chmod(0o755)
    return folder
