"""The rank server by itself: who has its path, and how long it stays."""

import multiprocessing
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest

from workers.ranks.rank_server import RankServer, listen


@pytest.fixture
def path():
    with tempfile.TemporaryDirectory(prefix="rs", dir="/tmp") as folder:
        yield str(Path(folder) / "socket")


def test_a_path_has_one_server_and_is_for_its_user_alone(path):
    listening, lock = listen(path)
    assert os.stat(path).st_mode & 0o777 == 0o600
    assert listen(path) is None
    listening.close()
    os.close(lock)
    listening, lock = listen(path)  # the socket that was left is no obstacle
    os.close(lock)
    listening.close()


def test_no_process_that_a_server_starts_keeps_the_path(path):
    listening, lock = listen(path)
    assert not os.get_inheritable(lock)
    listening.close()
    os.close(lock)


def served(path, idle, wrong=None):
    server = RankServer(*listen(path), idle=idle, wrong=wrong)
    thread = threading.Thread(target=server.answer, daemon=True)
    thread.start()
    return thread


def test_it_ends_once_nobody_has_needed_it_for_long(path):
    began = time.monotonic()
    thread = served(path, 0.5)
    thread.join(20)
    assert not thread.is_alive()
    assert time.monotonic() - began >= 0.5


def test_it_stays_for_a_caller_and_ends_after_it(path):
    thread = served(path, 0.2)
    with socket.socket(socket.AF_UNIX) as caller:
        caller.connect(path)
        thread.join(2.5)
        assert thread.is_alive()
    thread.join(20)
    assert not thread.is_alive()


def serve_alone(path):
    RankServer(*listen(path), idle=0.2).answer()


def test_one_that_can_only_say_what_it_lacks_stays_for_nobody(path):
    thread = served(path, 0.2, "ModuleNotFoundError: No module named 'torch'")
    with socket.socket(socket.AF_UNIX) as caller:
        caller.connect(path)
        thread.join(20)
        assert not thread.is_alive()


def test_it_stays_for_a_process_whose_caller_is_gone(path):
    server = multiprocessing.get_context("spawn").Process(target=serve_alone, args=(path,))
    server.start()
    ours, its = socket.socketpair()
    with socket.socket(socket.AF_UNIX) as caller:
        until = time.monotonic() + 30
        while caller.connect_ex(path) and time.monotonic() < until:
            time.sleep(0.05)
        asked = b'{"start": true, "fork": true, "devices": [], "alone": true, "kill": false}'
        socket.send_fds(caller, [asked], [its.fileno()])
        assert b'"process"' in caller.recv(1000)
    its.close()
    server.join(2.5)
    assert server.is_alive()
    ours.close()  # the process has nothing to do any more, and ends
    server.join(20)
    assert server.exitcode == 0


@pytest.mark.slow
def test_the_first_rows_of_a_forked_process_import_next_to_nothing() -> None:
    """pyarrow looks for pandas when it is first given rows: hundreds of modules, in each run."""
    code = (
        "import importlib, sys; from workers.ranks import rank_server as server\n"
        "for name in (*server.IMPORTED, *server.IMPORTED_IF_THERE): importlib.import_module(name)\n"
        "before = set(sys.modules); import pyarrow; pyarrow.Table.from_pylist([{'a': 1.0}])\n"
        "print(*(set(sys.modules) - before))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert len(found.stdout.split()) < 20, found.stdout
