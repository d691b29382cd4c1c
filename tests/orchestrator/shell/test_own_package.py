"""Another project's package ``sweeps`` is found at the start, in one line."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
# As that of Weights & Biases begins: what it imports is not installed here.
FOREIGN = "from .config import SweepConfig\nfrom .run import next_run, next_runs\n"


def start(*path):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, path))}
    words = [sys.executable, "-m", "orchestrator", "plan", "demo"]
    return subprocess.run(words, capture_output=True, text=True, env=environment, cwd=path[0])


@pytest.fixture
def foreign(tmp_path):
    (tmp_path / "site" / "sweeps").mkdir(parents=True)
    (tmp_path / "site" / "sweeps" / "__init__.py").write_text(FOREIGN, encoding="utf-8")
    return tmp_path / "site"


def told(done, place):
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert f"({place})" in line
    assert "a virtual environment of its own" in line


def test_one_that_is_found_first_is_named_with_what_to_do(foreign):
    told(start(foreign, ROOT), foreign / "sweeps")


def test_one_that_was_unpacked_over_ours_is_named(foreign):
    for floor in ("sweeps", "orchestrator", "workers", "cluster"):
        shutil.copytree(ROOT / floor, foreign / floor, dirs_exist_ok=True)
    (foreign / "sweeps" / "__init__.py").write_text(FOREIGN, encoding="utf-8")
    told(start(foreign), foreign / "sweeps")


def test_a_folder_of_that_name_without_code_is_named(tmp_path):
    """As that of somebody's sweep files, in a place that Python looks into first."""
    (tmp_path / "sweeps").mkdir()
    done = start(tmp_path, ROOT)
    assert done.returncode == 0, done.stderr  # a package with code goes before a mere folder


def test_our_own_is_no_finding(tmp_path):
    done = start(tmp_path, ROOT)
    assert done.returncode == 0, done.stderr
