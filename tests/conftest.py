"""Settings of all tests, and the object store and the command that some of them share."""

import contextlib
import gc
import io
import os
import subprocess
import sys
import uuid
from pathlib import Path
from unittest import mock

import pytest
from hypothesis import settings
from s3_server import BUCKET, environment, serve_s3

if "PYTEST_XDIST_WORKER" in os.environ:
    # Beside each other every process has one thread: a team of several waits at full load for those
    # that have no processor. To be set before torch is imported; processes of tests have it, too.
    os.environ.setdefault("OMP_NUM_THREADS", "1")

# Time is not asserted on: these machines are shared.
settings.register_profile("shared-machine", deadline=None)
settings.load_profile("shared-machine")


def pytest_collection_finish():
    """What tests import stays: it need not be looked through again and again."""
    gc.freeze()


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
    root = Path(__file__).resolve().parent.parent
    words = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(words, cwd=root, capture_output=True, text=True, check=True)
    return [name for name in listed.stdout.split("\0") if name and (root / name).is_file()]


@pytest.fixture(scope="session")
def in_process():
    """``in_process(*words, folder=…, **environment)``: what a ``depthsweep`` command ends with
    that is given in a folder, as its exit code and what it printed to stdout and to stderr.

    In this process, which has imported what it needs: a tenth of the time. For commands that start
    no processes.
    """
    from orchestrator.cli import main

    def in_process(*words, folder, **environment):
        printed, complained = io.StringIO(), io.StringIO()
        with (
            contextlib.chdir(folder),
            contextlib.redirect_stdout(printed),
            contextlib.redirect_stderr(complained),
            mock.patch.dict(os.environ, environment),
            mock.patch.object(sys, "argv", ["depthsweep", *words]),
            mock.patch("gc.set_threshold"),
            pytest.raises(SystemExit) as end,
        ):
            main()
        return end.value.code, printed.getvalue(), complained.getvalue()

    return in_process
