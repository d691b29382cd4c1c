"""The records around a run's rows: each attempt at it, and what it ran on."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import time
import traceback
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import version
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch

from sweeps.results.store import RunFolder, write_json
from sweeps.spec import RunSpec
from workers.models import ModelFacts

PACKAGES = ("torch", "transformers", "datasets", "tokenizers", "numpy", "pyarrow")


class Attempt:
    """The record of one try at a run, written when it starts and again when it ends.

    Leaving the context without ``end`` records why: cancelled when the caller stopped, failed with
    the traceback otherwise.
    """

    def __init__(self, folder: RunFolder) -> None:
        self._folder = folder
        self._began = time.monotonic()
        self._ended = False
        self._record: dict[str, Any] = {
            "started": _now(),
            "ended": None,
            "seconds": None,
            "node": platform.node(),
            "pid": os.getpid(),
            "cause": None,
            "error": None,
        }

    def __enter__(self) -> Self:
        attempts = self._folder.attempts()
        self._number = attempts[-1]["attempt"] + 1 if attempts else 1
        self._write()
        return self

    def end(self, cause: str, error: str | None = None) -> None:
        seconds = round(time.monotonic() - self._began, 3)
        self._record |= {"ended": _now(), "seconds": seconds, "cause": cause, "error": error}
        self._ended = True
        self._write()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._ended:
            return
        if kind is None or issubclass(kind, (GeneratorExit, KeyboardInterrupt)):
            self.end("cancelled")
        else:
            self.end("failed", "".join(traceback.format_exception(kind, error, trace)))

    def _write(self) -> None:
        write_json(self._folder.attempt_path(self._number), self._record)


def run_record(folder: RunFolder, run: RunSpec, facts: ModelFacts, device: torch.device) -> None:
    """Write run.json: the resolved specification, the model's facts, and what it ran on."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    write_json(
        folder.path / "run.json",
        {
            "run_id": run.run_id,
            "spec": run.model_dump(mode="json"),
            "facts": facts.as_record(),
            "versions": {"python": sys.version.split()[0], **_versions()},
            "git_commit": _git_commit(),
            "hardware": {"device": device.type, "name": name, "threads": torch.get_num_threads()},
        },
    )


@cache
def _versions() -> dict[str, str]:
    return {name: version(name) for name in PACKAGES}


@cache
def _git_commit() -> str | None:
    """Commit of the code that runs, when it runs from a checkout."""
    here = Path(__file__).resolve().parent
    found = subprocess.run(
        ["git", "-C", str(here), "rev-parse", "HEAD"], capture_output=True, text=True, check=False
    )
    return found.stdout.strip() if found.returncode == 0 else None


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
