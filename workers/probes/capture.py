"""Hidden states of fixed probe tokens, caught by forward hooks at the blocks.

Only the rows that will be measured are kept, in float32: (L + 1) matrices of (n, d). State 0 enters
the first block; state i leaves block i, before any final norm.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sweeps.errors import UserError
from sweeps.spec import ModelSpec, Probe
from workers.data.datasets import load_rows, pack
from workers.data.token_cache import (
    CachedArrays,
    arrays_digest,
    cached_arrays,
    require_declared,
    tokenizer_digest,
)
from workers.ranks.process_group import ALONE, Ranks

SEQUENCES_A_FORWARD = 16
# Raise it with any change to what ``capture`` returns for one model and its rows.
REFERENCE_VERSION = 1


@dataclass(frozen=True)
class ProbeRows:
    """The probe's sequences and, in them, the tokens that are measured.

    ``input_ids`` is (S, T); ``sequence`` and ``position``, both (n,), are sorted by sequence.
    """

    input_ids: Tensor
    sequence: Tensor
    position: Tensor


def choose_rows(probe: Probe, tokenizer: Any, cache: Path) -> ProbeRows:
    """Choose the probe's rows: seeded, the same for every layer, checkpoint and run of a model.

    Position 0 and special tokens are left out: a few rows of huge norm, as attention sinks have,
    hide all other change. Raises UserError when the text has too few tokens.
    """
    key = {
        "probe": probe.data.identity(),
        "tokenizer": tokenizer_digest(tokenizer),
        "length": probe.sequence_length,
        "packed": "framed",
    }
    require_declared(probe.data)
    ids = cached_arrays(
        cache,
        key,
        lambda: pack(
            tokenizer,
            load_rows(probe.data, ("text",))["text"],
            probe.sequence_length,
            framed=True,
        ),
    )["input_ids"]
    generator = np.random.default_rng(probe.seed)
    order = generator.permutation(len(ids))
    special = np.isin(ids, tokenizer.all_special_ids)
    special[:, 0] = True
    # Enough sequences that half of the tokens in them are measured: neighbours repeat each other.
    usable = np.cumsum((~special[order]).sum(axis=1))
    needed = int(np.searchsorted(usable, 2 * probe.rows)) + 1
    order = order[:needed]
    candidates = np.argwhere(~special[order])
    if len(candidates) < probe.rows:
        raise UserError(
            f"probe: {probe.data.label} has {len(candidates)} usable tokens for {probe.rows} rows;"
            " lower `rows` or give more text"
        )
    chosen = candidates[np.sort(generator.permutation(len(candidates))[: probe.rows])]
    return ProbeRows(
        input_ids=torch.from_numpy(ids[order]).long(),
        sequence=torch.from_numpy(chosen[:, 0]),
        position=torch.from_numpy(chosen[:, 1]),
    )


def capture(
    backbone: nn.Module, blocks: nn.ModuleList, rows: ProbeRows, device: torch.device
) -> list[Tensor]:
    """Return the hidden states of the rows, L + 1 float32 tensors (n, d) on ``device``.

    The forwards run in eval mode and float32, whatever precision the training has; the output head
    is not run.
    """
    states: list[list[Tensor]] = [[] for _ in range(len(blocks) + 1)]
    picked: tuple[Tensor, Tensor] = (rows.sequence, rows.position)

    def keep(layer: int, value: Any) -> None:
        hidden = value[0] if isinstance(value, tuple) else value
        states[layer].append(hidden[picked[0], picked[1]].float())

    def entering(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        keep(0, args[0] if args else kwargs["hidden_states"])

    handles = [blocks[0].register_forward_pre_hook(entering, with_kwargs=True)]
    for layer, block in enumerate(blocks, start=1):
        handles.append(block.register_forward_hook(lambda *call, layer=layer: keep(layer, call[2])))
    training = backbone.training
    backbone.eval()
    try:
        with torch.inference_mode(), torch.autocast(device.type, enabled=False):
            for start in range(0, len(rows.input_ids), SEQUENCES_A_FORWARD):
                end = start + SEQUENCES_A_FORWARD
                here = (rows.sequence >= start) & (rows.sequence < end)
                picked = (
                    (rows.sequence[here] - start).to(device),
                    rows.position[here].to(device),
                )
                backbone(input_ids=rows.input_ids[start:end].to(device))
    finally:
        for handle in handles:
            handle.remove()
        backbone.train(training)
    return [torch.cat(parts) for parts in states]


def reference_states(
    model: ModelSpec,
    cache: Path,
    backbone: nn.Module,
    blocks: nn.ModuleList,
    rows: ProbeRows,
    device: torch.device,
    ranks: Ranks = ALONE,
) -> list[Tensor]:
    """Return the states before fine-tuning: from the cache, or captured now and put there.

    They depend on the pretrained model and the probe alone, so every run of the model shares them.
    With several ranks all capture, since the weights may be cut, and the first one writes.
    """
    key = {
        "model": model.source.identity(),
        "rows": arrays_digest(rows.input_ids.numpy(), rows.sequence.numpy(), rows.position.numpy()),
        "version": REFERENCE_VERSION,
        "transformers": version("transformers"),
    }
    entry = CachedArrays(cache, "reference", key)
    with entry.lock() if ranks.leads else nullcontext():
        if ranks.agree(entry.read() is None):
            states = capture(backbone, blocks, rows, device)
            if ranks.leads:
                entry.write({f"{i:04d}": s.cpu().numpy() for i, s in enumerate(states)})
    ranks.agree(None)  # the file is there
    loaded = entry.read()
    assert loaded is not None
    return [torch.from_numpy(loaded[name]).to(device) for name in sorted(loaded)]
