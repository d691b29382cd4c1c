"""The process that traces steps, so that this one imports no torch: one for all that is asked.

``python -m workers.footprint`` reads a request a line and answers a line.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
# Longer than this and whoever waits is told for what.
SAID_AFTER_SECONDS = 2.0
# A recurrence in Python over thousands of tokens may take an hour: a formula has to do then.
PATIENCE_SECONDS = 300.0
# A step needs no memory and one thread; a GPU is of no use to it.
ENVIRONMENT = {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "0"}


class Tracer:
    """Asks a process of its own; it is started by the first question and ends with ``close``."""

    def __init__(
        self, say: Callable[[str], None], patience_seconds: float = PATIENCE_SECONDS
    ) -> None:
        self._say = say
        self._patience = patience_seconds
        self._process: subprocess.Popen[str] | None = None
        self._answers: queue.Queue[str] = queue.Queue()

    def ask(self, request: dict[str, Any], what: str) -> dict[str, Any]:
        """Return the answer to a request; ``what`` is said where it takes some time."""
        process = self._started()
        assert process.stdin is not None
        began, told = time.monotonic(), False
        try:
            process.stdin.write(json.dumps(request) + "\n")
            process.stdin.flush()
        except OSError:
            return self._ended()
        while time.monotonic() < began + self._patience:
            try:
                line = self._answers.get(timeout=SAID_AFTER_SECONDS)
            except queue.Empty:
                if not told:
                    self._say(what)
                told = True
                continue
            return dict(json.loads(line)) if line else self._ended()
        self.close()
        return {"unknown": f"a step takes more than {self._patience:.0f} s to trace"}

    def close(self) -> None:
        """End the process."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    with contextlib.suppress(OSError):
                        pipe.close()

    def _started(self) -> subprocess.Popen[str]:
        if self._process is None:
            paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
            self._process = subprocess.Popen(
                [sys.executable, "-m", "workers.footprint"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                env={
                    **os.environ,
                    **ENVIRONMENT,
                    "PYTHONPATH": os.pathsep.join(filter(None, paths)),
                },
            )
            self._answers = queue.Queue()
            reading = (self._process.stdout, self._answers)
            threading.Thread(target=_read, args=reading, daemon=True).start()
        return self._process

    def _ended(self) -> dict[str, Any]:
        process = self._process
        code = None if process is None else process.wait()
        self.close()
        return {"unknown": f"tracing ended with exit code {code}; is torch installed here?"}


def _read(lines: Any, answers: queue.Queue[str]) -> None:
    with contextlib.suppress(ValueError, OSError):
        for line in lines:
            answers.put(line)
    answers.put("")


_active: Tracer | None = None


@contextlib.contextmanager
def tracing(say: Callable[[str], None]) -> Iterator[None]:
    """Surround code for which steps that nobody has traced yet are traced now."""
    global _active
    before, _active = _active, Tracer(say)
    try:
        yield
    finally:
        _active.close()
        _active = before


def active_tracer() -> Tracer | None:
    """Return what traces now; None where only what is known counts."""
    return _active
