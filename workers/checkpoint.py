"""Checkpoints: each layer's float32 weights and moments, whole, and the rows they go with.

A checkpoint knows nothing of ranks or of a ZeRO stage: every layer is gathered, one at a time, and
written by rank 0, so it is resumed by any engine at any world size. The data, masks and learning
rate of a step are functions of (run, step) and dropout is off, so there is no generator, position
or schedule to keep: weights, moments and the step are all of a run's state.

It is written aside and counts once its manifest is there, written last. The manifest has size and
SHA-256 of each file and of the run's Parquet parts up to the step, so that resuming never trusts
rows that a crash has torn.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from sweeps.results.schema import TABLES
from sweeps.results.store import RunFolder, file_checksum, read_json, whole_folder, write_json
from workers.engines.engine import LAYER_TENSORS, Engine

CPU = torch.device("cpu")


def save_checkpoint(
    folder: RunFolder, step: int, engine: Engine, guard: Callable[[], None]
) -> None:
    """Write the state after ``step`` and drop older checkpoints; a collective.

    ``guard`` raises to prevent that anything is put in place. The parts up to ``step`` must have
    been written before.
    """
    path = folder.checkpoint_path(step)
    leads = engine.rank == 0
    if leads:
        # What stands here has no manifest, or is of the same step and replaced.
        shutil.rmtree(path, ignore_errors=True)
    files: dict[str, dict[str, Any]] = {}
    if leads:
        with whole_folder(path) as aside:
            _write_layers(engine, aside, files)
            guard()
        write_json(
            path / "manifest.json", {"step": step, "files": files, "parts": _parts(folder, step)}
        )
        for older in sorted((folder.path / "checkpoints").glob("step-*")):
            if older != path:
                shutil.rmtree(older, ignore_errors=True)
    else:
        _write_layers(engine, None, files)


def _write_layers(engine: Engine, aside: Path | None, files: dict[str, dict[str, Any]]) -> None:
    for i, group in enumerate(engine.groups):
        tensors: dict[str, torch.Tensor] = {}
        for which in LAYER_TENSORS:
            for k, tensor in engine.layer(i, which, CPU).items():
                tensors[f"{which}/{group.names[k]}"] = tensor.contiguous()
        if aside is not None:
            file = aside / f"layer-{group.layer:04d}.safetensors"
            save_file(tensors, file)
            with file.open("rb") as written:
                os.fsync(written.fileno())
            files[file.name] = {"bytes": file.stat().st_size, "sha256": file_checksum(file)}


def load_checkpoint(folder: RunFolder, engine: Engine) -> int:
    """Set the engine to the newest complete checkpoint and return its step; 0 if there is none.

    One that fails its checksums is passed over for the one before it. A collective: every rank
    reads the files, which must be the same for all.
    """
    for step in reversed(folder.checkpoint_steps()):
        if damage(folder, step) is None:
            _read_layers(folder.checkpoint_path(step), engine)
            engine.optimizer.steps = step
            engine.publish()
            return step
    return 0


def _read_layers(path: Path, engine: Engine) -> None:
    for i, group in enumerate(engine.groups):
        tensors = load_file(path / f"layer-{group.layer:04d}.safetensors")
        for which in LAYER_TENSORS:
            engine.set_layer(i, which, [tensors[f"{which}/{name}"] for name in group.names])


def damage(folder: RunFolder, step: int) -> str | None:
    """Return what is wrong with a checkpoint or the rows it goes with, or None."""
    path = folder.checkpoint_path(step)
    try:
        manifest = read_json(path / "manifest.json")
        listed = {path / name: entry for name, entry in manifest["files"].items()}
        listed |= {folder.path / name: entry for name, entry in manifest["parts"].items()}
    except (OSError, ValueError, KeyError, AssertionError):
        return f"{path}/manifest.json cannot be read"
    for file, entry in listed.items():
        if not file.is_file():
            return f"{file} is missing"
        if file.stat().st_size != entry["bytes"]:
            return f"{file} has {file.stat().st_size} bytes of {entry['bytes']}"
        if file_checksum(file) != entry["sha256"]:
            return f"{file} does not match its checksum"
    return None


def _parts(folder: RunFolder, step: int) -> dict[str, dict[str, Any]]:
    return {
        str(path.relative_to(folder.path)): {
            "bytes": path.stat().st_size,
            "sha256": file_checksum(path),
        }
        for table in TABLES
        for path in folder.parts(table)
        if folder.last_step_of(path) <= step
    }
