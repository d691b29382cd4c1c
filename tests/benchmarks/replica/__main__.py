"""Runs of the replica under our scheduler and as stock Ray Tune function trials.

The limit is the sum of in-run seconds over slots: what the attempts themselves took. Both sides get
the same runs of one process (every tenth), the same slots, one thread a run, and a store whose
cache already has the stand-ins, tokens and reference states, so that what differs is scheduling:
a warm process for many runs, or a fresh process and its imports for each.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from orchestrator.connection.nodes import local_ray
from orchestrator.ledger.sweep_account import Limits
from orchestrator.sweep_run import run_sweep
from sweeps.declaration.expand import Sweep, read_sweep
from sweeps.reading.digest import digests
from sweeps.reading.tables import open_store
from sweeps.spec import RunSpec
from sweeps.store.store import Store

SWEEP = "sweeps/library/replica.yaml"


def subset(sweep: Sweep, count: int) -> Sweep:
    """Return a sweep of ``count`` single-process runs, evenly spaced over the whole."""
    alone = [run for run in sweep.runs if (run.execution.processes or 1) == 1]
    chosen = tuple(alone[k * len(alone) // count] for k in range(count))
    return Sweep("subset", "", "name: subset\n", chosen, measurements=())


def ours(sweep: Sweep, store: Store, slots: int) -> None:
    assert run_sweep(sweep, store, limits=Limits(most_gpus=slots)).exit_code == 0


def stock(sweep: Sweep, store: Store, slots: int) -> None:
    from ray import tune

    place_of = str(store.root)

    def trial(config: dict[str, Any]) -> None:
        import torch

        from sweeps.store.store import Store
        from workers.train import train

        torch.set_num_threads(1)
        run = RunSpec.model_validate_json(config["spec"])
        for progress in train(run, Store.at(place_of), torch.device("cpu")):
            last = progress.step
        tune.report({"step": last})

    with local_ray(slots), tempfile.TemporaryDirectory() as scratch:
        results = tune.Tuner(
            tune.with_resources(trial, {"CPU": 1}),
            param_space={"spec": tune.grid_search([run.model_dump_json() for run in sweep.runs])},
            run_config=tune.RunConfig(storage_path=scratch, verbose=0),
        ).fit()
        assert results.num_errors == 0
    store.save_sweep(sweep)


def measured(
    go: Callable[[Sweep, Store, int], None], sweep: Sweep, store: Store, slots: int
) -> tuple[float, float]:
    """Return wall seconds, and the in-run seconds over slots that bound them."""
    began = time.monotonic()
    go(sweep, store, slots)
    wall = time.monotonic() - began
    in_runs = open_store(store.root, sweep=sweep.name).attempts().collect()["seconds"].sum()
    return wall, float(in_runs) / slots


def with_cache(folder: Path, cache: Path) -> Store:
    """Return a new store that has nothing but another one's cache."""
    shutil.copytree(cache, folder / "cache")
    return Store.at(str(folder))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=24)
    parser.add_argument("--slots", type=int, default=2)
    parser.add_argument("--store", help="A store of the replica, for its cache (default: made).")
    arguments = parser.parse_args()
    sweep = subset(read_sweep(SWEEP), arguments.runs)
    with tempfile.TemporaryDirectory(prefix="depthsweep-replica-") as scratch:
        if arguments.store is None:
            prepared = Store.at(f"{scratch}/prepared")
            ours(sweep, prepared, arguments.slots)
        else:
            prepared = Store.at(arguments.store)
        rows = []
        contents = []
        for name, go in (("depthsweep, warm", ours), ("stock function trials", stock)):
            store = with_cache(Path(scratch) / name.split()[0].strip(","), prepared.cache)
            rows.append((name, *measured(go, sweep, store, arguments.slots)))
            contents.append([d.sha256 for d in digests(open_store(store.root, sweep="subset"))])
    assert contents[0] == contents[1], "the two did not compute the same rows"
    print(f"replica: {len(sweep.runs)} of its runs, {arguments.slots} slots, Ray's start included")
    print(f"  {'':<24} {'seconds':>8} {'in runs / slots':>16} {'ratio':>6}")
    for name, wall, bound in rows:
        print(f"  {name:<24} {wall:>8.1f} {bound:>16.1f} {wall / bound:>6.2f}")
    print(f"  stock takes {rows[1][1] / rows[0][1]:.2f} times as long; the same rows, bit for bit")


if __name__ == "__main__":
    main()
