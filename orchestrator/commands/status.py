"""``depthsweep status``: how far a sweep is, from the store alone."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import click

from orchestrator.commands.plan import control_name
from orchestrator.recovery import Standing, ledger
from sweeps.results.store import Store
from sweeps.spec import RunSpec

STATES = ("finished", "diverged", "running", "failed", "cancelled", "lost", "waiting")


@click.command("status")
@click.argument("name", required=False)
@click.option("--store", "location", default="./store", show_default=True, help="Results folder.")
@click.option("--json", "as_json", is_flag=True, help="Print every run's state as JSON.")
def command(name: str | None, location: str, as_json: bool) -> int:
    """Show how far sweep NAME is; without a name, every sweep of the store."""
    store = Store.at(location)
    names = [name] if name else store.sweep_names()
    reports = {sweep: _report(store, sweep) for sweep in names}
    if as_json:
        click.echo(json.dumps(reports, indent=1))
        return 0
    if not reports:
        click.echo(f"{location} holds no sweep yet; start one with `depthsweep run`")
    for sweep, runs in reports.items():
        click.echo("\n".join(_text(sweep, runs)))
    return 0


def _report(store: Store, name: str) -> list[dict[str, Any]]:
    standing = ledger(store)
    return [_describe(store, run, standing) for run in store.load_sweep(name).runs]


def _describe(store: Store, run: RunSpec, standing: Callable[[str], Standing]) -> dict[str, Any]:
    attempts = store.run(run.run_id).attempts()
    stands = standing(run.run_id)
    return {
        "run_id": run.run_id,
        "model": run.model.name,
        "objective": run.objective.kind,
        "control": control_name(run),
        "seed": run.seed,
        "state": stands.state,
        "checkpoint": stands.checkpoint,
        "attempts": len(attempts),
        "seconds": sum(attempt["seconds"] or 0 for attempt in attempts),
        "ended": attempts[-1]["ended"] if attempts else None,
        "error": _last_line(attempts[-1]["error"]) if attempts else None,
    }


def _last_line(error: str | None) -> str | None:
    return error.strip().splitlines()[-1] if error else None


def _text(sweep: str, runs: list[dict[str, Any]]) -> list[str]:
    counts = Counter(run["state"] for run in runs)
    said = ", ".join(f"{counts[state]} {state}" for state in STATES if counts[state])
    spent = sum(run["seconds"] for run in runs)
    lines = [f"{sweep}: {len(runs)} runs, {said}; {spent / 60:.1f} minutes in runs"]
    ended = [run["ended"] for run in runs if run["ended"]]
    if ended:
        ago = datetime.now(UTC) - datetime.fromisoformat(max(ended))
        lines[0] += f", last ended {ago.total_seconds() / 60:.0f} min ago"
    groups: dict[tuple[str, str, str], Counter[str]] = {}
    for run in runs:
        key = (run["model"], run["objective"], run["control"])
        groups.setdefault(key, Counter())[run["state"]] += 1
    shown = [state for state in STATES if counts[state]]
    head = "  ".join(f"{state:>8}" for state in shown)
    lines += ["", f"{'model':<20} {'objective':<15} {'control':<16} {head}"[:80]]
    for (model, objective, control), states in groups.items():
        cells = "  ".join(f"{states[state] or '·':>{max(8, len(state))}}" for state in shown)
        lines.append(f"{model:<20} {objective:<15} {control:<16} {cells}")
    for run in runs:
        if run["state"] in ("failed", "lost"):
            lines.append(f"{run['state']} {run['run_id']}: {run['error'] or 'its process is gone'}")
    return lines
