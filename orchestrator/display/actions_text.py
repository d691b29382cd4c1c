"""What would happen to each run, in few lines: the same words for plan, run and resume."""

from __future__ import annotations

import json
from collections.abc import Iterator

import click

from orchestrator.display.output import wrapped
from orchestrator.ledger.recovery import Action, MeasureAction
from orchestrator.ledger.sweep_account import Plan
from sweeps.declaration.settings import RunLabels
from sweeps.spec import counted
from sweeps.store.records import RESULTS

# Runs named under each line that is neither "finished" nor "new".
NAMED = 5


def actions_json(actions: list[Action], measures: list[MeasureAction]) -> str:
    """Return every run's action and its reason, then every measurement's, by its id."""
    rows = [{"run_id": a.run.run_id, "action": a.kind, "reason": a.reason} for a in actions]
    rows += [
        {"run_id": one.measurement.work_id, "action": one.kind, "reason": one.why}
        for one in measures
    ]
    return json.dumps(rows, indent=1)


def print_actions(actions: list[Action], measures: list[MeasureAction], as_json: bool) -> None:
    """Print what would happen to each run and measurement, and why."""
    if as_json:
        click.echo(actions_json(actions, measures))
    else:
        click.echo("\n".join((*action_lines(actions), *measure_action_lines(measures))))


def action_lines(actions: list[Action]) -> Iterator[str]:
    """Yield a line for each kind of action and its reason, and below it the first runs."""
    label = RunLabels([action.run for action in actions])
    for (kind, why), same in _alike(actions).items():
        yield f"{kind:<4} {len(same):>5}  {why}{_origin(same)}"
        if why == "new" or (kind == "skip" and why in RESULTS):
            continue
        for action in same[:NAMED]:
            start = f" from step {action.start}" if action.start else ""
            line = f"{action.run.run_id}{start} {label(action.run)}"
            yield from wrapped(line, first=" " * 12, rest=" " * 14)
        if same[NAMED:]:
            yield f"{'':<12}and {len(same) - NAMED} more; --json names every run"


def summary_lines(actions: list[Action]) -> Iterator[str]:
    """Yield a line for each reason to skip a run or to run one that is not new."""
    for (kind, why), same in _alike(actions).items():
        if kind == "run":
            if why != "new":
                yield f"{len(same)} {why}{_origin(same)}"
        elif why in RESULTS:
            yield f"{len(same)} already {why}: skipped"
        else:
            yield f"{len(same)} skipped: {why}"


def measure_lines(plan: Plan) -> Iterator[str]:
    """Yield a line for what is measured without training, and one for what is left of it."""
    if not plan.measures:
        return
    left = [one for one in plan.measures if one.kind == "measure"]
    if left:
        yield f"measures {counted(one.measurement for one in left)} (training-free)"
    results = sum(one.why in RESULTS for one in plan.measures if one.kind == "skip")
    if results:
        yield f"{results} already measured: skipped"


def measure_action_lines(measures: list[MeasureAction]) -> Iterator[str]:
    """Yield a line for each kind of action on measurements and its reason, and the first ids."""
    groups: dict[tuple[str, str], list[MeasureAction]] = {}
    for one in measures:
        groups.setdefault((one.kind, one.why), []).append(one)
    for (kind, why), same in groups.items():
        yield f"{kind:<7} {len(same):>2}  {why}: {counted(one.measurement for one in same)}"
        if why == "new" or kind == "skip":
            continue
        for one in same[:NAMED]:
            yield f"{'':<12}{one.measurement.work_id} {one.measurement.label}"
        if same[NAMED:]:
            yield f"{'':<12}and {len(same) - NAMED} more; --json names every one"


def _alike(actions: list[Action]) -> dict[tuple[str, str], list[Action]]:
    groups: dict[tuple[str, str], list[Action]] = {}
    for action in actions:
        groups.setdefault((action.kind, action.why), []).append(action)
    return groups


def _origin(actions: list[Action]) -> str:
    starts = sorted({action.start for action in actions if action.start is not None})
    if not starts:
        return ""
    if starts == [0]:
        return ", continues from the start"
    if len(starts) == 1:
        return f", continues from step {starts[0]}"
    return f", continues from steps {starts[0]} to {starts[-1]}"
