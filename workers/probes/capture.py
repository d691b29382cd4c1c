"""Hidden states of fixed probe tokens, caught by forward hooks at the blocks.

Only the rows that will be measured are kept, in float32 in the machine's memory: (L + 1) matrices
of (n, d). State 0 enters the first block; state i leaves block i, before any final norm.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sweeps.errors import UserError
from sweeps.leases.made_once import turn
from workers.data.array_file import Arrays
from workers.data.token_cache import CachedArrays, arrays_digest
from workers.models.pretrained import PretrainedModel
from workers.probes.rows import ProbeRows, undominated
from workers.progress import PULSE
from workers.ranks.process_group import ALONE, Ranks

SEQUENCES_A_FORWARD = 16
# Raise it with any change to what ``capture`` returns for one model and its rows, or to which of
# them are left out.
REFERENCE_VERSION = 2


class _Catcher:
    """Keeps the probe's rows of each block's output, and checks what it is given.

    A hook sees one output of shape (batch, tokens, width) a block and forward pass; of anything
    else a row would be another token than it is taken for.
    """

    def __init__(self, blocks: nn.ModuleList) -> None:
        self.states: list[list[Tensor]] = [[] for _ in range(len(blocks) + 1)]
        self._blocks = blocks
        self._caught = [0] * (len(blocks) + 1)
        self._expected = (0, 0)
        self._picked: tuple[Tensor, Tensor] | None = None

    @contextmanager
    def forward(self, batch: Tensor, sequence: Tensor, position: Tensor) -> Iterator[None]:
        """Surround one forward of ``batch`` (b, T), of which the rows at the places are kept."""
        self._caught = [0] * len(self._caught)
        self._expected = (batch.shape[0], batch.shape[1])
        self._picked = (sequence, position)
        yield
        for layer, times in enumerate(self._caught):
            if times != 1:
                raise UserError(f"{self._name(layer)} was called {times} times in one forward pass")

    @contextmanager
    def hooked(self) -> Iterator[None]:
        """Surround the time in which outputs are caught."""

        def entering(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            self._keep(0, args[0] if args else kwargs.get("hidden_states"))

        handles = [self._blocks[0].register_forward_pre_hook(entering, with_kwargs=True)]
        for layer, block in enumerate(self._blocks, start=1):
            handles.append(
                block.register_forward_hook(lambda *call, layer=layer: self._keep(layer, call[2]))
            )
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _keep(self, layer: int, value: Any) -> None:
        hidden = value[0] if isinstance(value, tuple) and value else value
        if not isinstance(hidden, Tensor):
            raise UserError(f"{self._name(layer)} gives {type(hidden).__name__}, no hidden state")
        if hidden.dim() != 3 or tuple(hidden.shape[:2]) != self._expected:
            raise UserError(
                f"{self._name(layer)} gives {tuple(hidden.shape)} for {self._expected[0]} sequences"
                f" of {self._expected[1]} tokens, where (sequences, tokens, width) is needed"
            )
        self._caught[layer] += 1
        if self._picked is not None:
            self.states[layer].append(hidden[self._picked].float().cpu())

    def _name(self, layer: int) -> str:
        block = self._blocks[max(0, layer - 1)]
        where = f"block {layer}" if layer else "what enters block 1"
        return f"probe: {where} ({type(block).__name__}) cannot be measured: it"


def capture(
    backbone: nn.Module, blocks: nn.ModuleList, rows: ProbeRows, device: torch.device
) -> list[Tensor]:
    """Return the hidden states of the rows, L + 1 float32 tensors (n, d) on the CPU.

    The forwards run on ``device`` in eval mode and float32, whatever precision the training has;
    the output head is not run. Raises UserError where a block gives anything but one output of
    shape (sequences, tokens, width).
    """
    catcher = _Catcher(blocks)
    training = backbone.training
    backbone.eval()
    try:
        with (
            catcher.hooked(),
            torch.inference_mode(),
            torch.autocast(device.type, enabled=False),
        ):
            for start in range(0, len(rows.input_ids), SEQUENCES_A_FORWARD):
                end = start + SEQUENCES_A_FORWARD
                here = (rows.sequence >= start) & (rows.sequence < end)
                batch = rows.input_ids[start:end].to(device)
                sequence = (rows.sequence[here] - start).to(device)
                with catcher.forward(batch, sequence, rows.position[here].to(device)):
                    backbone(input_ids=batch)
                PULSE.beat()
    finally:
        backbone.train(training)
    return [torch.cat(parts) for parts in catcher.states]


@dataclass(frozen=True)
class ReferenceStates:
    """The rows that are measured, and their states before fine-tuning, L + 1 tensors (n, d).

    ``states`` is empty on a rank that compares nothing.
    """

    rows: ProbeRows
    states: list[Tensor]


def reference_states(
    pretrained: PretrainedModel,
    name: str,
    cache: Path,
    backbone: nn.Module,
    blocks: nn.ModuleList,
    rows: ProbeRows,
    device: torch.device,
    ranks: Ranks = ALONE,
) -> ReferenceStates:
    """Return the states before fine-tuning of a model that errors call ``name``: from the cache, or
    captured now and put there.

    They depend on the pretrained model and the probe alone, so every run of the model shares them.
    Rows that dominate a layer are left out. With several ranks all capture, since the weights may
    be cut; the first one writes, reads and compares. Raises UserError where a state is not finite.
    """
    key = {
        "model": pretrained.content,
        "rows": arrays_digest(rows.input_ids.numpy(), rows.sequence.numpy(), rows.position.numpy()),
        "version": REFERENCE_VERSION,
        "made_with": {package: version(package) for package in ("torch", "transformers")},
    }
    entry = CachedArrays(cache, "reference", key)
    arrays: Arrays = {}
    with turn(entry.path, lambda: entry.read() is None) if ranks.leads else nullcontext():
        found = entry.read() if ranks.leads else None
        if ranks.agree(found is None):
            states = capture(backbone, blocks, rows, device)
            if ranks.leads:
                found = _arrays(name, states)
                entry.write(found)
        arrays = found or {}
    kept = torch.tensor(ranks.agree(arrays["kept"].tolist() if ranks.leads else []))
    names = sorted(name for name in arrays if name != "kept")
    return ReferenceStates(rows.only(kept), [torch.from_numpy(arrays[name]) for name in names])


def _arrays(name: str, states: list[Tensor]) -> Arrays:
    """Return what is kept of a reference: the states of its rows, and which rows these are."""
    for layer, state in enumerate(states):
        if not bool(state.isfinite().all()):
            raise UserError(
                f"model {name}: hidden state {layer} is not finite before fine-tuning: its weights"
                " are damaged, or it overflows in float32"
            )
    kept = undominated(states)
    arrays = {f"{i:04d}": state[kept].numpy() for i, state in enumerate(states)}
    return {**arrays, "kept": kept.numpy()}
