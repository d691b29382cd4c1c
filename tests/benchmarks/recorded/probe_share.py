"""What share of a run's floating-point operations its probes are, at the settings of a sweep.

    python -m tests.benchmarks.recorded.probe_share [SWEEP.yaml]

Nothing is run and nothing is timed. Training and the probe's forward passes are counted as
``depthsweep plan`` counts them, by traces of a step; the metrics by Golub and Van Loan's counts, as
in ``tests.benchmarks.similarity``: every layer's reference and its null, once, a comparison a
probe, and each of 16 groups left out at the last. Operations say nothing of rates: those of
decompositions are in float64, and a GPU is slow at them.
"""

from __future__ import annotations

import argparse
import statistics
from collections import defaultdict
from pathlib import Path

from orchestrator.sizing.cost import estimate
from orchestrator.sizing.traces import stored_trace
from sweeps.declaration.expand import read_sweep
from sweeps.spec import RunSpec
from tests.benchmarks.similarity import work
from workers.probes.row_groups import GROUPS

PAPER = Path(__file__).resolve().parents[3] / "sweeps" / "library" / "paper.yaml"


def metric_operations(n: int, d: int, probes: int) -> float:
    """Return the float64 operations of one layer of n rows and width d in a run of so many probes.

    A reference is its reduction, two products over the rows, and eigenvalues with vectors, 9·k³.
    Leaving a group out takes three products over a sixteenth of the rows, one of the core, its
    determinant and eigenvalues.
    """
    k = min(n, d)
    by_matrix, by_vector = work(n, d)
    comparison = by_matrix + by_vector
    reduction = 2 * n * n * (d - n / 3) if n < d else 0.0
    reference = reduction + 2 * (2 * n * k * k) + 9 * k**3
    group = 3 * (2 * n * k * k) / GROUPS + (2 / 3 + 2 + 4 / 3) * k**3
    return reference + (probes + 1) * comparison + GROUPS * group


def shares(run: RunSpec) -> tuple[float, float] | None:
    """Return the shares of a run that are the probe's forward passes, and its metrics; None where
    its step has not been traced."""
    traced = stored_trace(run)
    if traced is None:
        return None
    probes = len(run.probe_steps)
    forwards = (probes + 1) * float(traced["probe_flops"])
    width, layers = int(traced["width"]), int(traced["layers"]) + 1
    metrics = layers * metric_operations(run.probe.rows_for(width), width, probes)
    whole = estimate(run).flops + metrics
    return forwards / whole, metrics / whole


def main() -> None:
    parser = argparse.ArgumentParser(description="Share of a run that is probing.")
    parser.add_argument("sweep", type=Path, nargs="?", default=PAPER)
    runs = read_sweep(parser.parse_args().sweep).runs
    found: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for run in runs:
        if (share := shares(run)) is not None:
            found[run.model.name].append(share)
    print(f"{'':24}{'runs':>5}{'forward':>10}{'metrics':>10}{'most':>8}")
    for name, each in found.items():
        forward, metrics = (statistics.mean(column) for column in zip(*each, strict=True))
        most = max(sum(pair) for pair in each)
        print(f"{name:24}{len(each):5}{forward:10.2%}{metrics:10.2%}{most:8.2%}")
    known = sum(map(len, found.values()))
    print(f"{known} of {len(runs)} runs have a traced step")


if __name__ == "__main__":
    main()
