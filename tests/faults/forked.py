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
from contextlib import suppress
from dataclasses import dataclass, field
from importlib import import_module
from itertools import count
from pathlib import Path
from typing import Any

from sweeps.spec import RunSpec
from tests.faults.harm.inside import befall
from tests.faults.schedule import Fault
from tests.servers.hosts import Network
from workers.ranks.lasting_imports import lasting_imports

_numbers = count(1)


def warm_up() -> None:
    """Import what an attempt needs, on one thread."""
    os.environ.setdefault("DS_ACCELERATOR", "cpu")
    os.environ.setdefault("DEEPSPEED_LOG_LEVEL", "error")
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    with lasting_imports():
        import torch

        torch.set_num_threads(1)
        import pyarrow
        import transformers.models.gpt2.modeling_gpt2
        import transformers.models.opt.modeling_opt  # noqa: F401

        import workers.__main__
        import workers.engines.deepspeed
        import workers.train  # noqa: F401

        # What the first engine of a process imports: 2,400 modules, four seconds of each rank.
        for name in ("deepspeed.runtime.engine", "torch._dynamo", "torch._inductor.compile_fx"):
            import_module(name)

    pyarrow.set_cpu_count(1)


@dataclass
class Attempt:
    """The processes of one attempt at a run, by rank.

    ``fault`` is what it was given, and ``struck`` is there once that has befallen it; ``empty`` is
    the folder it was shown in the place of the store. It ``pays`` for one that was lost before.
    ``hosts`` are where its ranks are, if anywhere but here, and ``away`` those that cannot be
    reached, and so not be ended.
    """

    run: RunSpec
    pids: list[int]
    log: Path
    fault: Fault | None = None
    struck: Path | None = None
    empty: Path | None = None
    pays: bool = False
    codes: dict[int, int] = field(default_factory=dict)
    stopped: set[int] = field(default_factory=set)
    hosts: list[int] = field(default_factory=list)
    away: set[int] = field(default_factory=set)

    @property
    def ended(self) -> bool:
        return len(self.codes) == len(self.pids)

    @property
    def lost(self) -> bool:
        """Whether the process that writes was killed."""
        return self.codes[self.pids[0]] < 0

    @property
    def has_result(self) -> bool:
        """Whether it ended with a result of its run, its own or another attempt's."""
        ends = [f"run {self.run.run_id}: {status}" for status in ("finished", "diverged")]
        return self.codes[self.pids[0]] in (0, 1) and self.said()[-1] in ends

    def said(self) -> list[str]:
        """Return the lines of its output, one at least."""
        return self.log.read_text(encoding="utf-8", errors="replace").splitlines() or [""]

    def poll(self) -> bool:
        """Reap what has ended; a gang that lost a rank is ended, as torchrun does."""
        for pid in self.pids:
            if pid not in self.codes:
                found, status = os.waitpid(pid, os.WNOHANG)
                if found:
                    self.codes[pid] = os.waitstatus_to_exitcode(status)
        if any(code != 0 for code in self.codes.values()) and not self.ended:
            for pid in self.alive():
                if pid not in self.away:
                    os.kill(pid, signal.SIGKILL)
        return self.ended

    def leave(self, host: int) -> None:
        """Take note that a host cannot be reached; the ranks that can be are ended."""
        there = {pid for pid, at in zip(self.pids, self.hosts, strict=True) if at == host}
        self.away |= there & set(self.alive())
        if self.away:
            for pid in set(self.alive()) - self.away:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    def alive(self) -> list[int]:
        return [pid for pid in self.pids if pid not in self.codes]


def start(
    run: RunSpec,
    store: str,
    store_id: str,
    log: Path,
    fault: Fault | None = None,
    sabotage: Callable[[], None] | None = None,
    net: Network | None = None,
    hosts: list[int] | None = None,
) -> Attempt:
    """Fork an attempt, on hosts of a net if there is one, a rank on each; what befalls it from
    inside befalls the rank that writes."""
    number = next(_numbers)
    log = log.with_name(f"{log.stem}-{number}{log.suffix}")
    struck = log.parent / f"struck-{number}" if fault is not None else None
    empty = None
    if fault is not None and fault.kind == "no_mount":
        empty = log.parent / f"empty-{number}"
        empty.mkdir()
        store = str(empty)
    ranks = run.execution.processes or 1
    environments: list[dict[str, str]] = [{}]
    if ranks > 1:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = str(free.getsockname()[1])
        environments = [
            {
                "RANK": str(rank),
                "LOCAL_RANK": "0" if net else str(rank),
                "WORLD_SIZE": str(ranks),
                "MASTER_ADDR": net.address(hosts[0]) if net and hosts else "127.0.0.1",
                "MASTER_PORT": port,
                "GLOO_SOCKET_IFNAME": "eth0" if net else "lo",
            }
            for rank in range(ranks)
        ]
    spec = log.parent / f"{run.run_id}.json"
    spec.write_text(run.model_dump_json(), encoding="utf-8")
    words = ["workers", str(spec), "--store", store, "--store-id", store_id]
    pids: list[int] = []
    for rank, environment in enumerate(environments):
        pid = os.fork()
        if pid == 0:
            if net is not None and hosts:
                net.enter(hosts[rank])
            told = (fault, f"{store}/runs", struck) if fault and struck and not pids else None
            _child(words, log, environment, told, sabotage)
        pids.append(pid)
    return Attempt(run, pids, log, fault, struck, empty, hosts=list(hosts or []))


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
    words: list[str],
    log: Path,
    environment: dict[str, str],
    told: tuple[Fault, str, Path] | None,
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
        if told is not None:
            befall(*told)
        from workers.__main__ import main

        sys.argv = words
        code = main()
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
