"""What would happen to each run, in few lines: the same words for plan, run and resume."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator

import click

from orchestrator.ledger.recovery import RESULTS, Action
from sweeps.declaration.settings import run_labels

# Runs named under each line that is neither "finished" nor "new".
NAMED = 5


def actions_json(actions: list[Action]) -> str:
    """Return every run's action and its reason."""
    rows = [{"run_id": a.run.run_id, "action": a.kind, "reason": a.reason} for a in actions]
    return json.dumps(rows, indent=1)


def print_actions(actions: list[Action], as_json: bool) -> None:
    """Print what would happen to each run, and why."""
    if as_json:
        click.echo(actions_json(actions))
    else:
        click.echo("\n".join(action_lines(actions)))


def action_lines(actions: list[Action]) -> Iterator[str]:
    """Yield a line for each kind of action and its reason, and below it the first runs."""
    labels = run_labels([action.run for action in actions])
    for (kind, why), same in _alike(actions).items():
        yield f"{kind:<4} {len(same):>5}  {why}{_origin(same)}"
        if why == "new" or (kind == "skip" and why in RESULTS):
            continue
        for action in same[:NAMED]:
            start = f" from step {action.start}" if action.start else ""
            line = f"{action.run.run_id}{start} {labels[action.run.run_id]}"
            yield from textwrap.wrap(line, 80, initial_indent=" " * 12, subsequent_indent=" " * 14)
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
