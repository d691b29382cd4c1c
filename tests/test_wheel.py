"""The wheel, outside of the checkout: it has all that the commands read."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Return the wheel that the checkout makes, from a copy: a build leaves files behind."""
    source, folder = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    words = ["pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", str(folder)]
    subprocess.run([sys.executable, "-m", *words, str(source)], check=True, capture_output=True)
    (made,) = folder.glob("*.whl")
    return made


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    place = tmp_path_factory.mktemp("site")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(place)
    return place


def depthsweep(installed, folder, *words):
    return subprocess.run(
        [sys.executable, "-m", "orchestrator", *words],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
    )


def test_every_file_that_git_keeps_beside_the_code_of_the_floors_is_in_it(wheel):
    listed = subprocess.run(
        ["git", "ls-files", "sweeps", "workers", "orchestrator", "cluster"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    # Pages are for readers of the repository.
    wanted = {name for name in listed.stdout.split() if not name.endswith((".md", ".png"))}
    with zipfile.ZipFile(wheel) as archive:
        assert wanted - set(archive.namelist()) == set()


def test_a_sweep_that_comes_with_it_is_planned_in_an_empty_folder(installed, tmp_path):
    done = depthsweep(installed, tmp_path, "plan", "demo")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("demo: 30 runs")
    assert list(tmp_path.iterdir()) == []


def test_profiles_of_clusters_come_with_it(installed, tmp_path):
    done = depthsweep(installed, tmp_path, "cluster", "list")
    assert done.returncode == 0, done.stderr
    assert "slurm" in done.stdout
