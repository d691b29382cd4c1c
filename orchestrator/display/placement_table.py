"""The placement of a sweep's runs as a table: each model, how it is carried out, and why."""

from __future__ import annotations

import json
import textwrap
from typing import Any

from orchestrator.display.output import wrapped
from orchestrator.sizing.choice import Choice, choose, execution_text
from orchestrator.sizing.gpu_pool import GpuPool
from orchestrator.sizing.memory import GIB
from orchestrator.sizing.traces import why_unknown
from sweeps.declaration.expand import Sweep
from sweeps.spec import RunSpec


def placements(sweep: Sweep, pool: GpuPool) -> list[tuple[list[RunSpec], Choice | None]]:
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
            seen[asked] = choose(run, pool.gib * GIB, pool.count, pool.host)
        choice = seen[asked]
        how = choice.execution.model_dump_json() if choice else ""
        alike.setdefault(f"{run.model.name} {how}", ([], choice))[0].append(run)
    return list(alike.values())


def placement_lines(sweep: Sweep, pool: GpuPool) -> list[str]:
    """Return the table, two or three lines a placement."""
    lines = [f"placement on {pool}"]
    for runs, choice in placements(sweep, pool):
        name = f"  {runs[0].model.name:<20} {len(runs):>4}"
        if choice is None:
            lines.append(f"{name}  size unknown before loading: one process, checked there")
            why = why_unknown(runs[0])
            lines += [] if why is None else textwrap.wrap(why, 76, initial_indent=" " * 4)[:1]
            continue
        how = execution_text(choice.execution)
        lines.append(f"{name}  {choice.memory.total / GIB:>5.1f} GiB  {how}")
        lines += _beside(choice.reason) + _beside(_held(choice))
    return lines


def _beside(said: str) -> list[str]:
    """Return what stands below how a run is carried out, in eighty columns."""
    return wrapped(said, first=" " * 30, rest=" " * 32)


def _held(choice: Choice) -> str:
    """Return what of a GPU is in tensors, most of it for what, and what the machine holds."""
    memory = choice.memory
    most = max(memory.terms, key=lambda name: memory.terms[name])
    return (
        f"tensors {memory.allocated / GIB:.1f} ({most} {memory.terms[most] / GIB:.1f}), machine"
        f" {memory.host * (choice.execution.processes or 1) / GIB:.1f}"
    )


def placement_data(sweep: Sweep, pool: GpuPool) -> dict[str, dict[str, Any]]:
    """Return the placement by run id, as plain data."""
    return {
        run.run_id: {
            "execution": json.loads(choice.execution.model_dump_json()),
            "gpu_bytes": choice.memory.total,
            "allocated": choice.memory.allocated,
            "terms": choice.memory.terms,
            "host_bytes_per_process": choice.memory.host,
            "reason": choice.reason,
        }
        for runs, choice in placements(sweep, pool)
        if choice is not None
        for run in runs
    }
