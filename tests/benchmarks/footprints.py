"""Trace what the library's sweeps need, for ``orchestrator/sizing/traces.json``.

    python -m tests.benchmarks.footprints [--again]

What is there already is kept, unless ``--again`` says to trace all anew. A model that goes through
DeepSpeed is traced in every way that a plan may ask for.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path

from orchestrator.sizing.choice import LARGE, choose
from orchestrator.sizing.cost import parameter_count
from orchestrator.sizing.memory import GIB, estimate_memory, shape_of
from orchestrator.sizing.tracer import Tracer
from orchestrator.sizing.traces import FEW, SHIPPED, asked, key_of
from sweeps.declaration.expand import read_sweep
from sweeps.errors import UserError
from sweeps.spec import RunSpec

# What fits so many bytes is carried out with micro-batches of all its batch.
FITS_ANYWHERE = 40 * GIB
# GiB of the GPUs that people plan for.
USUAL_GPUS = (16, 24, 40, 48, 80, 141)
LIBRARY = Path(__file__).resolve().parents[2] / "sweeps" / "library"
SWEEPS = ("paper", "demo", "replica", "paper-verdicts", "replica-verdicts")


def wanted() -> Iterator[RunSpec]:
    """Yield the steps that are traced, alike ones once."""
    seen = set()
    for name in SWEEPS:
        for run in read_sweep(LIBRARY / f"{name}.yaml").runs:
            large = (parameter_count(run.model.source) or 0) >= LARGE
            ways = [("plain", run.batch_size, False)]
            shape = shape_of(run)
            if shape and estimate_memory(run, shape, run.execution.settled()).total > FITS_ANYWHERE:
                ways.append(("plain", FEW, False))  # a plan asks for smaller micro-batches
                ways += [("plain", rows, False) for rows in _cut_for_usual_gpus(run)]
            if large or run.execution.settled().engine == "deepspeed":
                ways = [
                    ("deepspeed", rows, again)
                    for again in (False, True)
                    for rows in (run.batch_size, FEW)
                ]
            for engine, rows, again in ways:
                ask = asked(run, rows, engine, again)
                if (key := key_of(ask)) not in seen:
                    seen.add(key)
                    yield ask


def _cut_for_usual_gpus(run: RunSpec) -> set[int]:
    """Return the micro-batches that a run is cut to where a GPU does not hold its batch at once;
    none before the ends are traced, so that a new model is traced in two goes."""
    found = set()
    for gib in USUAL_GPUS:
        with contextlib.suppress(UserError):  # it fits on none so small
            choice = choose(run, gib * GIB, 1)
            rows = None if choice is None else choice.execution.micro_batch_size
            if rows is not None and choice.execution.engine == "plain":
                found.add(rows)
    return found - {run.batch_size}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--again", action="store_true")
    again = parser.parse_args().again
    kept = {} if again else json.loads(SHIPPED.read_text(encoding="utf-8"))["traces"]
    asks = {key_of(ask): ask for ask in wanted()}
    found = {key: trace for key, trace in kept.items() if key in asks}
    tracer = Tracer(print, patience_seconds=3600)
    for number, (key, ask) in enumerate(asks.items(), start=1):
        if key in found:
            continue
        answer = tracer.ask({"run": ask.model_dump_json()}, "…")
        if "traced" not in answer:
            print(ask.describe(), answer)
            continue
        found[key] = answer["traced"]
        save(found)
        print(f"{number}/{len(asks)} {ask.describe()}: {answer['traced']['seconds']} s", flush=True)
    save(found)
    tracer.close()
    return 0


def save(found: dict[str, object]) -> None:
    lines = ",\n".join(
        f'"{key}":{json.dumps(found[key], separators=(",", ":"))}' for key in sorted(found)
    )
    SHIPPED.write_text(f'{{"traces":{{\n{lines}\n}}}}\n', encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
