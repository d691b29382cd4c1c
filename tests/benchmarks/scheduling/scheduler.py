"""Runs that do nothing, through our scheduler and as stock Ray Tune function trials.

What is left is the price of a run: of one shape, whose trials serve one run after another; of two
shapes, each trial in a light process of its own; and in stock Tune, where each is a process that
imports what a worker needs. CPU seconds are those of all processes, Ray's own included.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from typing import Any

from orchestrator.connection.nodes import local_ray
from orchestrator.policy.next_start import Waiting
from orchestrator.policy.occupancy import Demand
from tests.benchmarks.scheduling.cpu_seconds import CpuSeconds
from tests.benchmarks.scheduling.plain_sweep import sweep


def one_shape(runs: int, slots: int) -> float:
    waiting = [Waiting(f"{k:012x}", Demand(), 0.0) for k in range(runs)]
    return sweep(waiting, slots, reuse=True)[0]


def mixed(runs: int, slots: int) -> float:
    """Every other run has two ranks, so that no process serves both."""
    waiting = [Waiting(f"{k:012x}", Demand(gpus=1 + k % 2), 0.0) for k in range(runs)]
    return sweep(waiting, slots)[0]


def stock(runs: int, slots: int) -> float:
    from ray import tune

    def trial(config: dict[str, Any]) -> None:
        import workers.train  # noqa: F401

        tune.report({"run": config["run"], "loss": 0.0})

    began = time.monotonic()
    with local_ray(slots), tempfile.TemporaryDirectory() as scratch:
        results = tune.Tuner(
            tune.with_resources(trial, {"CPU": 1}),
            param_space={"run": tune.grid_search(list(range(runs)))},
            run_config=tune.RunConfig(storage_path=scratch, verbose=0),
        ).fit()
        assert len(results) == runs
        assert results.num_errors == 0
    return time.monotonic() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=240, help="of one shape")
    parser.add_argument("--mixed-runs", type=int, default=24)
    parser.add_argument("--stock-runs", type=int, default=24, help="240 takes 10 to 20 minutes")
    parser.add_argument("--slots", type=int, default=2)
    arguments = parser.parse_args()
    print(f"scheduler: runs that do nothing, {arguments.slots} slots, start of Ray included")
    print(f"  {'':<28} {'runs':>5} {'seconds':>8} {'s a run':>8} {'CPU-s a run':>12}")
    measured: dict[str, float] = {}
    kinds: tuple[tuple[str, Callable[[int, int], float], int], ...] = (
        ("ours, one shape", one_shape, arguments.runs),
        ("ours, mixed shapes", mixed, arguments.mixed_runs),
        ("stock function trials", stock, arguments.stock_runs),
    )
    for name, how, runs in kinds:
        with CpuSeconds() as used:
            seconds = how(runs, arguments.slots)
        measured[name] = seconds / runs
        each = f"{seconds:>8.1f} {seconds / runs:>8.3f} {used.all / runs:>12.2f}"
        print(f"  {name:<28} {runs:>5} {each}", flush=True)
    ratio = measured["stock function trials"] / measured["ours, one shape"]
    print(f"  stock takes {ratio:.1f} times as long a run as one shape does")


if __name__ == "__main__":
    main()
