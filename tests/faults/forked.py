"""Attempts as forks of a process that has imported everything: ``python -m workers`` in 0.1 s.

The forking process computes nothing itself and has no threads, so its children are as fresh ones.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sweeps.spec import RunSpec

# Which operations on the store can be the last of a process, as Python's audit events name them.
OPERATIONS = {"open", "os.rename", "os.remove", "os.link", "os.mkdir", "os.rmdir", "shutil.rmtree"}


def warm_up() -> None:
    """Import what an attempt needs, on one thread."""
    os.environ.setdefault("DS_ACCELERATOR", "cpu")
    os.environ.setdefault("DEEPSPEED_LOG_LEVEL", "error")
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    import torch

    torch.set_num_threads(1)
    import pyarrow
    import transformers.models.gpt2.modeling_gpt2
    import transformers.models.opt.modeling_opt  # noqa: F401

    import workers.__main__
    import workers.engines.deepspeed
    import workers.train  # noqa: F401

    pyarrow.set_cpu_count(1)


@dataclass
class Attempt:
    """The processes of one attempt at a run, by rank."""

    run: RunSpec
    pids: list[int]
    codes: dict[int, int] = field(default_factory=dict)
    stopped: set[int] = field(default_factory=set)

    @property
    def ended(self) -> bool:
        return len(self.codes) == len(self.pids)

    def poll(self) -> bool:
        """Reap what has ended; a gang that lost a rank is ended, as torchrun does."""
        for pid in self.pids:
            if pid not in self.codes:
                found, status = os.waitpid(pid, os.WNOHANG)
                if found:
                    self.codes[pid] = os.waitstatus_to_exitcode(status)
        if any(code != 0 for code in self.codes.values()) and not self.ended:
            for pid in self.alive():
                os.kill(pid, signal.SIGKILL)
        return self.ended

    def alive(self) -> list[int]:
        return [pid for pid in self.pids if pid not in self.codes]


def start(
    run: RunSpec,
    store: Path,
    log: Path,
    crash: tuple[int, int] | None = None,
    sabotage: Callable[[], None] | None = None,
) -> Attempt:
    """Fork an attempt; ``crash`` is (k, signal): it signals itself before its k-th operation."""
    ranks = run.execution.processes or 1
    environments: list[dict[str, str]] = [{}]
    if ranks > 1:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = str(free.getsockname()[1])
        environments = [
            {
                "RANK": str(rank),
                "LOCAL_RANK": str(rank),
                "WORLD_SIZE": str(ranks),
                "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": port,
            }
            for rank in range(ranks)
        ]
    spec = log.parent / f"{run.run_id}.json"
    spec.write_text(run.model_dump_json(), encoding="utf-8")
    pids = []
    for environment in environments:
        pid = os.fork()
        if pid == 0:
            _child(spec, store, log, environment, crash if not pids else None, sabotage)
        pids.append(pid)
    return Attempt(run, pids)


def in_a_child(task: Callable[[], Any]) -> None:
    """Run ``task`` in a fork, so that its threads are never forked; raise when it failed."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            task()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            os._exit(code)
    if os.waitpid(pid, 0)[1] != 0:
        raise RuntimeError("a step of the campaign failed; its traceback is above")


def _child(
    spec: Path,
    store: Path,
    log: Path,
    environment: dict[str, str],
    crash: tuple[int, int] | None,
    sabotage: Callable[[], None] | None,
) -> None:
    code = 1
    try:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.environ.update(environment)
        if sabotage is not None:
            sabotage()
        if crash is not None:
            _crash_at(store, *crash)
        from workers.__main__ import main

        sys.argv = ["workers", str(spec), "--store", str(store)]
        code = main()
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _crash_at(store: Path, last: int, number: int) -> None:
    """Send this process a signal right before its ``last``-th change of the store."""
    runs, seen = str(store / "runs"), [0]

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        if event not in OPERATIONS or not arguments:
            return
        if event == "open":
            mode, flags = arguments[1], arguments[2]
            writes = isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
            if not writes and not (isinstance(mode, str) and set(mode) & set("wax+")):
                return
        if any(str(path).startswith(runs) for path in arguments[:2]):
            seen[0] += 1
            if seen[0] == last:
                os.kill(os.getpid(), number)

    sys.addaudithook(watch)
