"""Studies a report must tell apart: conditions of each kind, under names that bite; settings."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from sweeps.reading.tables import Tables, open_store
from sweeps.spec import Evaluation, FileData, Optimizer, PromptSet, Refusal, RunSpec
from sweeps.store.store import Store
from tests.samples.planted_measurements import (
    draws_of_slope,
    record_distance,
    record_propagation,
)
from tests.samples.planted_store import run_spec, save_sweep, write_run

LAYERS = 6


class Planted(NamedTuple):
    """Slopes of seeds 0, 1, … under standard training and under equal steps."""

    objective: str
    standard: tuple[float, ...]
    controlled: tuple[float, ...]
    dose: float = 3.0
    level: float = 0.2


STUDY = {
    'tiny <b>"gpt2"</b> & co': (
        Planted("clm", (0.30, 0.32, 0.29, 0.31), (0.28, 0.31, 0.27, 0.30)),  # persists
        Planted("contrastive", (0.20, 0.21, 0.19), (0.01, -0.01, 0.005)),  # collapses
    ),
    "tiny-opt": (
        Planted("clm", (0.30, 0.31, 0.32), (0.30, 0.31, 0.32), dose=1.05),  # idle
        Planted("contrastive", (0.25, 0.27), (0.24, 0.26)),  # insufficient
    ),
    "tiny-mamba": (
        Planted("clm", (0.04, -0.03, 0.02), (0.05, 0.02, -0.04)),  # no_reference, unbounded
        Planted("contrastive", (0.02, 0.021, 0.02), (0.02, 0.02, 0.021), level=0.97),  # saturated
    ),
    "tiny-bert": (
        Planted("clm", (0.30, 0.28, 0.31), (-0.29, -0.28, -0.31)),  # reverses
        Planted("contrastive", (0.30, 0.28, 0.31), (0.15, 0.01, 0.09)),  # inconclusive
    ),
}
VERDICTS_OF_STUDY = (
    *("persists", "collapses", "idle", "insufficient"),
    *("no_reference", "saturated", "reverses", "inconclusive"),
)


def plant_verdicts(root: Path, *, models: int = len(STUDY), distances: bool = True) -> Store:
    """Write the study as the sweep ``verdicts``; beyond four ``models`` more of the first kind."""
    store = Store.at(str(root))
    names = [*STUDY, *(f"model {k}" for k in range(len(STUDY), models))]
    runs = []
    for k, model in enumerate(names):
        for planted in STUDY.get(model, STUDY["tiny-bert"]):
            arms = (("standard", planted.standard), ("equal_step", planted.controlled))
            for control, slopes in arms:
                for seed, slope in enumerate(slopes):
                    run = run_spec(model, planted.objective, control, seed)
                    spread = planted.dose if control == "standard" else 1.0
                    write_run(
                        store,
                        run,
                        lambda x, s=slope, p=planted: p.level + max(s, 0) * x - min(s, 0) * (1 - x),
                        facts={"layers": LAYERS, "family": f"family {k}"},
                        ratios=[1e-3 * spread ** (i / (LAYERS - 1)) for i in range(LAYERS)],
                    )
                    runs.append(run)
        if distances:
            record_distance(store, runs[-1], [0.1 + 0.02 * k])
        if k == 0:
            record_distance(store, runs[0], [0.6])
        record_propagation(store, runs[-1], draws_of_slope(0.4, layers=LAYERS))
    save_sweep(store, "verdicts", runs)
    return store


# Of a sweep over learning rates and schedules, what equal steps keep of the slope in each.
KEPT_BY_SETTING = {
    (1e-3, "linear"): 0.9,
    (1e-3, "cosine"): 0.02,
    (1e-4, "linear"): 0.5,
    (1e-4, "cosine"): -0.9,
}


def plant_settings(root: Path, *, seeds: int = 3) -> Store:
    """Write one model under two learning rates × two schedules × two controls, as ``settings``; of
    each the slopes of standard training are 0.3 and those of equal steps a share of their own."""
    store = Store.at(str(root))
    runs = []
    for (rate, schedule), kept in KEPT_BY_SETTING.items():
        for control, share in (("standard", 1.0), ("equal_step", kept)):
            for seed in range(seeds):
                run = run_spec("m", "clm", control, seed)
                optimizer = Optimizer(learning_rate=rate, schedule=schedule)  # type: ignore[arg-type]
                run = run.model_copy(update={"optimizer": optimizer})
                slope = 0.3 * share + 0.003 * (seed - 1) * (1 if control == "standard" else 2)
                write_run(
                    store, run, lambda x, s=slope: 0.4 + s * (x - 0.5), facts={"layers": LAYERS}
                )
                runs.append(run)
    save_sweep(store, "settings", runs)
    return store


# --------------------------------------------------------------------------------------- alignment
ALIGNMENT_SEEDS = 5
# Slope and fall of the refusal rate under equal steps, beside 0.3 and 0.6 under standard training.
ALIGNMENT = {
    "both_fall": (0.05, 0.10),
    "profile_falls": (0.05, 0.58),
    "degradation_falls": (0.29, 0.10),
    "neither_falls": (0.29, 0.58),
}
UNLIKE_STEPS = [1e-3 * (1 + i) for i in range(8)]
_PROMPTS = PromptSet(name="p", data=FileData(file="p.csv", digest="e" * 64))
ANSWERING = Evaluation(fraction=0.1, refusal=Refusal(prompts=(_PROMPTS,)))


def line(slope: float) -> list[float]:
    return [0.3 + slope * i / 8 for i in range(1, 9)]


def a_run(model: str, control: str, seed: int) -> RunSpec:
    return run_spec(model, "clm", control, seed).model_copy(update={"evaluation": ANSWERING})


def plant_alignment(
    root: Path,
    planted: dict[str, tuple[float, float]],
    *,
    reference: tuple[float, float] = (0.3, 0.6),
    final: tuple[float, float] = (2.0, 2.0),
    ratios: list[float] = UNLIKE_STEPS,
    more: dict[str, dict[str, float]] | None = None,
) -> Tables:
    """Write a model a case: losses fall from 3 to those of ``final``, of control and reference, and
    the refusal rate from 0.9 in proportion. ``more`` are other scores at the last step, by control,
    in proportion too."""
    store, runs = Store.at(str(root / "store")), []
    noise = np.random.default_rng(0).normal(scale=0.005, size=(len(planted), 2, ALIGNMENT_SEEDS, 2))
    for k, (model, own) in enumerate(planted.items()):
        for side, (control, values) in enumerate((("equal_step", own), ("standard", reference))):
            others = (more or {}).get(control, {})
            for seed in range(ALIGNMENT_SEEDS):
                slope, fall = np.array(values) + noise[k, side, seed]
                run = a_run(model, control, seed)
                write_run(
                    store,
                    run,
                    line(slope),
                    ratios=ratios,
                    scores=lambda step, f=fall, s=side, m=others: {
                        "loss": 3.0 - (3.0 - final[s]) * step / 20,
                        "refusal_rate": 0.9 - f * step / 20,
                        **{name: value * step / 20 for name, value in m.items()},
                    },
                )
                runs.append(run)
    save_sweep(store, "planted", runs)
    return open_store(store.root, sweep="planted")
