"""``depthsweep status``: how far a sweep is, from the store, and from its cluster if it is up."""

from __future__ import annotations

import json
import textwrap
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import click

from orchestrator.display.output import wrapped
from orchestrator.ledger.pace import failures_by_cause, pace
from orchestrator.ledger.recovery import STATES, Ledger, works_of
from orchestrator.studies import last_line, runs_as_they_stand
from sweeps.declaration.expand import Sweep
from sweeps.declaration.settings import text_of
from sweeps.errors import UserError
from sweeps.reading.measurements import refusal_of
from sweeps.reading.text_table import Column, text_table
from sweeps.spec import LOSS, RunSpec, every_score
from sweeps.store.records import RESULTS
from sweeps.store.store import Store
from sweeps.store.sweep_records import job_records, strays_of

# Up to so many failed runs are listed one by one, more of them by cause.
LISTED = 10
# No sweep can be called so.
NO_SWEEP, MEASUREMENTS = "(no sweep)", "(measurements)"


@click.command("status")
@click.argument("name", required=False)
@click.option("--store", "location", default="./store", show_default=True, help="Results folder.")
@click.option("--cluster", "profile_name", help="Profile (default: where it was submitted).")
@click.option("--json", "as_json", is_flag=True, help="Print every run's state as JSON.")
def command(name: str | None, location: str, profile_name: str | None, as_json: bool) -> int:
    """Show how far sweep NAME is; without a name, every sweep of the store."""
    store = Store.at(location).reading(())
    store.require_there()
    names = [name] if name else store.sweep_names()
    sweeps = {sweep: store.load_sweep(sweep) for sweep in names}
    standing = Ledger(store, [i for found in sweeps.values() for i in works_of(found)])
    reports = {sweep: runs_as_they_stand(found, standing) for sweep, found in sweeps.items()}
    if as_json:
        strays = [] if name else strays_of(store)
        page: dict[str, Any] = {
            **reports,
            **({NO_SWEEP: [{"run_id": i} for i in strays]} if strays else {}),
            MEASUREMENTS: {
                sweep: _measurements(found, standing) for sweep, found in sweeps.items()
            },
        }
        click.echo(json.dumps(page, indent=1))
        return 0
    if not reports:
        click.echo(f"{location} holds no sweep yet; start one with `depthsweep run`")
    for sweep, runs in reports.items():
        found = sweeps[sweep]
        lines = [*_text(sweep, found.runs, runs), *_measured(found, standing)]
        click.echo("\n".join([*lines, *_live(location, sweep, profile_name)]))
    for line in _strays(store) if name is None else ():
        click.echo(line)
    return 0


def _measurements(sweep: Sweep, standing: Ledger) -> list[dict[str, Any]]:
    """Return every measurement that a sweep wants: its state, and why it cannot be made."""
    return [
        {
            "work_id": one.work_id,
            "kind": one.kind,
            "model": one.run.model.name,
            "objective": one.run.objective.label if one.kind == "objective_distance" else None,
            "state": standing(one.work_id).state,
            "refused": refusal_of(standing.closings, one),
        }
        for one in sweep.to_measure
    ]


def _measured(sweep: Sweep, standing: Ledger) -> list[str]:
    """Return a line on the training-free measurements that a sweep wants, and what ails others."""
    found = _measurements(sweep, standing)
    if not found:
        return []
    counts = Counter(one["state"] for one in found)
    lines = ["", f"measured {sum(counts[state] for state in RESULTS)} of {len(found)}"]
    other = [state for state in STATES if counts[state] and state not in (*RESULTS, "waiting")]
    if other:
        lines[1] += f" ({', '.join(f'{counts[state]} {state}' for state in other)})"
    for one, said in zip(sweep.to_measure, found, strict=True):
        if said["refused"] is not None:
            lines += wrapped(f"cannot be measured: {one.label}: {said['refused']}")
        elif said["state"] == "failed":
            newest = standing.closings.folder(one.work_id).newest_attempt() or {}
            error = last_line(newest.get("error"))
            lines += wrapped(f"failed {one.work_id} {one.label}: {error}")
    return lines


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
        rate = going.runs_per_hour
        lines.append(f"{rate:.3g} runs an hour" if rate < 100 else f"{rate:,.0f} runs an hour")
        if going.seconds_left is not None:
            lines[-1] += f", about {duration(going.seconds_left)} left at this pace"
    lines += ["", *_table(runs, [state for state in STATES if counts[state]])]
    causes = failures_by_cause(runs)
    if sum(count for _, count in causes) > LISTED:
        return [*lines, *(f"{count} × {cause}" for cause, count in causes)]
    for run in runs:
        if run["state"] in ("failed", "lost"):
            lines.append(f"{run['state']} {run['run_id']}: {run['error'] or 'its process is gone'}")
    return lines


def _table(runs: list[dict[str, Any]], shown: list[str]) -> list[str]:
    """Return lines of at most 80 columns: a row a condition, a column a state."""
    groups: dict[tuple[str, ...], Counter[str]] = {}
    scores: dict[str, dict[tuple[str, ...], list[float]]] = {}
    for run in runs:
        said = (text_of(value) for value in run["settings"].values())
        key = (run["model"], run["objective"], run["control"], *said)
        groups.setdefault(key, Counter())[run["state"]] += 1
        for name, value in run.get("evaluation", {}).items():
            scores.setdefault(name, {}).setdefault(key, []).append(value)
    names = ["model", "objective", "control", *(runs[0]["settings"] if runs else ())]
    columns = [
        *[Column(name, [key[k] for key in groups], kept=True) for k, name in enumerate(names)],
        *[
            Column(state, [str(n[state] or "·") for n in groups.values()], right=True, kept=True)
            for state in shown
        ],
        *[
            Column(
                f"held-out {name}" if name == LOSS else name,
                [_mean(scores[name].get(key, [])) for key in groups],
                right=True,
            )
            for name in every_score()
            if name in scores
        ],
    ]
    return text_table(columns, 80)[0]


def _mean(values: list[float]) -> str:
    return f"{sum(values) / len(values):.4g}" if values else "·"


def _strays(store: Store) -> list[str]:
    """Return lines about runs that no sweep of the store names any more."""
    strays = strays_of(store)
    if not strays:
        return []
    ids = ", ".join(strays[:LISTED]) + (f" and {len(strays) - LISTED} more" * bool(strays[LISTED:]))
    runs = "1 run belongs" if len(strays) == 1 else f"{len(strays)} runs belong"
    said = f"{runs} to no sweep of the store: {ids}; `query --all` reads them, `forget` drops one"
    return ["", *textwrap.wrap(said, 80, break_on_hyphens=False)]
