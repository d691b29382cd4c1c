"""A rank server of a test's own, which imports nothing: ready in a third of a second."""

import os
import shutil
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from orchestrator.ranks import rank_starter

LIGHT = (
    "import sys; from workers.ranks import rank_server; rank_server.IMPORTED = ();"
    " rank_server.IMPORTED_IF_THERE = ();"
    " del sys.argv[1:3]; rank_server.main()"
)


@pytest.fixture
def light_server(monkeypatch, tmp_path_factory):
    """Have starters start a server that imports nothing, and meet in a folder of this test's own,
    which is returned. Its processes are ended with the test."""
    tmp_path_factory.getbasetemp()  # made by now, and not in this folder
    # A short path: names of sockets have a limit of 107 bytes.
    folder = Path(tempfile.mkdtemp(prefix="rs", dir="/tmp"))
    python = folder / "python"
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" -c "{LIGHT}" "$@"\n')
    python.chmod(0o700)
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    monkeypatch.setattr(rank_starter, "sys", SimpleNamespace(executable=str(python), path=sys.path))
    yield folder
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.pid != os.getpid() and str(folder) in " ".join(process.cmdline()):
                process.kill()
    shutil.rmtree(folder, ignore_errors=True)
