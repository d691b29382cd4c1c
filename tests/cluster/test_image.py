"""The steps of the Dockerfile, carried out in a folder: no engine is needed for most of them.

A folder stands for the root of the image and an environment of Python for its base; packages of
Debian, the user and the layers themselves are an engine's.
"""

import os
import re
import shlex
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
INSTRUCTION = re.compile(r"^([A-Z]+) (.*)$")


def steps():
    """Return the Dockerfile's instructions and what each is given, one line each."""
    text = (ROOT / "cluster/Dockerfile").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    found = (INSTRUCTION.match(line) for line in "\n".join(lines).replace("\\\n", " ").split("\n"))
    return [each.groups() for each in found if each]


def given(instruction):
    return [words for name, words in steps() if name == instruction]


def copied(folder, kept):
    """Do what WORKDIR and COPY do, from what git has kept: a clone has nothing else."""
    (place, *_) = given("WORKDIR")
    workdir = folder / place.lstrip("/")
    workdir.mkdir(parents=True)
    for words in given("COPY"):
        *sources, target = words.split()
        for source in sources:
            names = [name for name in kept if name == source or name.startswith(f"{source}/")]
            assert names, f"COPY {source}: git keeps nothing of that name"
            for name in names:
                inside = name.removeprefix(f"{source}/") if name != source else source
                path = workdir / target / inside
                path.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / name, path)
    return workdir


def environment(**more):
    """Return what ENV says, and nothing of this environment but where programs are."""
    own = {"PATH": os.environ["PATH"], "HOME": os.environ["HOME"]}
    for words in given("ENV"):
        own |= dict(pair.split("=", 1) for pair in shlex.split(words))
    return {**own, **more}


def test_what_is_copied_is_enough_to_install_and_anybody_may_read_what_is_installed(
    tmp_path, kept_by_git
):
    workdir = copied(tmp_path / "root", kept_by_git)
    site, empty = tmp_path / "site", tmp_path / "empty"
    empty.mkdir()
    # The last RUN of pip, without what it depends on: that is the environment of the tests.
    words = ["pip", "install", "-q", "--no-deps", "--no-build-isolation", "--target", str(site)]
    done = subprocess.run(
        [sys.executable, "-m", *words, "."], cwd=workdir, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    shutil.rmtree(workdir)
    for words, said in ((["plan", "demo"], "demo: 30 runs"), (["cluster", "list"], "kuberay")):
        done = subprocess.run(
            [sys.executable, "-m", "orchestrator", *words],
            cwd=empty,
            env=environment(PYTHONPATH=str(site)),
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        assert said in done.stdout
    # The image's user is not the one that has installed it.
    for path in site.rglob("*"):
        wanted = stat.S_IROTH | (stat.S_IXOTH if path.is_dir() else 0)
        assert path.stat().st_mode & wanted == wanted, path


def test_it_runs_as_a_user_of_its_own_with_the_extras_that_clusters_need():
    import tomllib

    names = [name for name, _ in steps()]
    assert names.index("USER") > max(at for at, name in enumerate(names) if name == "RUN")
    assert given("USER") != ["root"]
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (asked,) = [words for words in given("RUN") if "'.[" in words]
    named = set(re.search(r"'\.\[(.*)\]'", asked).group(1).split(","))
    assert named <= set(extras["optional-dependencies"])
    assert {"cluster", "deepspeed", "s3", "gcs", "azure"} <= named


@pytest.mark.slow
def test_its_own_steps_make_an_environment_in_which_a_node_starts(tmp_path, kept_by_git):
    """RUN as it stands, in an environment of Python: it needs a package index, and minutes."""
    workdir = copied(tmp_path / "root", kept_by_git)
    venv, empty = tmp_path / "python", tmp_path / "empty"
    empty.mkdir()
    subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True)
    path = f"{venv}/bin:{os.environ['PATH']}"
    index = {name: value for name, value in os.environ.items() if name.startswith("PIP_")}
    for words in given("RUN"):
        if words.startswith("pip "):
            done = subprocess.run(
                ["bash", "-c", words],
                cwd=workdir,
                env=environment(PATH=path, **index),
                capture_output=True,
                text=True,
            )
            assert done.returncode == 0, done.stderr[-2000:]
    shutil.rmtree(workdir)
    ready = "import ray, deepspeed, s3fs, gcsfs, adlfs, workers.ranks.rank_server"
    words = (
        ["python", "-c", ready],
        ["depthsweep", "plan", "demo"],
        ["ray", "--version"],
        ["depthsweep", "cluster", "render", "kuberay"],
    )
    for command in words:
        done = subprocess.run(
            command,
            cwd=empty,
            env=environment(PATH=path, DS_ACCELERATOR="cpu"),
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout + done.stderr
