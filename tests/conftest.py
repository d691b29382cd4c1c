"""Settings of all tests, their order beside each other, and the object store that some share."""

import gc
import os
import subprocess
import uuid
from functools import cache
from pathlib import Path

import pytest
from hypothesis import settings
from s3_server import BUCKET, environment, serve_s3
from xdist.scheduler import LoadFileScheduling

if "PYTEST_XDIST_WORKER" in os.environ:
    # Beside each other every process has one thread: a team of several waits at full load for those
    # that have no processor. To be set before torch is imported; processes of tests have it, too.
    os.environ.setdefault("OMP_NUM_THREADS", "1")

# A worker that Ray starts in advance serves no trial, and each has Ray imported.
os.environ.setdefault("RAY_prestart_worker_first_driver", "0")

# How wide the terminal is that tests are started from is none of theirs.
os.environ.pop("COLUMNS", None)

# Time is not asserted on: these machines are shared.
settings.register_profile("shared-machine", deadline=None)
settings.load_profile("shared-machine")


ROOT = Path(__file__).resolve().parent.parent
ENGINES = "tests/workers/engines/"
# Files of these rooms wait for Ray, for ranks and for servers more than they compute.
WAITING = (
    "tests/gpu/",
    "tests/integration/",
    "tests/orchestrator/connection/",
    "tests/orchestrator/ranks/",
    "tests/orchestrator/tracking/",
    "tests/orchestrator/tuning/",
    ENGINES,
)


class TogetherOnOne(LoadFileScheduling):
    """A file has one process for all of its tests, and so have the files that share a server which
    takes long to start: ranks that have DeepSpeed imported."""

    def _split_scope(self, nodeid: str) -> str:
        name = super()._split_scope(nodeid)
        return ENGINES if forks_ranks(name) else name


@cache
def forks_ranks(name: str) -> bool:
    """Whether a file has ranks forked by ``tests.servers.forked_ranks``."""
    text = (ROOT / name).read_text(encoding="utf-8")
    return name.startswith(ENGINES) or "run_forked" in text or "in_ranks" in text


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    return TogetherOnOne(config, log) if config.getoption("dist") == "loadfile" else None


def pytest_collection_modifyitems(config, items):
    """Beside each other, files that wait are spread among those that compute.

    In the order of folders they are all at one end, where the processors idle. They are in the
    first three quarters, so that none of the long ones is alone at the end.
    """
    if not hasattr(config, "workerinput"):
        return
    files = {}
    for item in items:
        files.setdefault(item.nodeid.partition("::")[0], []).append(item)
    waiting = [name for name in files if name.startswith(WAITING)]
    computing = [name for name in files if not name.startswith(WAITING)]
    every = 0.75 * len(computing) / max(len(waiting), 1)
    place = {name: float(count) for count, name in enumerate(computing)}
    place |= {name: every * count - 0.5 for count, name in enumerate(waiting)}
    items[:] = [item for name in sorted(files, key=place.__getitem__) for item in files[name]]


# What tests import stays: it need not be looked through again and again, nor while it grows.
gc.disable()


def pytest_collection_finish():
    gc.freeze()
    gc.enable()


def pytest_unconfigure():
    """What is left at the end is taken apart in order."""
    gc.unfreeze()


@pytest.fixture(scope="session")
def s3_port():
    with serve_s3() as port:
        yield port


@pytest.fixture
def s3_url(s3_port, tmp_path, monkeypatch):
    """The URL of an empty store; this process and those it starts know how to reach it."""
    for name, value in environment(s3_port, tmp_path / "node").items():
        monkeypatch.setenv(name, value)
    return f"s3://{BUCKET}/{uuid.uuid4().hex[:8]}"


@pytest.fixture(scope="session")
def kept_by_git():
    """What a clone of the checkout as it stands would have: paths of files, from its root."""
    words = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True)
    return [name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]
