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

from orchestrator.connection.nodes import local_ray
from orchestrator.policy.next_start import Waiting
from orchestrator.policy.occupancy import Demand
from orchestrator.policy.priorities import weights_for
from orchestrator.policy.simulation import lower_bound, simulate
from orchestrator.tuning.admission import START_SECONDS
from tests.benchmarks.scheduling.plain_sweep import sweep


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


def stock(runs: list[Waiting], gpus: int) -> tuple[float, list[str]]:
    """Return the seconds and the order of starts of Tune's own class trainables, listed so,
    processes reused."""
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
    with local_ray(gpus, gpus), tempfile.TemporaryDirectory() as scratch:
        began = time.monotonic()
        results = tune.Tuner(
            tune.with_resources(Stock, reserve),
            param_space={"run": tune.grid_search(listed)},
            tune_config=tune.TuneConfig(reuse_actors=True),
            run_config=tune.RunConfig(storage_path=scratch, verbose=0, callbacks=[Order()]),
        ).fit()
        assert results.num_errors == 0
        return time.monotonic() - began, order


def simulated(draws: int) -> None:
    """Print makespans over their bounds where every estimate is exact and Ray does as expected."""
    nodes = {
        "8": [("here", 8)],
        "4 + 4": [("a", 4), ("b", 4)],
        "8 x 8": [(f"{k}", 8) for k in range(8)],
        "64 x 8": [(f"{k}", 8) for k in range(64)],
    }
    print(f"simulated: runs of 2 to 20 minutes, each {START_SECONDS:.0f} s more for its start")
    print(f"  {'GPUs':<10} {'runs':>6} {'draws':>6} {'mean over bound':>16} {'most':>6}")
    for name, there in nodes.items():
        gpus = sum(count for _, count in there)
        ratios = []
        for seed in range(draws):
            runs = mixed(int(7.5 * gpus), 40.0, seed)
            weights = weights_for(runs, there, START_SECONDS)
            ratios.append(simulate(runs, there, weights, START_SECONDS).ratio)
        mean = sum(ratios) / draws
        print(
            f"  {name:<10} {len(runs):>6} {draws:>6} {mean:>16.3f} {max(ratios):>6.3f}", flush=True
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=60)
    parser.add_argument("--scale", type=float, default=1.0, help="of all seconds")
    parser.add_argument("--without-stock", action="store_true")
    parser.add_argument("--simulated", action="store_true", help="that alone, of larger clusters")
    parser.add_argument("--draws", type=int, default=12, help="of runs, in simulations")
    arguments = parser.parse_args()
    if arguments.simulated:
        simulated(arguments.draws)
        return
    runs = mixed(arguments.runs, arguments.scale)
    eight = [("here", 8)]
    bound = lower_bound(runs, eight)
    print(f"makespan: {len(runs)} sleeping runs on 8 pretended GPUs, bound {bound:.1f} s")
    print(f"  {'':<28} {'seconds':>8} {'over bound':>11}")

    def say(name: str, seconds: float) -> None:
        print(f"  {name:<28} {seconds:>8.1f} {seconds / bound:>11.2f}", flush=True)

    for start_seconds in (0.0, START_SECONDS):
        weights = weights_for(runs, eight, start_seconds)
        done = simulate(runs, eight, weights, start_seconds)
        say(f"simulated, starts of {start_seconds:.0f} s", done.makespan)
    say("ours", sweep(runs, 8, 8)[0])
    if not arguments.without_stock:
        say("stock Tune, reuse, as listed", stock(runs, 8)[0])
    small = [Waiting(f"{k:02}", Demand(), 2.0 * arguments.scale) for k in range(37)]
    small[4] = Waiting("04", Demand(gpus=4), 2.0 * arguments.scale)
    print("a run of the whole node listed 5th, 36 small ones, 4 pretended GPUs: it starts as")
    print(f"  {'ours':<28} {sweep(small, 4, 4)[1].index('04') + 1:>8}.", flush=True)
    if not arguments.without_stock:
        order = stock(small, 4)[1]
        print(f"  {'stock Tune, reuse, as listed':<28} {order.index('04') + 1:>8}.")


if __name__ == "__main__":
    main()
