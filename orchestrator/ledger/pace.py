"""How fast a sweep goes and how long it still takes, from what its store says."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from orchestrator.sizing.cost import estimate
from sweeps.spec import RunSpec
from sweeps.store.records import COMPLETE


@dataclass(frozen=True)
class Pace:
    """Runs finished an hour of wall time, and seconds left; None where nothing tells yet."""

    runs_per_hour: float | None
    seconds_left: float | None


def pace(runs: Sequence[RunSpec], standing: Sequence[dict[str, Any]]) -> Pace:
    """Return the pace of a sweep.

    ``standing`` says of each run, in the same order: state, checkpoint (step), seconds (in all its
    attempts), started and ended (ISO times). What is left is counted in estimated FLOPs, at the
    seconds a FLOP that finished runs took, divided among the runs that are under way.
    """
    done = [
        (run, said)
        for run, said in zip(runs, standing, strict=True)
        if said["state"] in COMPLETE and said["seconds"] and said["started"] and said["ended"]
    ]
    if not done:
        return Pace(None, None)
    began = min(datetime.fromisoformat(said["started"]) for _, said in done)
    ended = max(datetime.fromisoformat(said["ended"]) for _, said in done)
    wall = (ended - began).total_seconds()
    rate = len(done) / wall * 3600 if wall > 0 else None
    under_way = sum(said["state"] == "running" for said in standing)
    if not under_way:
        return Pace(rate, None)
    flops: dict[tuple[object, ...], float] = {}
    for run in runs:  # a seed costs nothing
        key = run.but_for_the_seed()
        if key not in flops:
            flops[key] = estimate(run).flops
    spent = sum(said["seconds"] for _, said in done)
    each = spent / sum(flops[run.but_for_the_seed()] for run, _ in done)
    left = sum(
        flops[run.but_for_the_seed()] * (1 - said["checkpoint"] / run.steps)
        for run, said in zip(runs, standing, strict=True)
        if said["state"] in ("running", "waiting", "lost", "cancelled")
    )
    return Pace(rate, left * each / under_way)


def failures_by_cause(standing: Sequence[dict[str, Any]]) -> list[tuple[str, int]]:
    """Return what failed or lost runs last said, most frequent first, with how many said it."""
    said = Counter(cause_of(run) for run in standing if run["state"] in ("failed", "lost"))
    return said.most_common()


def cause_of(run: dict[str, Any]) -> str:
    """Return why a run failed or was lost, as far as its last attempt said."""
    return run["error"] or "its process is gone"
