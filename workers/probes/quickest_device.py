"""Where metrics are computed: on the model's device or beside it, whichever is faster here.

Their float64 decompositions are the worst of a GPU's work, and a few cores may do them sooner;
which of the two depends on the card, the cores and who else uses them. So one comparison is timed
on each when a run starts. Both give the same numbers but for float64 rounding: so much the rows of
a run that is resumed, and finds otherwise, may differ from those of one that was not.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence

import torch
from torch import Tensor

from workers.probes.similarity import Reference, compare
from workers.spectra.inputs import Incomparable

CPU = torch.device("cpu")

LARGEST = 2048
"""Features, and half of the rows, of what is timed at most: a few seconds on one core."""


def quickest_device(device: torch.device, states: Sequence[Tensor]) -> torch.device:
    """Return where metrics of such states, each (n, d), are computed, ``device`` or the CPU.

    The first state that can be compared at all is compared with itself in another order of rows,
    twice on each; the second time counts, the first may load libraries. What was found is written
    to stderr. Nothing is timed where the model is on the CPU, or where no state can be compared.
    """
    if device.type == "cpu":
        return device
    for state in states:
        part = state[: 2 * LARGEST, :LARGEST]
        try:
            reference = Reference.of(part.to(CPU))
        except Incomparable:
            continue
        seconds = {place: _seconds(reference, part, place) for place in (device, CPU)}
        found = min(seconds, key=lambda place: seconds[place])
        said = ", ".join(f"{1e3 * took:.0f} ms on {place}" for place, took in seconds.items())
        size = " x ".join(str(length) for length in part.shape)
        print(f"metrics are computed on {found}: a layer of {size} takes {said}", file=sys.stderr)
        return found
    return device


def _seconds(reference: Reference, state: Tensor, place: torch.device) -> float:
    """Return how long a comparison takes there, the state brought there included."""
    there = reference.to(place)
    took = 0.0
    for _ in range(2):
        start = time.perf_counter()
        compare(there, state.flip(0).to(place))
        took = time.perf_counter() - start
    return took
