"""A simulated sweep in lines of a terminal, and as data."""

from __future__ import annotations

from collections import Counter
from typing import Any

from orchestrator.display.progress import duration
from orchestrator.policy.simulation import Schedule
from orchestrator.sizing.gpu_pool import GpuPool


def simulation_lines(done: Schedule, pool: GpuPool, measured: int) -> list[str]:
    """Return the summary; ``measured`` estimates come from finished runs, the rest from FLOPs."""
    runs = len(done.stretches)
    shares = Counter(stretch.run.demand.total for stretch in done.stretches)
    held = ", ".join(f"{n} hold {gpus:g}" for gpus, n in sorted(shares.items()))
    return [
        f"simulated on {pool}: {runs} runs",
        f"  makespan     {duration(done.makespan)}",
        f"  lower bound  {duration(done.lower_bound)}, ratio {done.ratio:.3f}",
        f"  utilisation  {100 * done.utilisation:.0f} % of {done.gpus} GPUs",
        f"  GPU-hours    {done.gpu_seconds / 3600:.1f}",
        f"  GPUs a run   {held}",
        f"  estimates    {measured} from finished runs, {runs - measured} from FLOPs",
    ]


def simulation_data(done: Schedule, measured: int) -> dict[str, Any]:
    """Return the schedule as plain data; times in seconds from the beginning."""
    return {
        "makespan": done.makespan,
        "lower_bound": done.lower_bound,
        "ratio": done.ratio,
        "utilisation": done.utilisation,
        "gpu_hours": done.gpu_seconds / 3600,
        "measured_estimates": measured,
        "schedule": [
            {
                "run_id": stretch.run.run_id,
                "starts": stretch.starts,
                "ends": stretch.ends,
                "gpus": stretch.run.demand.total,
                "on": [f"{node} gpu {index}" for node, index in stretch.gpus],
            }
            for stretch in done.stretches
        ],
    }
