"""Checkpoints: each layer's float32 weights and moments, whole, and the rows they go with.

A checkpoint knows nothing of ranks or of a ZeRO stage: every layer is gathered, one at a time, and
written by rank 0, so it is resumed by any engine at any world size. The data, masks and learning
rate of a step are functions of (run, step) and dropout is off, so there is no generator, position
or schedule to keep: weights, moments and the step are all of a run's state.

It is written aside and counts once its manifest is there, written last. The manifest has size and
SHA-256 of each file and of the run's Parquet parts up to the step, so that resuming never trusts
rows that a crash has torn. A run that is told to stop between two parts has the rows since the last
one among the checkpoint's files. On an object store nothing can be moved into place: layers lie
under a name that no other save ever takes, and the manifest says which; what it does not list is
removed.
"""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from sweeps.files.objects import ObjectPath
from sweeps.files.patience import patiently
from sweeps.files.whole_files import (
    Place,
    file_checksum,
    local_file,
    read_if_readable,
    read_json,
    remove_folder,
    whole_file,
    whole_folder,
    write_json,
)
from sweeps.store.manifest import damage
from sweeps.store.store import RunFolder
from sweeps.store.writer import OnlookersWriter, RunWriter
from workers.engines.engine import LAYER_TENSORS, Engine
from workers.ranks.process_group import ALONE, Ranks

CPU = torch.device("cpu")


def save_checkpoint(
    folder: RunFolder,
    step: int,
    engine: Engine,
    guard: Callable[[], None],
    writer: RunWriter | OnlookersWriter | None = None,
) -> None:
    """Write the state after ``step`` and drop older checkpoints; a collective.

    ``guard`` raises to prevent that anything is put in place. The parts up to ``step`` must have
    been written before by ``writer``, whose rows since the last part go into the checkpoint.
    """
    path = folder.checkpoint_path(step)
    if engine.rank != 0:
        _write_layers(engine, None)
        return
    with _aside(path, guard) as aside:
        files = _write_layers(engine, aside)
        parts: dict[str, dict[str, Any]] = {}
        if writer is not None:
            parts = writer.parts()
            files |= {_listed(aside, name): entry for name, entry in writer.keep(aside).items()}
    manifest = {"step": step, "files": files, "parts": parts}
    patiently(partial(write_json, path / "manifest.json", manifest, guard), path)
    others: Iterable[Place] = (folder.path / "checkpoints").iterdir()
    for older in list(others):
        if older != path:
            remove_folder(older)
    if isinstance(path, ObjectPath):
        path.files.delete(
            f"{path.key}/{name}" for name in path.entries() if name not in (*files, "manifest.json")
        )


@contextmanager
def _aside(path: Place, guard: Callable[[], None]) -> Iterator[Place]:
    """Yield where layers go before they count; a local folder then takes its place at ``path``."""
    if isinstance(path, ObjectPath):
        yield path / secrets.token_hex(8)
        return
    guard()
    # What stands here has no manifest, or is of the same step and replaced.
    shutil.rmtree(path, ignore_errors=True)
    with whole_folder(path) as folder:
        yield folder
        guard()


def _write_layers(engine: Engine, aside: Place | None) -> dict[str, dict[str, Any]]:
    """Write every layer, or only take part; return what the manifest says of the files."""
    files: dict[str, dict[str, Any]] = {}
    for i, group in enumerate(engine.groups):
        tensors: dict[str, torch.Tensor] = {}
        for which in LAYER_TENSORS:
            for k, tensor in engine.layer(i, which, CPU).items():
                tensors[f"{which}/{group.names[k]}"] = tensor.contiguous()
        if aside is not None:
            file = aside / f"layer-{group.layer:04d}.safetensors"
            files[_listed(aside, file.name)] = patiently(partial(_write_layer, file, tensors), file)
    return files


def _listed(aside: Place, name: str) -> str:
    """Return the name of a file of ``aside`` under the checkpoint's path."""
    return name if isinstance(aside, Path) else f"{aside.name}/{name}"


def _write_layer(file: Place, tensors: dict[str, torch.Tensor]) -> dict[str, Any]:
    if isinstance(file, ObjectPath):
        with whole_file(file) as local:
            return _write_layer(local, tensors)
    try:
        save_file(tensors, file)
    except SafetensorError as error:  # it wraps the system's error, and with it what may pass
        raise OSError(None, str(error), str(file)) from error
    with file.open("rb") as written:
        os.fsync(written.fileno())
    return {"bytes": file.stat().st_size, "sha256": file_checksum(file)}


def load_checkpoint(folder: RunFolder, engine: Engine, ranks: Ranks = ALONE) -> int:
    """Set the engine to the newest complete checkpoint and return its step; 0 if there is none.

    One that fails its checksums is passed over for the one before it. A collective: the first rank
    chooses, and every other one loads exactly that. Raises CheckpointDiffers on a rank that sees
    another manifest under that step, or none, as a node with an older view of the folder does.
    """
    step, manifest = ranks.agree(_newest(folder) if ranks.leads else (0, None))
    if manifest is None:
        return 0
    path = folder.checkpoint_path(step)
    seen = read_if_readable(path / "manifest.json")
    if seen != manifest:
        raise CheckpointDiffers(
            f"run {folder.run_id}: rank {ranks.rank} does not see the checkpoint of step {step}"
            " that the first rank continues from: is the store the same folder on every node?"
        )
    _read_layers(path, manifest, engine)
    engine.optimizer.steps = step
    engine.publish()
    return step


class CheckpointDiffers(RuntimeError):
    """Ranks of one run do not see the same checkpoint."""


def _newest(folder: RunFolder) -> tuple[int, dict[str, Any] | None]:
    """Return the newest checkpoint without damage: its step and its manifest."""
    for step in reversed(folder.checkpoint_steps()):
        if damage(folder, step) is None:
            return step, read_json(folder.checkpoint_path(step) / "manifest.json")
    return 0, None


def _read_layers(path: Place, manifest: dict[str, Any], engine: Engine) -> None:
    names = {PurePosixPath(name).name: name for name in manifest["files"]}
    for i, group in enumerate(engine.groups):
        with local_file(path / names[f"layer-{group.layer:04d}.safetensors"]) as file:
            tensors = load_file(file)
        for which in LAYER_TENSORS:
            engine.set_layer(i, which, [tensors[f"{which}/{name}"] for name in group.names])
