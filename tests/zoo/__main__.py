"""Every architecture of transformers, tiny, a step of three objectives under two controls.

    python -m tests.zoo                      those with a head for text, of each kind
    python -m tests.zoo --kind image_text    those of one kind
    python -m tests.zoo --only jamba zamba   some

Prints a line for each: works, or refused in which words, or broken (an error that is no refusal),
or not made (the rules of shrinking.py do not make a tiny one); and in what captured states differ
from the model's own. Exits with 1 when any is broken, or is refused in more than 300 characters.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
import warnings
from collections import Counter
from pathlib import Path

os.environ.setdefault("TRANSFORMERS_VERBOSITY", "critical")
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "samples"))

import torch

from sweeps.errors import UserError
from tests.zoo import trial
from workers.models.causality import require_causal

LONGEST = 300
WITH_A_HEAD = ("clm", "mlm", "span_corruption")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.zoo", description=__doc__)
    parser.add_argument("--kind", choices=[*trial.KINDS], action="append")
    parser.add_argument("--control", choices=[*trial.CONTROLS], action="append")
    parser.add_argument("--only", nargs="+", default=[])
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    total: Counter[str] = Counter()
    for kind in arguments.kind or WITH_A_HEAD:
        for model_type in trial.architectures(kind):
            if not arguments.only or model_type in arguments.only:
                began = time.monotonic()
                verdict, words = attempt(model_type, kind, arguments.control or [*trial.CONTROLS])
                seconds = f"{time.monotonic() - began:5.1f} s"
                print(f"{kind:16}{model_type:26}{verdict:10}{seconds}  {words}", flush=True)
                total[verdict] += 1
    print(", ".join(f"{count} {verdict}" for verdict, count in sorted(total.items())))
    return 1 if total[trial.BROKEN] else 0


def attempt(model_type: str, kind: str, controls: list[str]) -> tuple[str, str]:
    """Return how an architecture does, and what is to be said of it."""
    try:
        model, examined = trial.tiny(model_type, kind)
    except Exception as error:
        return trial.NOT_MADE, " ".join(f"{type(error).__name__}: {error}".split())[:200]
    if isinstance(examined, UserError):
        verdict = trial.REFUSED if len(str(examined)) < LONGEST else trial.BROKEN
        return verdict, str(examined)
    if trial.KINDS[kind][2] == "clm":
        try:
            require_causal(model_type, model)
        except UserError as error:
            return trial.REFUSED, str(error)
    found = dict(trial.tried(model, examined, kind, controls))
    verdicts = {outcome.verdict for outcome in found.values()}
    words = sorted({outcome.words for outcome in found.values()} - {""})
    try:
        words += [differs] if (differs := trial.captured(model, examined.stacks)) else []
    except Exception as error:
        return trial.BROKEN, f"capture: {type(error).__name__}: {error}"
    if trial.BROKEN in verdicts or any(len(said) >= LONGEST for said in words):
        return trial.BROKEN, " | ".join(words)
    return (trial.WORKS if trial.WORKS in verdicts else trial.REFUSED), " | ".join(words)


if __name__ == "__main__":
    sys.exit(main())
