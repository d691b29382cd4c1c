"""Where the time of the replica's runs goes: one run of each model, in one process, profiled.

The profiler itself slows what makes many small calls, so read the shares, not the seconds. The
cache of a store in which the replica has run is used: stand-ins, tokens and reference states are
made once for many runs, and would hide what each run costs.
"""

from __future__ import annotations

import argparse
import cProfile
import pstats
import shutil
import tempfile
from pathlib import Path

import torch

from sweeps.declaration.expand import read_sweep
from sweeps.spec import RunSpec
from sweeps.store.store import Store
from workers.train import train

SWEEP = "sweeps/library/replica.yaml"
# What a run consists of: file and name of the function that does all of it.
PARTS = {
    "model: load": ("loading.py", "load_model"),
    "tokens: load or make": ("token_cache.py", "cached_arrays"),
    "layer groups": ("layer_groups.py", "find_layer_groups"),
    "forward": ("objective.py", "accumulate"),
    "backward": ("plain.py", "backward"),
    "optimizer, control, norms": ("plain.py", "step"),
    "probe: reference": ("capture.py", "reference_states"),
    "probe: capture and metrics": ("measure.py", "measure"),
    "rows and parts": ("writer.py", "end_step"),
    "checkpoints, copied": ("saving.py", "save"),
}
# A part that another one calls counts in the inner one alone.
INNER = {"forward": ("backward",)}


def one_of_each(runs: tuple[RunSpec, ...]) -> list[RunSpec]:
    """Return a single-process run of every model and objective."""
    chosen: dict[tuple[str, str], RunSpec] = {}
    for run in runs:
        if (run.execution.processes or 1) == 1:
            chosen.setdefault((run.model.name, run.objective.kind), run)
    return list(chosen.values())


def profiled(runs: list[RunSpec], store: Store) -> tuple[float, dict[str, float]]:
    """Return the seconds of all runs, and those of each part."""
    torch.set_num_threads(1)
    profiler = cProfile.Profile()
    for run in runs:
        profiler.enable()
        for _ in train(run, store, torch.device("cpu")):
            pass
        profiler.disable()
    statistics = pstats.Stats(profiler)
    seconds = dict.fromkeys(PARTS, 0.0)
    for (file, _, name), (*_, cumulative, _) in statistics.stats.items():  # type: ignore[attr-defined]
        for part, (place, function) in PARTS.items():
            if name == function and Path(file).name == place:
                seconds[part] += cumulative
    total = statistics.total_tt  # type: ignore[attr-defined]
    for part, inner in INNER.items():
        seconds[part] -= sum(seconds[each] for each in inner)
    return total, seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("store", help="A store in which the replica has run.")
    arguments = parser.parse_args()
    runs = one_of_each(read_sweep(SWEEP).runs)
    with tempfile.TemporaryDirectory(prefix="depthsweep-profile-") as scratch:
        store = Store.at(f"{scratch}/store")
        shutil.copytree(Store.at(arguments.store).cache, store.cache)
        total, seconds = profiled(runs, store)
    print(f"replica: {len(runs)} runs, one of each model and objective, {total:.0f} s")
    rest = total - sum(seconds.values())
    for part, spent in [*seconds.items(), ("the rest", rest)]:
        print(f"  {part:<28} {spent:>7.1f} s {spent / total:>6.1%}")


if __name__ == "__main__":
    main()
