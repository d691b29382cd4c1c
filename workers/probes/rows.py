"""Which tokens of the probe's text are measured: chosen once per model and probe."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sweeps.errors import UserError
from sweeps.spec import PROBE_SEQUENCES, Probe
from workers.data.array_file import Arrays
from workers.data.datasets import stream_texts
from workers.data.packing import pack
from workers.data.token_cache import cached_arrays, require_declared, tokenizer_digest

# A row with more than so many times the median energy of its layer hides all other change.
DOMINANT = 20.0
# The columns that a probe reads, by their roles.
ROLES = ("text",)


@dataclass(frozen=True)
class ProbeRows:
    """The probe's sequences and, in them, the tokens that are measured.

    ``input_ids`` is (S, T); ``sequence`` and ``position``, both (n,), are sorted by sequence.
    ``left_out`` counts rows that were chosen and dominate a layer of the reference.
    """

    input_ids: Tensor
    sequence: Tensor
    position: Tensor
    left_out: int = 0

    @property
    def sequences(self) -> int:
        """How many sequences the rows are of."""
        return int(torch.unique(self.sequence).numel())

    def only(self, kept: Tensor) -> ProbeRows:
        """Return the rows for which ``kept`` (n,) is true; the others are left out."""
        return replace(
            self,
            sequence=self.sequence[kept],
            position=self.position[kept],
            left_out=self.left_out + int((~kept).sum()),
        )


def choose_rows(probe: Probe, width: int, tokenizer: Any, cache: Path) -> ProbeRows:
    """Choose the probe's rows for a model of so many features.

    Seeded, the same for every layer, checkpoint and run of a model: at most n / 64 of a sequence,
    one of each where n is smaller. Position 0 and special tokens are left out, since attention
    sinks have norms that hide all other change. Raises UserError when the text is too short.
    """
    wanted = probe.rows_for(width)
    ids = _sequences(probe, tokenizer, cache)
    generator = np.random.default_rng(probe.seed)
    special = np.isin(ids, tokenizer.all_special_ids)
    special[:, 0] = True
    most = max(1, wanted // PROBE_SEQUENCES)
    order: list[int] = []
    chosen: list[tuple[int, int]] = []
    for sequence in generator.permutation(len(ids)):
        usable = np.flatnonzero(~special[sequence])
        picked = generator.permutation(usable)[: min(most, wanted - len(chosen))]
        chosen += [(len(order), int(position)) for position in np.sort(picked)]
        order.append(int(sequence))
        if len(chosen) == wanted:
            break
    else:
        raise UserError(
            f"probe: {probe.data.label} gives {len(ids)} sequences of {ids.shape[1]} tokens and"
            f" {len(chosen)} rows of at most {most} a sequence, where {wanted} are needed for a"
            f" width of {width}: give more text, or lower `sequence_length` or `rows`"
        )
    places = torch.tensor(chosen)
    return ProbeRows(torch.from_numpy(ids[order]).long(), places[:, 0], places[:, 1])


def _sequences(probe: Probe, tokenizer: Any, cache: Path) -> Any:
    """Return the probe's text as (N, T) token ids, framed as the model was pretrained."""
    key = {
        "probe": probe.data.identity(),
        "tokenizer": tokenizer_digest(tokenizer),
        "length": probe.sequence_length,
        "packed": "framed",
    }
    require_declared(probe.data)

    def make() -> Arrays:
        try:
            return pack(tokenizer, stream_texts(probe.data), probe.sequence_length, framed=True)
        except UserError as error:
            raise UserError(f"probe {probe.data.label}: {error}") from None

    return cached_arrays(cache, key, make, f"the probe's {probe.data.label}")["input_ids"]


def undominated(states: list[Tensor]) -> Tensor:
    """Return which rows (n,) dominate no layer of ``states``, each (n, d).

    A row dominates a layer when its squared distance from the layer's mean row is above 20 times
    the median of the layer. A layer whose rows are mostly equal has no such measure and is skipped.
    """
    kept = torch.ones(len(states[0]), dtype=torch.bool)
    for state in states:
        energy = _energy(state)
        median = energy.median()
        if median > 0:
            kept &= (energy <= DOMINANT * median).cpu()
    return kept


def largest_share(state: Tensor) -> float:
    """Return the largest share of one row in the energy of a layer (n, d); NaN where it has none.

    Energies are squared distances from the mean row.
    """
    energy = _energy(state)
    total = float(energy.sum())
    return float(energy.max()) / total if total > 0 else float("nan")


def _energy(state: Tensor) -> Tensor:
    wide = state.to(torch.float64)
    return (wide - wide.mean(dim=0)).square().sum(dim=1)
