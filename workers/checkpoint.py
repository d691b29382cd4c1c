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
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from sweeps.results.manifest import damage, parts_until
from sweeps.results.patience import patiently
from sweeps.results.store import RunFolder, file_checksum, whole_folder, write_json
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
        guard()
        # What stands here has no manifest, or is of the same step and replaced.
        shutil.rmtree(path, ignore_errors=True)
    files: dict[str, dict[str, Any]] = {}
    if leads:
        with whole_folder(path) as aside:
            _write_layers(engine, aside, files)
            guard()
        manifest = {"step": step, "files": files, "parts": parts_until(folder, step)}
        patiently(partial(write_json, path / "manifest.json", manifest, guard), path)
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
            patiently(partial(_write_layer, file, tensors), file)
            files[file.name] = {"bytes": file.stat().st_size, "sha256": file_checksum(file)}


def _write_layer(file: Path, tensors: dict[str, torch.Tensor]) -> None:
    try:
        save_file(tensors, file)
    except SafetensorError as error:  # it wraps the system's error, and with it what may pass
        raise OSError(None, str(error), str(file)) from error
    with file.open("rb") as written:
        os.fsync(written.fileno())


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
