"""Stores whose answers are known: runs with planted profiles, written by the real writer."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from itertools import combinations
from typing import Any
from unittest import mock

import numpy as np

from sweeps.attempts.writer import RunWriter
from sweeps.declaration.expand import Sweep
from sweeps.files.whole_files import write_json
from sweeps.spec import (
    BuiltinData,
    EqualStep,
    Evaluation,
    Execution,
    HubModel,
    LayerClip,
    ModelSpec,
    Objective,
    Optimizer,
    Probe,
    RunSpec,
    Standard,
)
from sweeps.store.records import SEAL, sealed
from sweeps.store.run_folder import RunFolder
from sweeps.store.schema import NULL_METRICS
from sweeps.store.store import Store
from tests.samples.small_run import LoneAttempt

CONTROLS: dict[str, Any] = {
    "standard": Standard(),
    "equal_step": EqualStep(),
    "layer_clip": LayerClip(max_norm=0.1),
}
FACTS = {
    "family": "gpt2",
    "kind": "decoder",
    "block": "sequential",
    "layers": 12,
    "width": 768,
    "parameters": 124_000_000,
}


def run_spec(
    model: str = "gpt2",
    objective: str = "clm",
    control: Any = "standard",
    seed: int = 0,
    *,
    steps: int = 20,
    probe_every: int = 10,
    part_steps: int = 10,
    learning_rate: float = 1e-3,
) -> RunSpec:
    options: dict[str, dict[str, Any]] = {
        "classification": {"labels": 2, "pooling": "mean"},
        "contrastive": {"temperature": 0.05, "pooling": "mean"},
        "mlm": {"mask_probability": 0.15},
    }
    return RunSpec(
        model=ModelSpec(
            name=model,
            source=HubModel(
                hub=f"somebody/{model}",
                revision="0" * 40,
                pretraining="mlm" if objective == "mlm" else "clm",
            ),
        ),
        objective=Objective(
            kind=objective,  # type: ignore[arg-type]
            data=BuiltinData(builtin="python-source", digest="d"),
            **options.get(objective, {}),
        ),
        control=CONTROLS.get(control, control) if isinstance(control, str) else control,
        seed=seed,
        steps=steps,
        batch_size=8,
        sequence_length=16,
        optimizer=Optimizer(learning_rate=learning_rate),
        probe=Probe(data=BuiltinData(builtin="python-docs", digest="p"), every=probe_every),
        execution=Execution(part_steps=part_steps),
    )


def _unsynced(_: int) -> None:
    """Leave to the system when a file is on its disk: nothing planted need outlive the machine."""


@mock.patch.object(os, "fsync", _unsynced)
def write_run(
    store: Store,
    run: RunSpec,
    profile: Sequence[float] | Callable[[float], float] | dict[str, Sequence[float]],
    *,
    status: str | None = "finished",
    stop: int | None = None,
    facts: dict[str, Any] | None = None,
    metrics: dict[str, Sequence[float]] | None = None,
    ratios: Sequence[float] | dict[str, Sequence[float]] | None = None,
    deleted: Sequence[Sequence[float]] | dict[str, Sequence[Sequence[float]]] | None = None,
    calls: Sequence[int] | None = None,
    classes: Sequence[str] | None = None,
    scores: Callable[[int], dict[str, float]] | None = None,
    overlaps: Callable[[int, int, int], float] | None = None,
    in_parts: bool = False,
) -> RunFolder:
    """Write one run; its change at the last step is ``profile`` over blocks 1..L.

    ``profile``, and then ``ratios`` and ``deleted``, may be by name of a stack. ``calls`` gives the
    distinct block, from 1, that each layer of a looped model calls; ``classes`` the class of each
    distinct block.

    ``profile`` is a list of L values, or a function of relative depth. At earlier probe steps the
    change is in proportion to the step. ``stop`` ends the run early; ``status`` None never ends it.
    ``in_parts`` has a finished run write the parts that are put together at its end. ``metrics``
    replaces the values of other metrics, ``ratios`` gives ‖ΔW‖/‖W‖ of blocks 1..L,
    ``scores`` gives those of a step of a run that is evaluated (a loss that falls from 3 to 2),
    ``overlaps`` what two turns of a block share at its end, given block, earlier and later turn,
    ``deleted`` the change of a finished run over blocks 1..L without each group of probe sequences.
    """
    facts = {**FACTS, **(facts or {})}
    if callable(profile):
        count = facts["layers"]
        profile = [profile(i / count) for i in range(1, count + 1)]
    stacks = _by_stack(profile)
    blocks = {stack: list(calls or range(1, len(changes) + 1)) for stack, changes in stacks.items()}
    facts["layers"] = sum(max(of_stack) for of_stack in blocks.values())
    facts["depth"] = sum(len(of_stack) for of_stack in blocks.values())
    if None not in stacks:
        facts["stacks"] = ", ".join(f"{name} {max(own)}" for name, own in blocks.items())
    values = {
        stack: {
            "procrustes": changes,
            "cka_distance": [d * d for d in changes],
            "cka_distance_debiased": [d * d for d in changes],
            **(metrics or {}),
        }
        for stack, changes in stacks.items()
    }
    folder = store.run(run.run_id)
    _write_records(folder, run, facts, status)
    writer = _writer(run, folder, in_parts or status != "finished")
    last, recorded = stop or run.steps, run.recorded_steps
    planned = {stack: [1e-3 * (1 + i) for i in range(max(own))] for stack, own in blocks.items()}
    planned |= _by_stack(ratios)
    _add_scores(writer, run, 0, scores)
    for step in range(1, last + 1):
        _add_scores(writer, run, step, scores)
        if step in recorded or step == last:
            covered = None if recorded.all else recorded.covered(step)
            moved = [{**row, "steps_covered": covered} for row in _layer_rows(planned, classes)]
            writer.add("steps", step, [_step_row(step, run)])
            writer.add("layers", step, moved)
        ends = step == run.steps or (status == "stopped" and step == last)
        if ends or step in run.probe_steps:
            for stack, of_stack in values.items():
                places = _places(stack, blocks[stack], classes)
                rows = _profile_rows(of_stack, step / run.steps, places, facts["width"])
                writer.add("profiles", step, rows)
        if ends:
            for stack, groups in _by_stack(deleted).items():
                rows = _jackknife_rows(groups, _places(stack, blocks[stack], classes))
                writer.add("jackknife", step, rows)
            _add_subspaces(writer, step, blocks, overlaps)
        writer.end_step(step, is_last=ends)
    if status is not None:
        writer.finish(status, last)  # type: ignore[arg-type]
        folder.remove_unlisted("none")
    return folder


def _writer(run: RunSpec, folder: RunFolder, in_parts: bool) -> RunWriter:
    """Return a writer of a run's own parts, or of one of each table: what ends whole is put
    together anyway."""
    if not in_parts:
        execution = run.execution.model_copy(update={"part_steps": run.steps})
        run = run.model_copy(update={"execution": execution})
    return RunWriter(run, folder, LoneAttempt())


def _add_subspaces(
    writer: RunWriter,
    step: int,
    blocks: dict[str | None, list[int]],
    overlaps: Callable[[int, int, int], float] | None,
) -> None:
    for stack, own in blocks.items():
        writer.add("subspaces", step, _subspace_rows(stack, own, overlaps))


def evaluated(run: RunSpec) -> RunSpec:
    """Return a run that is scored on held-out examples."""
    return run.model_copy(update={"evaluation": Evaluation(fraction=0.1)})


def _add_scores(
    writer: RunWriter, run: RunSpec, step: int, scores: Callable[[int], dict[str, float]] | None
) -> None:
    if step in run.evaluation_steps:
        found = {"loss": 3.0 - step / run.steps} if scores is None else scores(step)
        rows = [{"score": k, "value": value, "targets": 64} for k, value in found.items()]
        writer.add("evaluations", step, rows)


def _subspace_rows(
    stack: str | None, calls: Sequence[int], overlaps: Callable[[int, int, int], float] | None
) -> list[dict[str, Any]]:
    return [
        {
            "stack": stack,
            "block_number": block,
            "iteration": earlier,
            "later_iteration": later,
            "rank_95": 3.0,
            "subspace_overlap": overlaps(block, earlier, later),
            "rank_95_before": 4.0,
            "subspace_overlap_before": 0.5,
        }
        for block in sorted(set(calls))
        for earlier, later in combinations(range(calls.count(block)), 2)
        if overlaps is not None
    ]


def unsay_dose(folder: RunFolder) -> None:
    """Make the closing record one of before it said a dose: its rows are asked again."""
    done = folder.done()
    assert done is not None
    kept = {name: value for name, value in done.items() if name not in ("dose", SEAL)}
    write_json(folder.path / "DONE.json", sealed(kept))


def _by_stack(value: Any) -> dict[str | None, Any]:
    """Return values by name of a stack: None for the only one, nothing where there are none."""
    if value is None:
        return {}
    return dict(value) if isinstance(value, dict) else {None: value}


def _write_records(
    folder: RunFolder, run: RunSpec, facts: dict[str, Any], status: str | None
) -> None:
    write_json(
        folder.path / "run.json",
        {
            "run_id": run.run_id,
            "spec": run.model_dump(mode="json"),
            "facts": facts,
            "versions": {"python": "3.11", "torch": "2.13.0"},
            "git_commit": "abc",
            "hardware": {"cpus": 2},
        },
    )
    write_json(
        folder.attempt_path(1),
        {
            "started": "2026-11-23T10:00:00+00:00",
            "ended": None if status is None else "2026-11-23T10:01:00+00:00",
            "node": "here",
            "pid": 1,
            "cause": status,
            "error": "ValueError: planted" if status == "failed" else None,
            "seconds": None if status is None else 60.0,
        },
    )


def save_sweep(store: Store, name: str, runs: Sequence[RunSpec]) -> Sweep:
    sweep = Sweep(name, "planted", f"name: {name}\n", tuple(runs))
    store.save_sweep(sweep)
    return sweep


def _step_row(step: int, run: RunSpec) -> dict[str, Any]:
    return {
        "loss": 3.0 / step,
        "scheduled_learning_rate": run.optimizer.learning_rate,
        "grad_norm": 1.0,
        "clip_coefficient": 1.0,
        "targets": 128,
    }


def _layer_rows(
    ratios: dict[str | None, Sequence[float]], classes: Sequence[str] | None
) -> list[dict[str, Any]]:
    groups: list[tuple[str | None, int, str, float]] = [(None, 0, "embedding", 1e-3)]
    for stack, own in ratios.items():
        name = "block" if stack is None else f"{stack} block"
        groups += [(stack, k, f"{name} {k}", ratio) for k, ratio in enumerate(own, 1)]
    groups.append((None, 1 + max(map(len, ratios.values())), "head", 1e-3))
    return [
        {
            "stack": stack,
            "layer": layer,
            "group": group,
            "block_class": None if "block" not in group else _class(classes, layer),
            "grad_norm": 0.1,
            "weight_norm": 10.0,
            "update_norm": 10.0 * ratio,
            "coefficient": 1.0,
        }
        for stack, layer, group, ratio in groups
    ]


def _class(classes: Sequence[str] | None, block: int) -> str | None:
    return None if classes is None else classes[block - 1]


def _places(
    stack: str | None, calls: Sequence[int], classes: Sequence[str] | None
) -> list[dict[str, Any]]:
    """Return where each row of a profile is: what enters the stack, and each call of a block."""
    found: list[dict[str, Any]] = [
        {"stack": stack, "layer": 0, "block_number": 0, "iteration": 0, "block_class": None}
    ]
    for layer, block in enumerate(calls, 1):
        before = sum(row["block_number"] == block for row in found)
        found.append(
            {
                "stack": stack,
                "layer": layer,
                "block_number": block,
                "iteration": before,
                "block_class": _class(classes, block),
            }
        )
    return found


def _profile_rows(
    values: dict[str, Sequence[float]], share: float, places: list[dict[str, Any]], width: int
) -> list[dict[str, Any]]:
    rows, count = [], len(places) - 1
    for layer, place in enumerate(places):
        row: dict[str, Any] = {
            **place,
            "depth": layer / count,
            "stack_layers": count,
            "rows": 512,
            "sequences": 64,
            "rows_left_out": 0,
            "largest_share_before": 0.01,
            "largest_share": 0.01,
            "width": width,
        }
        for metric, blocks in values.items():
            row[metric] = share * float(np.asarray(blocks)[layer - 1]) if layer else 0.0
        for metric in NULL_METRICS:
            row[f"{metric}_null"] = 1.0
        rows.append(row)
    return rows


def _jackknife_rows(
    deleted: Sequence[Sequence[float]], places: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    return [
        {
            **place,
            "sequence_group": group,
            "rows": 480,
            "procrustes": d,
            "cka_distance": d * d,
            "cka_distance_debiased": d * d,
        }
        for group, profile in enumerate(deleted)
        for place, d in zip(places, [0.0, *profile], strict=False)
    ]
