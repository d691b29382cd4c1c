"""Checkpoints: each layer's float32 weights and moments, whole, and the rows they go with.

A checkpoint knows nothing of ranks or of a ZeRO stage: every layer is gathered, one at a time, and
written by rank 0, so it is resumed by any engine at any world size. The data, masks and learning
rate of a step are functions of (run, step) and dropout is off, so there is no generator, position
or schedule to keep: weights, moments and the step are all of a run's state.

It lies under a name that no other attempt takes and counts once its manifest is there, written
last. The manifest has size and SHA-256 of each file and of the run's Parquet parts up to the step,
so that resuming never trusts rows that a crash has torn. A run that is told to stop between two
parts has the rows since the last one among the checkpoint's files. The two newest are kept: one
that turns out to be harmed has another before it.
"""

from __future__ import annotations

from functools import partial
from pathlib import PurePosixPath
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from sweeps.attempts.attempt import Attempt, OnlookersAttempt
from sweeps.attempts.manifest import damage
from sweeps.attempts.writer import OnlookersWriter, RunWriter
from sweeps.files.patience import patiently
from sweeps.files.whole_files import (
    Place,
    children,
    file_checksum,
    local_file,
    read_if_readable,
    read_json,
    remove_folder,
    whole_file,
    write_json,
)
from sweeps.store.run_folder import RunFolder
from workers.engines.engine import LAYER_TENSORS, Engine
from workers.ranks.process_group import ALONE, Ranks

CPU = torch.device("cpu")
# Of a run that goes on: should the newest be harmed, there is one before it.
KEPT_CHECKPOINTS = 2


def save_checkpoint(
    folder: RunFolder,
    step: int,
    engine: Engine,
    attempt: Attempt | OnlookersAttempt,
    writer: RunWriter | OnlookersWriter | None = None,
) -> None:
    """Write the state after ``step`` and drop all checkpoints but the two newest; a collective.

    The parts up to ``step`` must have been written before by ``writer``, whose rows since the last
    part go into the checkpoint. Raises Superseded where the run is another attempt's by then.
    """
    if isinstance(attempt, OnlookersAttempt):
        _write_layers(engine, None, None)
        return
    path = folder.checkpoint_path(step, attempt.label)
    files = _write_layers(engine, path, folder.path)
    parts: dict[str, dict[str, Any]] = {}
    if writer is not None:
        parts = writer.parts()
        files |= writer.keep(path)
    manifest = {"step": step, "files": files, "parts": parts}
    guard = attempt.require_not_superseded
    write = partial(write_json, path / "manifest.json", manifest, guard, within=folder.path)
    patiently(write, path)
    attempt.require_ownership()
    kept = folder.checkpoints()[-KEPT_CHECKPOINTS:]
    for older in children(folder.path / "checkpoints"):
        if older not in kept:
            remove_folder(older)


def _write_layers(
    engine: Engine, path: Place | None, within: Place | None
) -> dict[str, dict[str, Any]]:
    """Write every layer, or only take part; return what the manifest says of the files."""
    files: dict[str, dict[str, Any]] = {}
    for i, group in enumerate(engine.groups):
        tensors: dict[str, torch.Tensor] = {}
        for which in LAYER_TENSORS:
            for k, tensor in engine.layer(i, which, CPU).items():
                tensors[f"{which}/{group.names[k]}"] = tensor.contiguous()
        if path is not None:
            file = path / f"layer-{group.layer:04d}.safetensors"
            files[file.name] = patiently(partial(_write_layer, file, tensors, within), file)
    return files


def _write_layer(
    file: Place, tensors: dict[str, torch.Tensor], within: Place | None
) -> dict[str, Any]:
    with whole_file(file, within=within) as local:
        try:
            save_file(tensors, local)
        except SafetensorError as error:  # it wraps the system's error, and with it what may pass
            raise OSError(None, str(error), str(file)) from error
        return {"bytes": local.stat().st_size, "sha256": file_checksum(local)}


def load_checkpoint(folder: RunFolder, engine: Engine, ranks: Ranks = ALONE) -> Place | None:
    """Set the engine to the newest complete checkpoint and return it; None if there is none.

    One that fails its checksums is passed over for the one before it. A collective: the first rank
    chooses, and every other one loads exactly that. Raises CheckpointDiffers on a rank that sees
    another manifest under that step, or none, as a node with an older view of the folder does.
    """
    name, manifest = ranks.agree(_newest(folder) if ranks.leads else ("", None))
    if manifest is None:
        return None
    path = folder.path / "checkpoints" / name
    step = folder.step_of(path)
    seen = read_if_readable(path / "manifest.json")
    if seen != manifest:
        raise CheckpointDiffers(
            f"run {folder.run_id}: rank {ranks.rank} does not see the checkpoint of step {step}"
            " that the first rank continues from: is the store the same folder on every node?"
        )
    _read_layers(path, manifest, engine)
    engine.optimizer.steps = step
    engine.publish()
    return path


class CheckpointDiffers(RuntimeError):
    """Ranks of one run do not see the same checkpoint."""


def _newest(folder: RunFolder) -> tuple[str, dict[str, Any] | None]:
    """Return the newest checkpoint without damage: its name and its manifest."""
    for path in reversed(folder.checkpoints()):
        if damage(folder, path) is None:
            return path.name, read_json(path / "manifest.json")
    return "", None


def _read_layers(path: Place, manifest: dict[str, Any], engine: Engine) -> None:
    names = {PurePosixPath(name).name: name for name in manifest["files"]}
    for i, group in enumerate(engine.groups):
        with local_file(path / names[f"layer-{group.layer:04d}.safetensors"]) as file:
            tensors = load_file(file)
        for which in LAYER_TENSORS:
            engine.set_layer(i, which, [tensors[f"{which}/{name}"] for name in group.names])
