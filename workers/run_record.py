"""What a run ran on: the record beside its rows, and what each attempt at it was made with."""

from __future__ import annotations

import hashlib
import platform
import subprocess
import sys
from contextlib import suppress
from functools import cache, partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from sweeps.files.patience import patiently
from sweeps.files.whole_files import write_json
from sweeps.spec import RunSpec
from sweeps.store.records import PROVENANCE, VERSION, sealed
from sweeps.store.run_folder import RunFolder
from workers.models.pretrained import ModelFacts

HERE = Path(__file__).resolve()
# Beside this file in a wheel: the commit that it was built from (setup.py).
BUILT_FROM = "built_from.txt"
# The packages whose code decides a result.
CODE = ("sweeps", "workers")
# Where the driver of NVIDIA's GPUs says which it is.
DRIVER = Path("/sys/module/nvidia/version")


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
    patiently(partial(write_json, path, sealed(record), within=folder.path), path)


def made_on(device: torch.device) -> dict[str, Any]:
    """Return the versions and hardware that something is made with here, as plain JSON data."""
    found = provenance(device)
    return {
        "versions": {
            name.removesuffix(VERSION): said
            for name, said in found.items()
            if name.endswith(VERSION) and said is not None
        },
        "git_commit": found["git_commit"],
        "hardware": {
            "device": found["device"],
            "name": found["hardware"],
            "threads": torch.get_num_threads(),
        },
    }


def provenance(device: torch.device) -> dict[str, str | None]:
    """Return what a run on a device is made with here, by the names of ``PROVENANCE``; None for
    what is not installed, or not known."""
    on_gpu = device.type == "cuda"
    special = {
        "git_commit": _git_commit(),
        "code_digest": code_digest(HERE.parents[1]),
        "python_version": sys.version.split()[0],
        "cuda_version": torch.version.cuda if on_gpu else None,
        "driver_version": _driver() if on_gpu else None,
        "device": device.type,
        "hardware": torch.cuda.get_device_name(device) if on_gpu else platform.machine(),
    }
    return {
        name: special[name] if name in special else _installed(name.removesuffix(VERSION))
        for name in PROVENANCE
    }


@cache
def _installed(package: str) -> str | None:
    with suppress(PackageNotFoundError):
        return version(package)
    return None


@cache
def code_digest(root: Path) -> str:
    """Return 12 hex digits of SHA-256 over the code below a folder that decides a result.

    An edit changes no version, and code that was copied to a cluster has no commit.
    """
    digest = hashlib.sha256()
    for package in CODE:
        for path in sorted((root / package).rglob("*.py")):
            digest.update(f"{path.relative_to(root).as_posix()}\n".encode())
            digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:12]


@cache
def _git_commit() -> str | None:
    return git_commit(HERE)


def git_commit(file: Path) -> str | None:
    """Return the commit of the checkout that a file of this code is part of, or that the wheel was
    built from; None for a file that merely lies in the folder of some repository, and without
    git."""
    if _git(file.parent, "ls-files", "--error-unmatch", "--", file.name) is not None:
        return _git(file.parent, "rev-parse", "HEAD")
    with suppress(OSError, ValueError):
        return file.with_name(BUILT_FROM).read_text(encoding="ascii").strip() or None
    return None


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        said = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=False
        )
    except OSError:  # there is no git
        return None
    return said.stdout.strip() if said.returncode == 0 else None


@cache
def _driver() -> str | None:
    try:
        return DRIVER.read_text(encoding="ascii").strip() or None
    except (OSError, ValueError):
        return None
