"""240 runs that do nothing, through our scheduler and as stock Ray Tune function trials.

What is left is the price of a run: in ours, a warm process and one event; in stock Tune, a fresh
process that imports what a worker needs. The limit is the sum of in-run seconds (here none) over
slots. Stock trials take minutes by the hundred, so by default a subset is run and scaled.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from typing import Any

from orchestrator.tuning.trials import Offer

from orchestrator.connection.nodes import cluster_nodes, local_ray
from orchestrator.policy.next_start import Waiting
from orchestrator.policy.occupancy import Demand
from orchestrator.sizing.placement import Machine, place, slots_of
from orchestrator.tuning.admission import Event
from orchestrator.tuning.trainable import RunTrainable
from orchestrator.tuning.tune_sweep import run_all
from workers.ranks.rank_process import Job


def ours(runs: int, slots: int, fresh: bool) -> float:
    ended: list[str] = []

    def count(event: Event) -> None:
        if event.kind == "ended" and event.report["status"] == "finished":
            ended.append(event.run_id)

    began = time.monotonic()
    placement = place(Machine(slots, 0))
    job = Job("", "", 1, body="tests.rank_bodies:sleep", details={"seconds": 0.0})
    shape = {"job": job, "fresh": fresh}
    offers = [
        Offer(Waiting(str(k), Demand(), 0.1), {"run_id": str(k), **shape}) for k in range(runs)
    ]
    with local_ray(placement):
        run_all(
            RunTrainable,
            offers,
            lambda: slots_of(cluster_nodes(), placement),
            placement.holds,
            count,
        )
    assert sorted(ended, key=int) == [str(k) for k in range(runs)]
    return time.monotonic() - began


def stock(runs: int, slots: int) -> float:
    from ray import tune

    def trial(config: dict[str, Any]) -> None:
        import workers.train  # noqa: F401

        tune.report({"run": config["run"], "loss": 0.0})

    began = time.monotonic()
    with local_ray(place(Machine(slots, 0))), tempfile.TemporaryDirectory() as scratch:
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
    parser.add_argument("--runs", type=int, default=240)
    parser.add_argument("--stock-runs", type=int, default=24, help="240 takes 10 to 20 minutes")
    parser.add_argument("--slots", type=int, default=2)
    arguments = parser.parse_args()
    mine = ours(arguments.runs, arguments.slots, fresh=False)
    forked = ours(arguments.runs, arguments.slots, fresh=True)
    theirs = stock(arguments.stock_runs, arguments.slots)
    a, b = mine / arguments.runs, theirs / arguments.stock_runs
    print(f"scheduler: runs that do nothing, {arguments.slots} slots, start of Ray included")
    print(f"  {'':<26} {'runs':>5} {'seconds':>8} {'s a run':>8}")
    print(f"  {'ours, warm':<26} {arguments.runs:>5} {mine:>8.1f} {a:>8.3f}")
    print(
        f"  {'ours, fresh process':<26} {arguments.runs:>5} {forked:>8.1f}"
        f" {forked / arguments.runs:>8.3f}"
    )
    print(f"  {'stock function trials':<26} {arguments.stock_runs:>5} {theirs:>8.1f} {b:>8.3f}")
    print(f"  stock takes {b / a:.1f} times as long a run")


if __name__ == "__main__":
    main()
