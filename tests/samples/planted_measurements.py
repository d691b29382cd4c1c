"""Results of training-free measurements whose values are known, as a worker writes them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from sweeps.files.whole_files import write_json
from sweeps.spec import Measurement, RunSpec
from sweeps.store.records import sealed
from sweeps.store.schema import NULL_METRICS
from sweeps.store.store import Store


def record_result(store: Store, measurement: Measurement, result: dict[str, Any]) -> None:
    """Write the closing record of a measurement."""
    closing = {"status": "finished", "step": 0, "loss": None, "parts": {}, "result": result}
    write_json(store.work(measurement.work_id).path / "DONE.json", sealed(closing))


def record_distance(
    store: Store, run: RunSpec, cosines: Sequence[float], *, noisy: bool = False
) -> float:
    """Write the objective distance of a run from the cosines of its blocks; return it."""
    distance = 1 - sum(cosines) / len(cosines)
    one = {"distance": distance, "low": distance - 0.05, "high": distance + 0.05, "noisy": noisy}
    common = {**one, "distance": distance / 2}
    measurement = Measurement(kind="objective_distance", run=run)
    record_result(store, measurement, {**one, "cosines": list(cosines), "common": common})
    return distance


def draws_of_slope(slope: float, *, layers: int = 12, spread: float = 0.02) -> list[list[float]]:
    """Return 20 draws of which slope_normalised has this mean and standard deviation."""
    depth = np.arange(1, layers + 1) / layers
    steps = np.linspace(-1, 1, 20)
    slopes = slope + spread * steps / steps.std(ddof=1)
    return [[float(d) for d in 0.2 * (1 + one * (depth - depth.mean()))] for one in slopes]


def record_propagation(
    store: Store,
    run: RunSpec,
    draws: Sequence[Sequence[float | None]],
    stacks: Sequence[tuple[str, int]] = (),
) -> None:
    """Write the propagation of a run's model: d of each draw and block, alike in every metric; the
    blocks of one stack after those of another."""
    result: dict[str, Any] = {
        "draws": {metric: [list(draw) for draw in draws] for metric in NULL_METRICS}
    }
    if stacks:
        result["stacks"] = [list(one) for one in stacks]
    record_result(store, Measurement(kind="propagation", run=run), result)
