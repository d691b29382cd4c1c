"""What a run ran on: the record beside its rows."""

from __future__ import annotations

import platform
import subprocess
import sys
from functools import cache, partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from sweeps.files.patience import patiently
from sweeps.files.whole_files import write_json
from sweeps.spec import RunSpec
from sweeps.store.records import sealed
from sweeps.store.store import RunFolder
from workers.models.pretrained import ModelFacts

PACKAGES = ("torch", "transformers", "datasets", "tokenizers", "numpy", "pyarrow")


def write_run_record(
    folder: RunFolder, run: RunSpec, facts: ModelFacts, device: torch.device
) -> None:
    """Write run.json: the resolved specification, the model's facts, and what it ran on."""
    record = {
        "run_id": run.run_id,
        "spec": run.model_dump(mode="json"),
        "facts": facts.as_record(),
        **made_on(device),
    }
    path = folder.path / "run.json"
    patiently(partial(write_json, path, sealed(record)), path)


def made_on(device: torch.device) -> dict[str, Any]:
    """Return the versions and hardware that something is made with here, as plain JSON data."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    return {
        "versions": {"python": sys.version.split()[0], **_versions()},
        "git_commit": _git_commit(),
        "hardware": {"device": device.type, "name": name, "threads": torch.get_num_threads()},
    }


@cache
def _versions() -> dict[str, str]:
    return {name: version(name) for name in PACKAGES}


@cache
def _git_commit() -> str | None:
    """Commit of the code that runs, when it runs from a checkout."""
    asked = ["git", "-C", str(Path(__file__).resolve().parent), "rev-parse", "HEAD"]
    try:
        found = subprocess.run(asked, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):  # no git here, or no checkout
        return None
    return found.stdout.strip()
