"""The 240 runs of the study as a store, written column by column."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from sweeps.attempts.dose import dose_of
from sweeps.spec import RunSpec
from sweeps.store.run_folder import RunFolder
from sweeps.store.schema import NULL_METRICS, TABLES
from sweeps.store.store import Store
from tests.samples.planted_measurements import record_distance
from tests.samples.planted_store import run_spec, save_sweep

# Model: block type, family, kind, parameters, L, width; seeds under (standard, equal_step) by
# objective. The 240 runs of the study, split as its definitions say.
_SMALL = {
    "bert-base-uncased": ("sequential", "bert", "encoder", 110e6, 12, 768),
    "bert-large-uncased": ("sequential", "bert", "encoder", 335e6, 24, 1024),
    "roberta-base": ("sequential", "roberta", "encoder", 125e6, 12, 768),
    "gpt2": ("sequential", "gpt2", "decoder", 124e6, 12, 768),
    "gpt2-medium": ("sequential", "gpt2", "decoder", 355e6, 24, 1024),
    "opt-125m": ("sequential", "opt", "decoder", 125e6, 12, 768),
    "opt-350m": ("sequential", "opt", "decoder", 331e6, 24, 1024),
    "pythia-160m": ("parallel", "gpt_neox", "decoder", 162e6, 12, 768),
    "pythia-410m": ("parallel", "gpt_neox", "decoder", 405e6, 24, 1024),
    "codegen-350M-mono": ("parallel", "codegen", "decoder", 357e6, 20, 1024),
    "mamba-130m": ("mixer", "mamba", "ssm", 129e6, 24, 768),
    "rwkv-4-169m": ("sequential", "rwkv", "rnn", 169e6, 12, 768),
}
_MID = {
    "opt-1.3b": ("sequential", "opt", "decoder", 1.3e9, 24, 2048),
    "pythia-1.4b": ("parallel", "gpt_neox", "decoder", 1.4e9, 24, 2048),
}
_LARGE = {"pythia-6.9b": ("parallel", "gpt_neox", "decoder", 6.9e9, 32, 4096)}
_CONTROLLED = ("bert-base-uncased", "opt-125m", "gpt2", "pythia-160m", "codegen-350M-mono")
_SHARPNESS = {
    "bert": 0.05,
    "roberta": 0.1,
    "gpt2": 0.15,
    "opt": 0.2,
    "gpt_neox": 0.25,
    "codegen": 0.3,
    "mamba": 0.35,
    "rwkv": 0.4,
}
_DISTANCE = {"clm": 0.2, "mlm": 0.2, "classification": 0.6, "contrastive": 0.9}


def paper_runs(**options: Any) -> list[tuple[RunSpec, dict[str, Any]]]:
    """Return the 240 runs of the study with the facts of their models."""
    found: list[tuple[RunSpec, dict[str, Any]]] = []

    def add(model: str, facts: tuple[Any, ...], objective: str, control: str, seeds: int) -> None:
        names = ("block", "family", "kind", "parameters", "layers", "width")
        known = {**dict(zip(names, facts, strict=True)), "parameters": int(facts[3])}
        for seed in range(seeds):
            found.append((run_spec(model, objective, control, seed, **options), known))

    for model, facts in _SMALL.items():
        pretraining = "mlm" if facts[2] == "encoder" else "clm"
        for objective in (pretraining, "classification", "contrastive"):
            add(model, facts, objective, "standard", 5)
            if model in _CONTROLLED:
                add(model, facts, objective, "equal_step", 3)
    for model, facts in _MID.items():
        add(model, facts, "clm", "standard", 2)
        add(model, facts, "classification", "standard", 2)
        add(model, facts, "clm", "equal_step", 2)
    for model, facts in _LARGE.items():
        add(model, facts, "clm", "standard", 2)
        add(model, facts, "clm", "equal_step", 1)
    return found


def plant_paper(
    root: Path,
    *,
    steps: int = 1000,
    part_steps: int = 100,
    times: int = 1,
    groups: int = 0,
    rates: Sequence[float] = (1e-3,),
) -> Store:
    """Write the study's 240 runs, column by column, so that millions of rows take seconds.

    Slopes follow the published pattern. ``times`` repeats every row of ``layers`` within its part,
    which makes a store of the same runs with as many times the rows. ``groups`` of probe sequences
    are left out in turn at the last step. Each learning rate of ``rates`` has the 240 runs.
    """
    store = Store.at(str(root))
    generator = np.random.default_rng(0)
    runs = [
        one
        for rate in rates
        for one in paper_runs(
            steps=steps,
            probe_every=max(steps // 4, 1),
            part_steps=part_steps,
            learning_rate=rate,
        )
    ]
    for run, facts in runs:
        folder = store.run(run.run_id)
        _write_records(folder, run, facts)
        parts: dict[str, Any] = {}
        layers: list[pa.Table] = []
        for first in range(0, steps, part_steps):
            last = min(first + part_steps, steps)
            for table, columns in _part(run, facts, first, last, times, groups, generator).items():
                path = folder.part_path(table, first, last)
                path.parent.mkdir(parents=True, exist_ok=True)
                data = _rows(columns, TABLES[table])
                pq.write_table(data, path, compression="zstd")
                layers += [data] if table == "layers" else []
                parts[str(path.relative_to(folder.path))] = {"rows": data.num_rows, "sha256": ""}
        closing = {"status": "finished", "step": steps, "parts": parts, "dose": dose_of(layers)}
        (folder.path / "DONE.json").write_text(json.dumps(closing))
        distance = _DISTANCE[run.objective.kind] + 0.002 * facts["layers"]
        record_distance(store, run, [1 - distance])
    save_sweep(store, "paper", [run for run, _ in runs])
    return store


def _rows(columns: dict[str, Any], schema: pa.Schema) -> pa.Table:
    """Return columns under a schema, in which those that are not given are null."""
    count = len(next(iter(columns.values())))
    empty = {one.name: pa.nulls(count, one.type) for one in schema if one.name not in columns}
    return pa.table({**columns, **empty}, schema=schema)


def _write_records(folder: RunFolder, run: RunSpec, facts: dict[str, Any]) -> None:
    (folder.path / "attempts").mkdir(parents=True)
    record = {
        "run_id": run.run_id,
        "spec": run.model_dump(mode="json"),
        "facts": facts,
        "versions": {"python": "3.11"},
        "git_commit": None,
        "hardware": {"cpus": 2},
    }
    (folder.path / "run.json").write_text(json.dumps(record))
    attempt = {
        "started": "2026-11-23T10:00:00+00:00",
        "ended": "2026-11-23T11:00:00+00:00",
        "node": "here",
        "pid": 1,
        "cause": "finished",
        "error": None,
        "seconds": 3600.0,
    }
    folder.attempt_path(1).write_text(json.dumps(attempt))


def _part(
    run: RunSpec,
    facts: dict[str, Any],
    first: int,
    last: int,
    times: int,
    groups_left_out: int,
    generator: np.random.Generator,
) -> dict[str, dict[str, Any]]:
    count, layers = last - first, facts["layers"]
    steps = np.arange(first + 1, last + 1, dtype=np.int32)
    equal = run.control.kind == "equal_step"
    groups = layers + 2
    rows = count * groups
    depth = np.arange(groups) / layers
    ratio = np.full(rows, 1e-3) if equal else np.tile(1e-3 * (0.5 + depth), count)
    weight = 10 + generator.random(rows)
    names = ["embedding", *[f"block {i}" for i in range(1, layers + 1)], "head"]
    found: dict[str, dict[str, Any]] = {
        "steps": {
            "run_id": [run.run_id] * count,
            "step": steps,
            "loss": 3.0 + np.exp(-steps / 200) + 0.05 * generator.random(count),
            "scheduled_learning_rate": np.full(count, 1e-4),
            "grad_norm": generator.random(count),
            "clip_coefficient": np.ones(count),
            "targets": np.full(count, 4096),
        },
        "layers": {
            "run_id": [run.run_id] * (rows * times),
            "step": np.repeat(steps, groups * times),
            "layer": np.tile(np.repeat(np.arange(groups, dtype=np.int16), times), count),
            "group": np.tile(np.repeat(np.array(names), times), count),
            "grad_norm": generator.random(rows * times),
            "weight_norm": np.repeat(weight, times),
            "update_norm": np.repeat(weight * ratio, times),
            "coefficient": np.ones(rows * times),
        },
    }
    probed = [step for step in run.probe_steps if first < step <= last]
    if probed:
        kept = not equal or facts["block"] == "sequential" or run.objective.kind == "clm"
        slope = (0.1 + 0.3 * _DISTANCE[run.objective.kind]) * (1.0 if kept else 0.0)
        slope += 0.01 * (run.seed - 1)
        d = np.arange(layers + 1) / layers
        # A pattern that narrows the profile by family and leaves its slope alone.
        x = d[1:]
        pattern = (-1.0) ** np.arange(layers)
        pattern -= np.polyval(np.polyfit(x, pattern, 1), x)
        profile = np.zeros(layers + 1)
        profile[1:] = 0.6 + slope * (x - 0.5) + _SHARPNESS[facts["family"]] * pattern
        values = np.concatenate([profile * step / run.steps for step in probed])
        size = len(values)
        found["profiles"] = {
            "run_id": [run.run_id] * size,
            "step": np.repeat(np.array(probed, np.int32), layers + 1),
            "layer": np.tile(np.arange(layers + 1, dtype=np.int16), len(probed)),
            "depth": np.tile(d, len(probed)),
            "rows": np.full(size, 1024, np.int32),
            "sequences": np.full(size, 64, np.int32),
            "rows_left_out": np.zeros(size, np.int32),
            "largest_share_before": np.full(size, 0.01),
            "largest_share": np.full(size, 0.01),
            "width": np.full(size, facts["width"], np.int32),
            "procrustes": values,
            "cka_distance": values**2,
            "cka_distance_debiased": values**2,
            "mean_shift": values,
            "scale_log_ratio": values,
            "effective_rank": 50 + values,
            "rank_95": np.full(size, 40.0),
            "rank_99": np.full(size, 60.0),
            "subspace_overlap": np.full(size, 0.9),
            **{f"{metric}_null": np.full(size, 1.1) for metric in NULL_METRICS},
        }
        if groups_left_out and run.steps in probed:
            found["jackknife"] = _jackknife(run, profile, groups_left_out, generator)
    return found


def _jackknife(
    run: RunSpec, profile: NDArray[np.float64], groups: int, generator: np.random.Generator
) -> dict[str, Any]:
    layers = np.arange(len(profile), dtype=np.int16)
    values = np.repeat(profile, groups) + 0.002 * generator.standard_normal(len(profile) * groups)
    return {
        "run_id": [run.run_id] * len(values),
        "step": np.full(len(values), run.steps, np.int32),
        "layer": np.repeat(layers, groups),
        "sequence_group": np.tile(np.arange(groups, dtype=np.int16), len(profile)),
        "rows": np.full(len(values), 960, np.int32),
        "procrustes": values,
        "cka_distance": values**2,
        "cka_distance_debiased": values**2,
    }
