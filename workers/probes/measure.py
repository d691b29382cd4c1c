"""From hidden states to the rows of the tables ``profiles`` and ``jackknife``."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sweeps.spec import METRICS, Probe
from sweeps.statistics.quantities import quantities
from sweeps.store.schema import NULL_METRICS
from workers.depth.stacks import Position, Stack, positions
from workers.probes.capture import ReferenceStates, capture
from workers.probes.own_metrics import OwnMetrics
from workers.probes.quickest_device import quickest_device
from workers.probes.row_groups import changes_without, row_groups
from workers.probes.rows import largest_share
from workers.probes.similarity import Reference, compare, current_of, shuffled_null
from workers.probes.subspaces import Turns
from workers.progress import PULSE
from workers.spectra.inputs import Incomparable

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Measured:
    """One measurement: a row a depth position, whether all states were finite, and what of them
    cannot be compared.

    A layer that cannot be compared has a row all the same, with NaN for every metric. ``rows`` is
    empty on a rank that compares nothing. ``jackknife`` has a row a layer and group of probe
    sequences, over the rows of the other groups, where that was asked for and all is finite;
    ``own`` a row a layer and metric of the user's own; ``subspaces`` a row a pair of turns of a
    block that runs several times.
    """

    rows: list[dict[str, Any]]
    finite: bool
    incomparable: list[str] = field(default_factory=list)
    jackknife: list[dict[str, Any]] = field(default_factory=list)
    own: list[dict[str, Any]] = field(default_factory=list)
    subspaces: list[dict[str, Any]] = field(default_factory=list)

    def by_table(self) -> dict[str, list[dict[str, Any]]]:
        """Return its rows by the table that they are of."""
        return {
            "profiles": self.rows,
            "jackknife": self.jackknife,
            "metrics": self.own,
            "subspaces": self.subspaces,
        }

    def summary(self, step: int) -> dict[str, Any]:
        """Return what a watcher is told of a probe: its step, and the slope of the Procrustes
        distance over depth, None where a block has none; of several stacks, of the last one."""
        last = self.rows[-1]["stack"] if self.rows else None
        rows = [row for row in self.rows if row["layer"] and row["stack"] == last]
        changes = [[row["procrustes"] for row in rows]]
        slope = float(quantities(np.array(changes))["slope"][0]) if changes[0] else math.nan
        return {"step": step, "slope": slope if math.isfinite(slope) else None}


class DepthProbe:
    """Compares a model with its own past, call by call of its blocks, on fixed rows."""

    def __init__(
        self,
        probe: Probe,
        reference: ReferenceStates,
        backbone: nn.Module,
        stacks: Sequence[Stack],
        device: torch.device,
    ) -> None:
        self._probe = probe
        self._rows = reference.rows
        self._groups = row_groups(reference.rows)
        self._backbone = backbone
        self._stacks = tuple(stacks)
        self._positions = positions(stacks)
        self._device = device
        self._where = quickest_device(device, reference.states)
        self._own = OwnMetrics(probe.metrics, reference.states)
        self._shares = [largest_share(state) for state in reference.states]
        self._references = [
            self._prepared(state, f"{position.label} before fine-tuning")
            for position, state in zip(self._positions, reference.states, strict=False)
        ]
        self._turns = Turns(self._positions, self._references, self._where)
        self._nulls: dict[int, dict[str, float]] = {}

    def _prepared(self, state: Tensor, label: str) -> Reference | str:
        """Return a state ready to be compared, kept on the CPU; or why it never can be."""
        try:
            return Reference.of(state.to(self._where), label=label).to(CPU)
        except Incomparable as error:
            return str(error)

    def measure(self, step: int, *, jackknife: bool = False) -> Measured:
        """Return one row a depth position; a collective where ranks share the weights.

        Nulls are of the reference, so those of every step of a run are one computation. With
        ``jackknife`` also the rows without each group of sequences, for the time of about ten
        measurements.
        """
        states = capture(self._backbone, self._stacks, self._rows, self._device)
        rows, reasons = [], []
        for k, (position, before, state) in enumerate(
            zip(self._positions, self._shares, states, strict=False)
        ):
            PULSE.beat()
            try:
                metrics = self._compare(k, state, step)
            except Incomparable as error:
                metrics = _NOT_COMPARABLE
                reasons.append(str(error))
            rows.append(
                {
                    **_place(position),
                    "depth": position.depth,
                    "stack_layers": position.layers,
                    "rows": state.shape[0],
                    "width": state.shape[1],
                    "sequences": self._rows.sequences,
                    "rows_left_out": self._rows.left_out,
                    "largest_share_before": before,
                    "largest_share": largest_share(state),
                    **metrics,
                }
            )
        finite = all(bool(state.isfinite().all()) for state in states)
        without = self._without_groups(states) if jackknife and finite else []
        own = [
            {**_place(position), "depth": position.depth, **row}
            for k, (position, state) in enumerate(zip(self._positions, states, strict=False))
            for row in self._own.of_layer(k, state, position.label)
        ]
        turns = self._turns.rows(states) if self._references else []
        return Measured(rows, finite, reasons, without, own, turns)

    def _without_groups(self, states: list[Tensor]) -> list[dict[str, Any]]:
        """Return a row a layer and group: the change over the rows of all other groups."""
        rows = []
        for position, reference, state in zip(
            self._positions, self._references, states, strict=False
        ):
            PULSE.beat()
            try:
                if isinstance(reference, str):
                    raise Incomparable(reference)
                now = current_of(state.to(self._where), label=position.label)
            except Incomparable:
                changes = [{"rows": len(state), **_NO_DISTANCE}] * self._groups.count
            else:
                x = reference.to(self._where)
                changes = [asdict(each) for each in changes_without(x, now, self._groups)]
            for group, change in enumerate(changes):
                rows.append({**_place(position), "sequence_group": group, **change})
        return rows

    def _compare(self, layer: int, state: Tensor, step: int) -> dict[str, float]:
        """Return the metrics and nulls of a layer, by its number among the positions."""
        reference = self._references[layer]
        if isinstance(reference, str):
            raise Incomparable(reference)
        there, label = reference.to(self._where), self._positions[layer].label
        change = compare(there, state.to(self._where), label=f"{label} at step {step}")
        if layer not in self._nulls:
            # One shuffle a probe, the same for every layer and run, and at whatever step it is
            # first asked for.
            generator = torch.Generator().manual_seed(self._probe.seed)
            null = asdict(shuffled_null(there, generator))
            self._nulls[layer] = {f"{name}_null": null[name] for name in NULL_METRICS}
        return {**asdict(change), **self._nulls[layer]}


def _place(position: Position) -> dict[str, Any]:
    """Return the columns that say of which state a row is."""
    return {
        "layer": position.layer,
        "stack": position.stack,
        "block_number": position.block,
        "iteration": position.iteration,
        "block_class": position.block_class,
    }


_NO_DISTANCE = dict.fromkeys(NULL_METRICS, math.nan)
_NOT_COMPARABLE = dict.fromkeys([*METRICS, *(f"{name}_null" for name in NULL_METRICS)], math.nan)
