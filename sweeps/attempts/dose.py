"""The dose of one run from its rows, which its closing record then says: of 240 runs it would be
half of the time in which findings are made."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pyarrow as pa

# Embedding and head are no blocks, whatever the scope of a control.
OUTSIDE_BLOCKS = ("embedding", "head")
# Sums are made in another order elsewhere: to so many digits it makes no difference.
DIGITS = 9
COLUMNS = ("layer", "stack", "group", "update_norm", "weight_norm", "steps_covered")


def dose_of(parts: Iterable[pa.Table]) -> dict[str, Any] | None:
    """Return ``dose``, ``dose_slope`` and over how many ``blocks`` they are, from tables with
    ``COLUMNS``; None where a block has no row, no weight or no step, or depth is not one number.

    Definitions "Profile", dose: R_l = √Σ_t (‖ΔW_l‖/‖W_l‖)², the ratio of its extremes and the
    least squares slope of its log₂ on relative depth, null where there is one block. Of a run that
    does not record every step a recorded one counts as often as it covers steps: an estimate.
    """
    squares: dict[int, float] = {}
    for part in parts:
        if "stack" in part.column_names and part["stack"].null_count < part.num_rows:
            return None
        inside = ~np.isin(part["group"].to_numpy(zero_copy_only=False), OUTSIDE_BLOCKS)
        layers = part["layer"].to_numpy()[inside]
        norms = (part[name].to_numpy()[inside] for name in ("update_norm", "weight_norm"))
        with np.errstate(all="ignore"):
            update, weight = norms
            ratios = (update / weight) ** 2 * _covered(part)[inside]
        for layer in np.unique(layers):
            mine = ratios[layers == layer]
            squares[int(layer)] = squares.get(int(layer), 0.0) + float(mine.sum())
    blocks = len(squares)
    if sorted(squares) != list(range(1, blocks + 1)) or not blocks:
        return None
    sizes = np.array([squares[layer] for layer in range(1, blocks + 1)])
    if not (np.isfinite(sizes) & (sizes > 0)).all():
        return None
    depth, log2 = np.arange(1, blocks + 1) / blocks, np.log2(sizes) / 2
    centred = depth - depth.mean()
    slope = float(centred @ log2 / (centred @ centred)) if blocks > 1 else None
    ratio = float(np.sqrt(sizes.max() / sizes.min()))
    return {
        "dose": float(f"{ratio:.{DIGITS - 1}e}"),
        # By its size in log₂: of equal blocks what is left over is of no fixed digits.
        "dose_slope": None if slope is None else round(slope, DIGITS),
        "blocks": blocks,
    }


def _covered(part: pa.Table) -> Any:
    """Return for how many steps each row stands; 1 where nothing is said."""
    if "steps_covered" not in part.column_names:
        return np.ones(part.num_rows)
    return part["steps_covered"].fill_null(1).to_numpy()
