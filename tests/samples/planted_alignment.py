"""Studies of alignment whose outcomes are known: planted slopes, losses and refusal rates."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from sweeps.reading.tables import Tables, open_store
from sweeps.spec import Evaluation, FileData, PromptSet, Refusal, RunSpec
from sweeps.store.store import Store
from tests.samples.planted_store import run_spec, save_sweep, write_run

SEEDS = 5
# Slope and fall of the refusal rate under equal steps, beside 0.3 and 0.6 under standard training.
PLANTED = {
    "both_fall": (0.05, 0.10),
    "profile_falls": (0.05, 0.58),
    "degradation_falls": (0.29, 0.10),
    "neither_falls": (0.29, 0.58),
}
RATIOS = [1e-3 * (1 + i) for i in range(8)]
_PROMPTS = PromptSet(name="p", data=FileData(file="p.csv", digest="e" * 64))
ANSWERING = Evaluation(fraction=0.1, refusal=Refusal(prompts=(_PROMPTS,)))


def line(slope: float) -> list[float]:
    return [0.3 + slope * i / 8 for i in range(1, 9)]


def a_run(model: str, control: str, seed: int) -> RunSpec:
    return run_spec(model, "clm", control, seed).model_copy(update={"evaluation": ANSWERING})


def plant(
    root: Path,
    planted: dict[str, tuple[float, float]],
    *,
    reference: tuple[float, float] = (0.3, 0.6),
    final: tuple[float, float] = (2.0, 2.0),
    ratios: list[float] = RATIOS,
) -> Tables:
    """Write a model a case: losses fall from 3 to those of ``final``, of control and reference, and
    the refusal rate from 0.9 in proportion."""
    store, runs = Store.at(str(root / "store")), []
    noise = np.random.default_rng(0).normal(scale=0.005, size=(len(planted), 2, SEEDS, 2))
    for k, (model, own) in enumerate(planted.items()):
        for side, (control, values) in enumerate((("equal_step", own), ("standard", reference))):
            for seed in range(SEEDS):
                slope, fall = np.array(values) + noise[k, side, seed]
                run = a_run(model, control, seed)
                write_run(
                    store,
                    run,
                    line(slope),
                    ratios=ratios,
                    scores=lambda step, f=fall, s=side: {
                        "loss": 3.0 - (3.0 - final[s]) * step / 20,
                        "refusal_rate": 0.9 - f * step / 20,
                    },
                )
                runs.append(run)
    save_sweep(store, "planted", runs)
    return open_store(store.root, sweep="planted")
