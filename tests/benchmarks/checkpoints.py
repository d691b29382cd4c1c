"""What a checkpoint costs here: how long training waits for its copy, and when it is on the disk.

    python -m tests.benchmarks.checkpoints [--gib 1.5] [--folder DIR]

Beside it, in the same run, what it took to write layer after layer, read each back and hash it. The
rates are turned into the seconds of a model of 6.9B parameters.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import torch
from safetensors.torch import save_file
from torch import nn

from sweeps import spec
from sweeps.attempts.attempt import Attempt
from sweeps.store.run_folder import RunFolder
from workers.checkpoints.cadence import SPOT_NOTICE_SECONDS, checkpoint_bytes, notice_in_words
from workers.checkpoints.resuming import load_checkpoint
from workers.checkpoints.saving import CPU, Checkpoints
from workers.controls.layer_groups import LayerGroup
from workers.controls.registry import build_control
from workers.engines.plain import PlainEngine

PYTHIA_6_9B = 6_857_302_016
LAYERS = 8


class Alone:
    """Stands for an attempt where nothing is claimed."""

    label = "a1-00000000"

    def require_ownership(self) -> None:
        """It is always the owner."""

    require_not_superseded = require_ownership

    def log(self, message: str, level: str = "info", **fields: Any) -> None:
        """Nobody reads it."""


def engine_of(gib: float) -> PlainEngine:
    """Return an engine whose state has so many GiB, in like layers."""
    width = int((gib * 2**30 / checkpoint_bytes(1) / LAYERS) ** 0.5) // 64 * 64
    model = nn.Sequential(*(nn.Linear(width, width, bias=False) for _ in range(LAYERS)))
    groups = [
        LayerGroup(i, "block", ("weight",), tuple(layer.parameters()))
        for i, layer in enumerate(model, start=1)
    ]
    control, optimizer = build_control(spec.Standard()), spec.Optimizer(learning_rate=1e-3)
    return PlainEngine(model, groups, control, optimizer, "fp32")


def one_after_another(folder: Path, engine: PlainEngine) -> None:
    """Write each layer, sync it, read it back and hash it, as it was done once."""
    for i, group in enumerate(engine.groups):
        tensors = {
            f"{which}/{group.names[k]}": tensor
            for which in engine.tensors
            for k, tensor in engine.layer(i, which, CPU).items()
        }
        path = folder / f"before-{i}.safetensors"
        save_file(tensors, path)
        with path.open("rb") as file:
            os.fsync(file.fileno())
            hashlib.file_digest(file, "sha256")


def seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gib", type=float, default=1.5, help="GiB of state (default: 1.5)")
    parser.add_argument("--folder", help="on the disk to be measured (default: a temporary one)")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    engine = engine_of(arguments.gib)
    size = checkpoint_bytes(sum(engine.sizes))
    place = Path(tempfile.mkdtemp(prefix="checkpoints-", dir=arguments.folder))
    try:
        run = RunFolder(place)
        checkpoints = Checkpoints(run, engine, cast(Attempt, Alone()))
        copied = seconds(lambda: checkpoints.save(1))
        written = copied + seconds(checkpoints.wait)
        before = seconds(lambda: one_after_another(place, engine))
        read = seconds(lambda: load_checkpoint(run, engine))
    finally:
        shutil.rmtree(place)
    for name, taken in (
        ("training waits for the copy", copied),
        ("all is written and hashed", written),
        ("written, read back, hashed", before),
        ("resumed: read once, hashed", read),
    ):
        rate = f"{size / taken / 1e9:6.2f} GB/s"
        print(f"{name:<30}{taken:>7.2f} s {rate}  {taken / before:5.2f}×")
    whole = checkpoint_bytes(PYTHIA_6_9B)
    times = whole / size
    print(
        f"6.9B, {whole / 1e9:.1f} GB: training waits {copied * times:.0f} s, it counts after"
        f" {written * times:.0f} s, at 5 % of a run one in {written * times / 3:.0f} min;"
        f" resuming reads for {read * times:.0f} s"
    )
    print(notice_in_words(whole, size / written, 0.05, SPOT_NOTICE_SECONDS))
    return 0


if __name__ == "__main__":
    sys.exit(main())
