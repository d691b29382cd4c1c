"""The wheel, outside of the checkout: it has all that the commands read."""

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory, kept_by_git):
    """Return the wheel that the checkout makes, from a copy: a build leaves files behind."""
    source, folder = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in kept_by_git:
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes((ROOT / name).read_bytes())
    _commit(source)
    words = ["pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", str(folder)]
    subprocess.run([sys.executable, "-m", *words, str(source)], check=True, capture_output=True)
    (made,) = folder.glob("*.whl")
    return made


def _commit(folder):
    """Make a folder a checkout of its own: a wheel keeps the commit that it is built from."""
    for words in (
        ["init", "-q"],
        ["add", "-A"],
        ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-q", "-m", "as it is"],
    ):
        subprocess.run(["git", "-C", str(folder), *words], check=True, capture_output=True)


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


@pytest.mark.slow
def test_what_a_run_of_it_records_has_the_commit_that_it_was_built_from(wheel, installed, tmp_path):
    with zipfile.ZipFile(wheel) as archive:
        built_from = archive.read("workers/built_from.txt").decode().strip()
    assert len(built_from) == 40
    code = (
        "import torch; from workers.run_record import provenance;"
        "said = provenance(torch.device('cpu')); print(said['git_commit'], said['code_digest'])"
    )
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.stdout.split()[0] == built_from, done.stderr
    assert len(done.stdout.split()[1]) == 12


def test_its_metadata_says_what_it_is_for_whom_and_where_to_read_on(wheel):
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [one for one in archive.namelist() if one.endswith(".dist-info/METADATA")]
        said = archive.read(name).decode()
    for line in (
        "Classifier: Typing :: Typed",
        "Classifier: Programming Language :: Python :: 3.13",
        "Project-URL: The study, https://arxiv.org/abs/2604.17177",
        "License-Expression: Apache-2.0",
    ):
        assert line in said.splitlines()


@pytest.mark.slow
def test_in_a_new_environment_the_demo_is_planned_run_and_reported_in_an_empty_folder(
    wheel, tmp_path
):
    """Installs everything anew: it needs a package index."""
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "venv")], check=True)
    python, folder = str(tmp_path / "venv" / "bin" / "python"), tmp_path / "empty"
    folder.mkdir()
    lock = str(ROOT / "requirements.lock")
    pin = next(line for line in Path(lock).read_text().splitlines() if line.startswith("torch=="))
    for words in ([pin], ["-c", lock, f"{wheel}[demo]"]):
        install = [python, "-m", "pip", "install", "-q", *words]
        done = subprocess.run(install, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
    program = str(Path(python).with_name("depthsweep"))
    for words in (["plan", "demo"], ["run", "demo"], ["report", "demo"]):
        done = subprocess.run(
            [program, *words], cwd=folder, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr
    assert sorted(path.name for path in folder.iterdir()) == ["report.html", "store"]
    with zipfile.ZipFile(wheel) as archive:
        built_from = archive.read("workers/built_from.txt").decode().strip()
    attempts = [json.loads(p.read_text()) for p in folder.glob("store/runs/*/attempts/*.json")]
    assert {one["git_commit"] for one in attempts} == {built_from}
    assert {one["depthsweep_version"] for one in attempts} == {"0.1.0"}


def test_profiles_of_clusters_come_with_it(installed, tmp_path):
    done = depthsweep(installed, tmp_path, "cluster", "list")
    assert done.returncode == 0, done.stderr
    assert "slurm" in done.stdout
