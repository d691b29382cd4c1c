"""What a run scored on held-out examples, from its rows: its closing record then says it."""

from __future__ import annotations

import math
from collections.abc import Iterable

import pyarrow as pa

from sweeps.spec import LOSS

COLUMNS = ("step", "score", "value")


def losses_of(parts: Iterable[pa.Table]) -> list[float]:
    """Return the mean loss of each evaluation, in order of steps, from tables with ``COLUMNS``."""
    found = {
        row["step"]: row["value"]
        for part in parts
        for row in part.select(COLUMNS).to_pylist()
        if row["score"] == LOSS
    }
    return [found[step] for step in sorted(found)]


def evaluation_of(parts: Iterable[pa.Table], last_step: int) -> dict[str, dict[str, float]]:
    """Return every finite score by name, before the first step under ``first``, and after
    ``last_step`` under ``last``; nothing of a moment at which the run was not evaluated."""
    moments = {0: "first", last_step: "last"}
    found: dict[str, dict[str, float]] = {"first": {}, "last": {}}
    for part in parts:
        for row in part.select(COLUMNS).to_pylist():
            value = row["value"]
            if row["step"] in moments and value is not None and math.isfinite(value):
                found[moments[row["step"]]][row["score"]] = value
    return found
