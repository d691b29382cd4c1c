"""60 mixed sleeping runs on 8 pretended GPUs: wall time over its lower bound, ours and stock Tune.

Nothing is computed, so what lies above the bound is scheduling: the order, and starts of processes.
Also where a run of a whole node starts that is listed fifth, before 36 small ones.
"""

from __future__ import annotations

import argparse
import random
import tempfile
import time
from typing import Any

from orchestrator.tuning.trials import Offer

from orchestrator.connection.nodes import cluster_nodes, local_ray
from orchestrator.policy.next_start import Waiting
from orchestrator.policy.occupancy import Demand
from orchestrator.policy.priorities import weights_for
from orchestrator.policy.simulation import lower_bound, simulate
from orchestrator.sizing.placement import Placement, slots_of
from orchestrator.tuning.admission import Event
from orchestrator.tuning.trainable import RunTrainable
from orchestrator.tuning.tune_sweep import run_all
from workers.ranks.rank_process import Job


def mixed(runs: int, scale: float, seed: int = 0) -> list[Waiting]:
    """Return runs of 0.25 to 4 GPUs and 3 to 30 seconds, times ``scale``."""
    draw = random.Random(seed)
    return [
        Waiting(
            f"{k:03}",
            Demand.of(draw.choice([0.25, 0.25, 0.5, 0.5, 1, 1, 2, 4])),
            scale * draw.uniform(3, 30),
        )
        for k in range(runs)
    ]


def ours(runs: list[Waiting], gpus: int) -> tuple[float, list[str]]:
    """Return the seconds it took, and the runs in the order they began."""
    order: list[str] = []
    ended: list[str] = []

    def note(event: Event) -> None:
        if event.kind == "started":
            order.append(event.run_id)
        elif event.kind == "ended" and event.report["status"] == "finished":
            ended.append(event.run_id)

    began = time.monotonic()
    placement = Placement(gpus, 1, 1, 1)
    run_all(
        RunTrainable,
        [Offer(run, config_of(run)) for run in runs],
        lambda: slots_of(cluster_nodes(), placement),
        placement.holds,
        note,
    )
    assert sorted(ended) == sorted(run.run_id for run in runs)
    return time.monotonic() - began, order


def config_of(run: Waiting) -> dict[str, Any]:
    """Return a trial's config as ``depthsweep run`` makes it: each rank in a fresh process."""
    job = Job("", "", 1, body="tests.rank_bodies:sleep", details={"seconds": run.seconds})
    return {"run_id": run.run_id, "job": job, "fresh": True}


def stock(runs: list[Waiting]) -> tuple[float, list[str]]:
    """Return the same of Tune's own class trainables, in the order listed, processes reused."""
    from ray import tune
    from ray.tune import Callback, PlacementGroupFactory

    order: list[str] = []

    class Stock(tune.Trainable):  # type: ignore[misc]
        def setup(self, config: dict[str, Any]) -> None:
            self.run = config["run"]

        def step(self) -> dict[str, Any]:
            time.sleep(self.run[1])
            return {"done": True}

        def reset_config(self, new_config: dict[str, Any]) -> bool:
            self.setup(new_config)
            return True

        def save_checkpoint(self, checkpoint_dir: str) -> None:
            pass

    class Order(Callback):  # type: ignore[misc]
        def on_trial_start(self, *_: Any, trial: Any, **__: Any) -> None:
            order.append(trial.config["run"][0])

    def reserve(config: dict[str, Any]) -> PlacementGroupFactory:
        return PlacementGroupFactory([{"CPU": config["run"][2], "GPU": config["run"][2]}])

    listed = [(run.run_id, run.seconds, run.demand.total) for run in runs]
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as scratch:
        results = tune.Tuner(
            tune.with_resources(Stock, reserve),
            param_space={"run": tune.grid_search(listed)},
            tune_config=tune.TuneConfig(reuse_actors=True),
            run_config=tune.RunConfig(storage_path=scratch, verbose=0, callbacks=[Order()]),
        ).fit()
        assert results.num_errors == 0
    return time.monotonic() - began, order


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=60)
    parser.add_argument("--scale", type=float, default=1.0, help="of all seconds")
    parser.add_argument("--without-stock", action="store_true")
    arguments = parser.parse_args()
    runs = mixed(arguments.runs, arguments.scale)
    bound = lower_bound(runs, [("here", 8)])
    eight = [("here", 8)]
    ideal = simulate(runs, eight, weights_for(runs, eight)).makespan
    print(f"makespan: {len(runs)} sleeping runs on 8 pretended GPUs, bound {bound:.1f} s")
    print(f"  {'':<28} {'seconds':>8} {'over bound':>11}")
    print(f"  {'simulated, free starts':<28} {ideal:>8.1f} {ideal / bound:>11.2f}")
    with local_ray(Placement(8, 1, 1, 1)):
        wall, _ = ours(runs, 8)
        print(f"  {'ours':<28} {wall:>8.1f} {wall / bound:>11.2f}", flush=True)
        if not arguments.without_stock:
            wall, _ = stock(runs)
            print(f"  {'stock Tune, reuse, as listed':<28} {wall:>8.1f} {wall / bound:>11.2f}")
    small = [Waiting(f"{k:02}", Demand(), 2.0 * arguments.scale) for k in range(37)]
    small[4] = Waiting("04", Demand(gpus=4), 2.0 * arguments.scale)
    print("a run of the whole node listed 5th, 36 small ones, 4 pretended GPUs: it starts as")
    with local_ray(Placement(4, 1, 1, 1)):
        _, order = ours(small, 4)
        print(f"  {'ours':<28} {order.index('04') + 1:>8}.", flush=True)
        if not arguments.without_stock:
            _, order = stock(small)
            print(f"  {'stock Tune, reuse, as listed':<28} {order.index('04') + 1:>8}.")


if __name__ == "__main__":
    main()
