"""Rank processes as forks of one that has imported torch, transformers and DeepSpeed.

A rank that starts from nothing spends six seconds of a processor on imports before it computes for
one. ``in_ranks`` of ``engine_cells`` starts this once in a process of tests; it reads a request a
line (``script``, ``arguments``, ``environments``, ``log``, ``seconds``), forks a rank for each
environment, which runs the script as ``python SCRIPT`` would, and answers with exit codes. It has
no threads and computes nothing itself, so that its children are as fresh ones. It ends with its
input.
"""

from __future__ import annotations

import atexit
import json
import os
import runpy
import signal
import subprocess
import sys
import time
import traceback
from functools import cache
from pathlib import Path
from typing import Any, NoReturn

ROOT = Path(__file__).resolve().parents[2]
PATHS = [ROOT, ROOT / "tests", ROOT / "tests/samples", ROOT / "tests/rank_scripts"]


@cache
def _server() -> subprocess.Popen[str]:
    paths = os.pathsep.join(map(str, PATHS))
    environment = {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    server = subprocess.Popen(
        [sys.executable, __file__],
        env={**os.environ, **environment},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    atexit.register(server.kill)
    return server


def run_forked(
    script: str,
    arguments: list[str],
    environments: list[dict[str, str]],
    log: str,
    seconds: float,
    folder: Path | None = None,
) -> list[int]:
    """Run a script in a fork for each environment, what they print in ``log``; return exit codes.
    Once one has failed, or the time is over, the others are killed. They work in ``folder``, or
    where this process does."""
    server = _server()
    asked = {
        "script": script,
        "arguments": arguments,
        "environments": environments,
        "log": log,
        "seconds": seconds,
        "folder": os.fspath(folder or os.getcwd()),
    }
    assert server.stdin is not None
    assert server.stdout is not None
    server.stdin.write(json.dumps(asked) + "\n")
    server.stdin.flush()
    answer = server.stdout.readline()
    assert answer, f"the process that forks ranks ended: {server.poll()}"
    codes: list[int] = json.loads(answer)
    return codes


def run_fresh(
    script: str, arguments: list[str], environments: list[dict[str, str]], log: str, seconds: float
) -> list[int]:
    """Do the same in processes that are started from nothing."""
    with open(log, "ab") as output:
        started = [
            subprocess.Popen(
                [sys.executable, script, *arguments], env=one, stdout=output, stderr=output
            )
            for one in environments
        ]
        try:
            return [process.wait(timeout=seconds) for process in started]
        finally:
            for process in started:
                process.kill()


def _child(asked: dict[str, Any], environment: dict[str, str]) -> NoReturn:
    code, script = 1, asked["script"]
    try:
        os.chdir(asked["folder"])
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        output = os.open(asked["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.environ.clear()
        os.environ.update(environment)
        sys.argv = [script, *asked["arguments"]]
        runpy.run_path(script, run_name="__main__")
        code = 0
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _carry_out(asked: dict[str, Any]) -> list[int]:
    pids = []
    for environment in asked["environments"]:
        pid = os.fork()
        if pid == 0:
            _child(asked, environment)
        pids.append(pid)
    codes: dict[int, int] = {}
    until = time.monotonic() + asked["seconds"]
    while len(codes) < len(pids):
        for pid in set(pids) - set(codes):
            found, status = os.waitpid(pid, os.WNOHANG)
            if found:
                codes[pid] = os.waitstatus_to_exitcode(status)
        if any(codes.values()) or time.monotonic() > until:
            for pid in set(pids) - set(codes):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.02)
    return [codes[pid] for pid in pids]


def main() -> None:
    answers = os.dup(1)
    os.dup2(2, 1)  # imports may print
    from tests.faults.forked import warm_up

    warm_up()
    for line in sys.stdin:
        os.write(answers, (json.dumps(_carry_out(json.loads(line))) + "\n").encode())


if __name__ == "__main__":
    main()
