"""Every architecture of transformers, tiny, under three objectives and two controls.

    python -m tests.zoo                      all of them, of each kind of head
    python -m tests.zoo --kind mlm           those of one kind
    python -m tests.zoo --only jamba zamba   some

Prints a line for each: works, or refused in which words, or broken (an error that is no refusal),
or cannot be made tiny by the rules of shrinking.py; and what captured states differ in from the
model's own. Exits with 1 when any is broken, or is refused in more than a line of 300 characters.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
import warnings
from collections import Counter
from pathlib import Path

os.environ.setdefault("TRANSFORMERS_VERBOSITY", "critical")
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "samples"))

import torch

from sweeps.store.store import Store
from tests.zoo import trial
from workers.assembly import assemble
from workers.ranks.process_group import ALONE

LONGEST = 300


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.zoo", description=__doc__)
    parser.add_argument("--kind", choices=[*trial.KINDS], action="append")
    parser.add_argument("--only", nargs="+", default=[])
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    total: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as root:
        store = Store(Path(root))
        for kind in arguments.kind or trial.KINDS:
            for model_type in trial.architectures(kind):
                if not arguments.only or model_type in arguments.only:
                    with tempfile.TemporaryDirectory() as folder:
                        total[line(model_type, kind, Path(folder), store)] += 1
    print(", ".join(f"{count} {verdict}" for verdict, count in sorted(total.items())))
    return 1 if total[trial.BROKEN] else 0


def line(model_type: str, kind: str, folder: Path, store: Store) -> str:
    """Print how an architecture does; return the verdict."""
    began = time.monotonic()
    try:
        model = trial.checkpoint(model_type, kind, folder)
    except Exception as error:
        said = " ".join(f"{type(error).__name__}: {error}".split())
        print(f"{kind:16}{model_type:26}{'not made':10}{said[:200]}", flush=True)
        return "not made"
    found: dict[str, trial.Outcome] = {}
    for objective in trial.objectives(model.source.pretraining):
        for control in trial.CONTROLS:
            found[f"{objective}/{control}"] = trial.tried(model, objective, control, store)
    counts = Counter(outcome.verdict for outcome in found.values())
    verdict = next(v for v in (trial.BROKEN, trial.WORKS, trial.REFUSED) if counts[v])
    words = []
    for name, outcome in found.items():
        if outcome.verdict != trial.WORKS and outcome.words not in words:
            words.append(outcome.words)
            if outcome.verdict == trial.REFUSED and len(outcome.words) >= LONGEST:
                verdict = trial.BROKEN
    if counts[trial.WORKS]:
        working = next(name for name, o in found.items() if o.verdict == trial.WORKS)
        run = trial._run(model, *working.split("/"))
        words += [w] if (w := trial.capture_differs(assemble(run, store, trial.CPU, ALONE))) else []
    how = f"{counts[trial.WORKS]}/{len(found)}"
    seconds = time.monotonic() - began
    said = " | ".join(words)
    print(f"{kind:16}{model_type:26}{verdict:10}{how:5}{seconds:5.1f} s  {said}", flush=True)
    return verdict


if __name__ == "__main__":
    sys.exit(main())
