"""Hidden states of fixed probe tokens, caught by forward hooks at the blocks.

Only the rows that will be measured are kept, in float32 in the machine's memory: of each stack, one
matrix of (n, d) for what enters it and one for each call of a block, before any final norm.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sweeps.errors import UserError
from sweeps.leases.made_once import turn
from workers.data.datasets import Arrays
from workers.data.token_cache import CachedArrays, arrays_digest
from workers.depth.observation import entering, leaving
from workers.depth.stacks import Stack
from workers.models.pretrained import PretrainedModel, inputs_of
from workers.probes.rows import ProbeRows, undominated
from workers.progress import PULSE
from workers.ranks.process_group import ALONE, Ranks

SEQUENCES_A_FORWARD = 16
# Raise it with any change to what ``capture`` returns for one model and its rows, or to which of
# them are left out.
REFERENCE_VERSION = 2


class _Catcher:
    """Keeps the probe's rows of the state at each depth position, and checks what it is given.

    A hook sees one output of shape (batch, tokens, width) a call of a block; of anything else a row
    would be another token than it is taken for. Each stack's calls come in the order in which they
    were seen when the stack was found.
    """

    def __init__(self, stacks: Sequence[Stack]) -> None:
        self._stacks = tuple(stacks)
        self._first = list(accumulate((s.depth + 1 for s in stacks), initial=0))
        self.states: list[list[Tensor]] = [[] for _ in range(self._first[-1])]
        self._called: list[int] = []
        self._expected = (0, 0)
        self._picked: tuple[Tensor, Tensor] | None = None

    @contextmanager
    def forward(self, batch: Tensor, sequence: Tensor, position: Tensor) -> Iterator[None]:
        """Surround one forward of ``batch`` (b, T), of which the rows at the places are kept."""
        self._called = [0] * len(self._stacks)
        self._expected = (batch.shape[0], batch.shape[1])
        self._picked = (sequence, position)
        yield
        for stack, calls in zip(self._stacks, self._called, strict=True):
            if calls != stack.depth:
                raise UserError(
                    f"probe: the blocks of {stack.path} ran {calls} times in one forward pass, and"
                    f" {stack.depth} times when the model was loaded; what is no fixed number of"
                    " calls has no depth"
                )

    @contextmanager
    def hooked(self) -> Iterator[None]:
        """Surround the time in which outputs are caught."""
        handles: list[Any] = []
        for s, stack in enumerate(self._stacks):
            for index, block in enumerate(stack.blocks):
                handles.append(
                    block.register_forward_pre_hook(partial(self._enter, s), with_kwargs=True)
                )
                handles.append(block.register_forward_hook(partial(self._leave, s, index)))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _enter(self, s: int, _: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if self._called[s] == 0:
            self._keep(s, 0, entering(args, kwargs), args[0] if args else None)

    def _leave(self, s: int, index: int, _: Any, __: Any, output: Any) -> None:
        stack = self._stacks[s]
        layer = self._called[s] + 1
        if layer > stack.depth or stack.calls[layer - 1] != index:
            raise UserError(
                f"probe: block {index + 1} ({type(stack.blocks[index]).__name__}) of {stack.path}"
                f" ran as call {layer}, in another order than when the model was loaded; what has"
                " no fixed order has no depth"
            )
        self._called[s] = layer
        self._keep(s, layer, leaving(output), output)

    def _keep(self, s: int, layer: int, state: Any, given: Any) -> None:
        if state is None:
            raise UserError(f"{self._name(s, layer)} gives {type(given).__name__}, no hidden state")
        axes = self._stacks[s].axes
        state = state.movedim(axes, (0, 1)).flatten(2) if state.dim() >= 3 else state
        if state.dim() != 3 or tuple(state.shape[:2]) != self._expected:
            raise UserError(
                f"{self._name(s, layer)} gives {tuple(state.shape)} for {self._expected[0]}"
                f" sequences of {self._expected[1]} tokens, where (sequences, tokens, width) is"
                " needed; a model that fills up sequences takes a probe.sequence_length it fills"
            )
        if self._picked is not None:
            self.states[self._first[s] + layer].append(state[self._picked].float().cpu())

    def _name(self, s: int, layer: int) -> str:
        stack = self._stacks[s]
        index = stack.calls[max(0, layer - 1)]
        kind = type(stack.blocks[index]).__name__
        where = f"block {index + 1}" if layer else "what enters block 1"
        return f"probe: {where} ({kind}) of {stack.path} cannot be measured: it"


def capture(
    backbone: nn.Module, stacks: Sequence[Stack], rows: ProbeRows, device: torch.device
) -> list[Tensor]:
    """Return the hidden states of the rows, float32 tensors (n, d) on the CPU.

    They are those of ``positions(stacks)``: of each stack what enters it, and what leaves each of
    its calls. A decoder beside an encoder reads the same tokens. The forwards run on ``device`` in
    eval mode and float32, whatever precision the training has. Raises UserError where a block gives
    anything but one output of shape (sequences, tokens, width).
    """
    catcher = _Catcher(stacks)
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
                    backbone(**inputs_of(backbone, batch))
                PULSE.beat()
    finally:
        backbone.train(training)
    return [torch.cat(parts) for parts in catcher.states]


@dataclass(frozen=True)
class ReferenceStates:
    """The rows that are measured, and their states before fine-tuning, a tensor (n, d) a position.

    ``states`` is empty on a rank that compares nothing.
    """

    rows: ProbeRows
    states: list[Tensor]


def reference_states(
    pretrained: PretrainedModel,
    name: str,
    cache: Path,
    backbone: nn.Module,
    stacks: Sequence[Stack],
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
        "stacks": [[stack.path, stack.calls] for stack in stacks],
        "made_with": {package: version(package) for package in ("torch", "transformers")},
    }
    entry = CachedArrays(cache, "reference", key)
    arrays: Arrays = {}
    with turn(entry.path, lambda: entry.read() is None) if ranks.leads else nullcontext():
        found = entry.read() if ranks.leads else None
        if ranks.agree(found is None):
            states = capture(backbone, stacks, rows, device)
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
