"""``depthsweep status``: how far a sweep is, from the store, and from its cluster if it is up."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

import click

from orchestrator.display.plan_table import control_name
from orchestrator.ledger.pace import failures_by_cause, pace
from orchestrator.ledger.recovery import STATES, Standing, ledger
from sweeps.errors import UserError
from sweeps.spec import RunSpec
from sweeps.store.store import Store
from sweeps.store.sweep_records import job_records

# Up to so many failed runs are listed one by one, more of them by cause.
LISTED = 10


@click.command("status")
@click.argument("name", required=False)
@click.option("--store", "location", default="./store", show_default=True, help="Results folder.")
@click.option("--cluster", "profile_name", help="Profile (default: where it was submitted).")
@click.option("--json", "as_json", is_flag=True, help="Print every run's state as JSON.")
def command(name: str | None, location: str, profile_name: str | None, as_json: bool) -> int:
    """Show how far sweep NAME is; without a name, every sweep of the store."""
    store = Store.at(location).reading()
    names = [name] if name else store.sweep_names()
    reports = {sweep: _report(store, sweep) for sweep in names}
    if as_json:
        click.echo(json.dumps(reports, indent=1))
        return 0
    if not reports:
        click.echo(f"{location} holds no sweep yet; start one with `depthsweep run`")
    for sweep, runs in reports.items():
        specs = store.load_sweep(sweep).runs
        click.echo("\n".join([*_text(sweep, specs, runs), *_live(location, sweep, profile_name)]))
    return 0


def _live(location: str, sweep: str, profile_name: str | None) -> list[str]:
    """Return what the cluster says of a sweep's newest job; nothing where there never was one."""
    records = job_records(Store.at(location), sweep)
    if not records and profile_name is None:
        return []
    from orchestrator.jobs.ray_jobs import JobsApiClient
    from orchestrator.jobs.submission import find

    try:
        found = find(sweep, location, profile_name)
    except UserError as error:
        newest = records[max(records)]["submission_id"] if records else "its job"
        return ["", f"job {newest}: {error}"]
    job = found.job
    lines = [f"job {job.submission_id}: {job.state}"]
    if job.started:
        since = datetime.fromtimestamp(job.started, UTC).astimezone()
        lines[0] += f", since {since:%Y-%m-%d %H:%M}"
    if isinstance(found.queue, JobsApiClient):
        nodes = found.queue.nodes()
        cpus = sum(node["resources_total"].get("CPU", 0) for node in nodes)
        gpus = sum(node["resources_total"].get("GPU", 0) for node in nodes)
        lines.append(f"cluster: {len(nodes)} nodes, {cpus:g} CPUs, {gpus:g} GPUs")
    return ["", *lines]


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
        "started": attempts[0]["started"] if attempts else None,
        "ended": attempts[-1]["ended"] if attempts else None,
        "error": _last_line(attempts[-1]["error"]) if attempts else None,
    }


def _last_line(error: str | None) -> str | None:
    return error.strip().splitlines()[-1] if error else None


def _text(sweep: str, specs: Sequence[RunSpec], runs: list[dict[str, Any]]) -> list[str]:
    counts = Counter(run["state"] for run in runs)
    said = ", ".join(f"{counts[state]} {state}" for state in STATES if counts[state])
    spent = sum(run["seconds"] for run in runs)
    lines = [f"{sweep}: {len(runs)} runs, {said}; {spent / 60:.1f} minutes in runs"]
    ended = [run["ended"] for run in runs if run["ended"]]
    if ended:
        ago = datetime.now(UTC) - datetime.fromisoformat(max(ended))
        lines[0] += f", last ended {ago.total_seconds() / 60:.0f} min ago"
    from orchestrator.display.progress import duration

    going = pace(specs, runs)
    if going.runs_per_hour is not None:
        lines.append(f"{going.runs_per_hour:.3g} runs an hour")
        if going.seconds_left is not None:
            lines[-1] += f", about {duration(going.seconds_left)} left at this pace"
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
    causes = failures_by_cause(runs)
    if sum(count for _, count in causes) > LISTED:
        return [*lines, *(f"{count} × {cause}" for cause, count in causes)]
    for run in runs:
        if run["state"] in ("failed", "lost"):
            lines.append(f"{run['state']} {run['run_id']}: {run['error'] or 'its process is gone'}")
    return lines
