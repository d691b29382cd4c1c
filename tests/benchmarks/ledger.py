"""What is left of 24,000 runs: how long recovery takes to decide, on real files.

    python -m tests.benchmarks.ledger [--runs N]

A store is planted with runs of every state: 70 % finished, 10 % lost with a checkpoint, 5 % failed
twice, 5 % preempted, 10 % waiting. The limit is what the file system takes for the least that has
to be asked: to open each run's closing record, and for those without one to list the attempts, read
the newest and list the checkpoints.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections import Counter
from pathlib import Path

from orchestrator.ledger.recovery import decide, ledger
from orchestrator.studies import runs_as_they_stand
from sweeps.declaration.expand import Sweep, read_sweep
from sweeps.spec import RunSpec
from sweeps.store.store import Store

DONE = '{"status": "finished", "step": 60, "parts": {}}'
ATTEMPT = (
    '{"started": "2026-01-01T00:00:00.000+00:00", "ended": "2026-01-01T00:01:00.000+00:00",'
    ' "seconds": 60.0, "node": "n", "pid": 1, "resumed_from": 0, "cause": "%s", "error": null}'
)


def runs_of(count: int) -> tuple[RunSpec, ...]:
    first = read_sweep("sweeps/library/demo.yaml").runs[0]
    return tuple(first.model_copy(update={"seed": seed}) for seed in range(count))


def plant(store: Store, runs: tuple[RunSpec, ...]) -> None:
    for k, run in enumerate(runs):
        folder = store.root / "runs" / run.run_id
        kind = k % 20
        if kind >= 18:
            continue
        (folder / "attempts").mkdir(parents=True)
        if kind < 14:
            (folder / "attempts/1.json").write_text(ATTEMPT % "finished")
            (folder / "DONE.json").write_text(DONE)
            continue
        cause = {14: "lost", 15: "lost", 16: "failed", 17: "preempted"}[kind]
        (folder / "attempts/1.json").write_text(ATTEMPT % cause)
        (folder / "attempts/2.json").write_text(ATTEMPT % cause)
        checkpoint = folder / "checkpoints/step-000030"
        checkpoint.mkdir(parents=True)
        (checkpoint / "manifest.json").write_text("{}")


def least(store: Store, runs: tuple[RunSpec, ...]) -> None:
    """Ask the file system what every way to decide has to ask."""
    for run in runs:
        folder = f"{store.root}/runs/{run.run_id}"
        try:
            Path(f"{folder}/DONE.json").read_bytes()
        except FileNotFoundError:
            try:
                newest = max(os.listdir(f"{folder}/attempts"))
            except FileNotFoundError:
                continue
            Path(f"{folder}/attempts/{newest}").read_bytes()
            os.listdir(f"{folder}/checkpoints")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=24_000)
    arguments = parser.parse_args()
    runs = runs_of(arguments.runs)
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder))
        plant(store, runs)
        store.save_sweep(Sweep("many", "", "name: many\n", runs))
        seconds = {}
        for name, task in {
            "the file system alone": lambda: least(store, runs),
            "recovery decides": lambda: decide(runs, ledger(store)),
            "the sweep's record is read": lambda: store.load_sweep("many"),
            "status, record included": lambda: runs_as_they_stand(
                store, store.load_sweep("many"), ledger(store)
            ),
        }.items():
            began, used = time.monotonic(), time.process_time()
            task()
            seconds[name] = (time.monotonic() - began, time.process_time() - used)
        why = Counter(action.why for action in decide(runs, ledger(store)))
    said = ", ".join(f"{count} {name}" for name, count in why.items())
    print(f"ledger: {len(runs)} runs on a file system: {said}")
    _, limit = seconds["the file system alone"]
    print(f"  {'':<28} {'wall':>7}  {'CPU':>7}")
    for name, (wall, cpu) in seconds.items():
        print(f"  {name:<28} {wall:6.2f}s  {cpu:6.2f}s  {cpu / limit:5.1f} times the first")


if __name__ == "__main__":
    main()
