"""The placement of a sweep's runs as a table: each model, how it is carried out, and why."""

from __future__ import annotations

import json
from typing import Any

from orchestrator.sizing.memory import GIB
from orchestrator.sizing.placement import Choice, choose, execution_text
from sweeps.declaration.expand import Sweep
from sweeps.spec import RunSpec


def placements(
    sweep: Sweep, gpu_gib: float, gpus: int
) -> list[tuple[list[RunSpec], Choice | None]]:
    """Return runs that are carried out alike, in the sweep's order, with their choice.

    Raises UserError when a run fits in no way.
    """
    alike: dict[str, tuple[list[RunSpec], Choice | None]] = {}
    seen: dict[str, Choice | None] = {}
    for run in sweep.runs:
        sizes = run.model_dump_json(
            include={"batch_size", "sequence_length", "precision", "execution"}
        )
        rows = run.probe.model_dump_json(include={"rows", "rows_per_width"})
        asked = f"{run.model.name} {run.objective.kind} {rows} {sizes}"
        if asked not in seen:
            seen[asked] = choose(run, gpu_gib * GIB, gpus)
        choice = seen[asked]
        how = choice.execution.model_dump_json() if choice else ""
        alike.setdefault(f"{run.model.name} {how}", ([], choice))[0].append(run)
    return list(alike.values())


def placement_lines(sweep: Sweep, gpu_gib: float, gpus: int) -> list[str]:
    """Return the table, two lines a placement."""
    lines = [f"placement on {gpus} GPUs of {gpu_gib:g} GiB"]
    for runs, choice in placements(sweep, gpu_gib, gpus):
        name = f"  {runs[0].model.name:<20} {len(runs):>4}"
        if choice is None:
            lines.append(f"{name}  size unknown before loading: one process, checked there")
            continue
        how = execution_text(choice.execution)
        lines.append(f"{name}  {choice.memory.total / GIB:>5.1f} GiB  {how}")
        lines.append(f"{'':<40}{choice.reason}")
    return lines


def placement_data(sweep: Sweep, gpu_gib: float, gpus: int) -> dict[str, dict[str, Any]]:
    """Return the placement by run id, as plain data."""
    return {
        run.run_id: {
            "execution": json.loads(choice.execution.model_dump_json()),
            "gpu_bytes": choice.memory.total,
            "terms": choice.memory.terms,
            "host_bytes_per_process": choice.memory.host,
            "reason": choice.reason,
        }
        for runs, choice in placements(sweep, gpu_gib, gpus)
        if choice is not None
        for run in runs
    }
