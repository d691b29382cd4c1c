"""Going on from a checkpoint: chosen by the first rank, read once by all together.

Each rank reads its share of the layers and hashes them as they come in; only when all are whole is
anything put into the engine, since a run whose checkpoints are all harmed begins with the weights
that the engine has. Layers are held meanwhile as far as memory goes, then given to all.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import PurePosixPath
from typing import Any

from torch import Tensor

from sweeps.attempts.manifest import damage
from sweeps.files.whole_files import Place, read_if_readable, read_json
from sweeps.store.run_folder import RunFolder
from workers.checkpoints.layer_file import SUFFIX, file_name, read_layer, shares
from workers.checkpoints.spare_memory import spare_bytes
from workers.engines.engine import Engine
from workers.progress import PULSE
from workers.ranks.process_group import ALONE, Ranks


class CheckpointDiffers(RuntimeError):
    """Ranks of one run do not see the same checkpoint."""


def load_checkpoint(folder: RunFolder, engine: Engine, ranks: Ranks = ALONE) -> Place | None:
    """Set the engine to the newest complete checkpoint and return it; None if there is none.

    One that fails its checksums, or is of other layers, is passed over for the one before it. A
    collective: the first rank chooses, and every other one loads exactly that. Raises
    CheckpointDiffers on a rank that sees another manifest under that step, or none, as a node with
    an older view of the folder does.
    """
    harmed: list[str] = []
    while True:
        name, manifest = ranks.agree(_newest(folder, harmed) if ranks.leads else ("", None))
        if manifest is None:
            return None
        path = folder.path / "checkpoints" / name
        if read_if_readable(path / "manifest.json") != manifest:
            raise _differs(folder, path, ranks)
        share = _Share(path, manifest, engine, ranks)
        try:
            whole = share.read()
        except FileNotFoundError as error:
            raise _differs(folder, path, ranks) from error
        if all(ranks.all_say(whole)):
            break
        harmed.append(name)
    share.put()
    engine.optimizer.steps = folder.step_of(path)
    engine.publish()
    return path


def _differs(folder: RunFolder, path: Place, ranks: Ranks) -> CheckpointDiffers:
    return CheckpointDiffers(
        f"run {folder.run_id}: rank {ranks.rank} does not see the checkpoint of step"
        f" {folder.step_of(path)} that the first rank continues from: is the store the same folder"
        " on every node?"
    )


def _newest(folder: RunFolder, harmed: Collection[str]) -> tuple[str, dict[str, Any] | None]:
    """Return the newest checkpoint that nothing is seen to be wrong with: its name and manifest.

    Of layers the size is looked at: whoever loads them hashes them.
    """
    for path in reversed(folder.checkpoints()):
        if path.name not in harmed and damage(folder, path, unread=SUFFIX) is None:
            return path.name, read_json(path / "manifest.json")
    return "", None


class _Share:
    """The layers of a checkpoint that one rank reads."""

    def __init__(self, path: Place, manifest: dict[str, Any], engine: Engine, ranks: Ranks) -> None:
        self._path, self._engine, self._ranks = path, engine, ranks
        self._files = {PurePosixPath(name).name: name for name in manifest["files"]}
        self._accounts = manifest["files"]
        self._readers = shares(engine.sizes, ranks.size)
        self._held: dict[int, dict[str, Tensor]] = {}

    def read(self) -> bool:
        """Read this rank's layers; return whether all are whole and fit the engine's."""
        room = spare_bytes(self._ranks.size)
        for i, reader in enumerate(self._readers):
            if reader != self._ranks.rank:
                continue
            tensors = self._layer(i)
            if tensors is None:
                return False
            room -= sum(4 * tensor.numel() for tensor in tensors.values())
            if room >= 0:
                self._held[i] = tensors
        return True

    def put(self) -> None:
        """Give every rank its part of every layer; a collective."""
        for i, (group, reader) in enumerate(zip(self._engine.groups, self._readers, strict=True)):
            tensors: dict[str, Tensor] | None = None
            if reader == self._ranks.rank:
                tensors = self._held.pop(i, None) or self._layer(i)
                if tensors is None:
                    raise RuntimeError(f"{self._path}: changed while it was loaded")
            for which in self._engine.tensors:
                full = None
                if tensors is not None:
                    names = [group.names[k] for k in self._engine.held(i, which)]
                    full = [tensors[f"{which}/{name}"] for name in names]
                self._engine.set_layer(i, which, full, source=reader)
            PULSE.beat()

    def _layer(self, i: int) -> dict[str, Tensor] | None:
        group = self._engine.groups[i]
        name = self._files.get(file_name(group))
        if name is None:
            return None
        tensors = read_layer(self._path / name, self._accounts[name])
        PULSE.beat()
        return tensors if tensors is not None and self._fits(i, tensors) else None

    def _fits(self, i: int, tensors: dict[str, Tensor]) -> bool:
        """Return whether a file has all that there is of the layer's parameters."""
        names = self._engine.groups[i].names
        return {
            f"{which}/{names[k]}"
            for which in self._engine.tensors
            for k in self._engine.held(i, which)
        } <= tensors.keys()
