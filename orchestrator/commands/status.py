"""``depthsweep status``: how far a sweep is, from the store, and from its cluster if it is up."""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import click

from orchestrator.display.output import wrapped
from orchestrator.ledger.pace import cause_of, failures_by_cause, pace
from orchestrator.ledger.recovery import STATES, Ledger, works_of
from orchestrator.shell.completion import SWEEP
from orchestrator.studies import last_line, runs_as_they_stand
from sweeps.declaration.expand import Sweep
from sweeps.declaration.settings import RunLabels, text_of
from sweeps.errors import UserError
from sweeps.reading.measurements import refusal_of
from sweeps.reading.text_table import Column, text_table
from sweeps.spec import LOSS, RunSpec, every_score
from sweeps.store.records import RESULTS
from sweeps.store.store import Store
from sweeps.store.sweep_records import job_records, strays_of

# Up to so many failed runs, and runs that are going on, are listed one by one.
LISTED = 10
# How often a watched sweep is looked at, unless it is said.
EVERY_SECONDS = 5.0
# What a run is, and is to stay: nothing more will happen to it by itself.
AT_REST = (*RESULTS, "failed")
# No sweep can be called so.
NO_SWEEP, MEASUREMENTS = "(no sweep)", "(measurements)"


@click.command("status")
@click.argument("name", required=False, shell_complete=SWEEP)
@click.option("--store", "location", default="./store", show_default=True, help="Results folder.")
@click.option("--cluster", "profile_name", help="Profile (default: where it was submitted).")
@click.option("--watch", is_flag=True, help="Say it again as runs end, until all have ended.")
@click.option(
    "--every",
    type=click.FloatRange(min=0.1),
    metavar="SECONDS",
    help=f"With --watch: how often to look (default: {EVERY_SECONDS:g}).",
)
@click.option("--json", "as_json", is_flag=True, help="Print every run's state as JSON.")
def command(
    name: str | None,
    location: str,
    profile_name: str | None,
    watch: bool,
    every: float | None,
    as_json: bool,
) -> int:
    """Show how far sweep NAME is; without a name, every sweep of the store.

    Failed and lost runs are named with what tells them from the others, and with their errors.
    With --watch it ends when nothing is left to run: with 1 where a run failed. Ctrl-C stops it,
    and nothing else.
    """
    if every is not None and not watch:
        raise UserError("--every says how often --watch looks: give both")
    if watch and as_json:
        raise UserError("--watch is for a person: ask for --json again and again instead")
    if watch:
        return _watch(name, location, profile_name, every or EVERY_SECONDS)
    look = _Look.at(location, name)
    lines = [json.dumps(look.page(), indent=1)] if as_json else look.lines(profile_name)
    click.echo("\n".join(lines))
    return 0


def _watch(name: str | None, location: str, profile_name: str | None, every: float) -> int:
    """Show how far it is whenever that has changed, in place on a terminal; return 0 once every run
    has a result, 1 where some failed."""
    before: list[str] | None = None
    while True:
        look = _Look.at(location, name)
        states = look.states()
        if sys.stdout.isatty():
            click.clear()
        if sys.stdout.isatty() or states != before:
            click.echo("\n".join([*look.lines(profile_name), ""]))
        before = states
        if all(state in AT_REST for state in states):
            return 1 if "failed" in states else 0
        time.sleep(every)


@dataclass(frozen=True)
class _Look:
    """One look at the sweeps of a store: how each of their runs stands."""

    store: Store
    named: bool
    sweeps: dict[str, Sweep]
    standing: Ledger
    reports: dict[str, list[dict[str, Any]]]

    @classmethod
    def at(cls, location: str, name: str | None) -> _Look:
        store = Store.at(location).reading(())
        store.require_there()
        names = [name] if name else store.sweep_names()
        sweeps = {sweep: store.load_sweep(sweep) for sweep in names}
        standing = Ledger(store, [i for found in sweeps.values() for i in works_of(found)])
        reports = {sweep: runs_as_they_stand(found, standing) for sweep, found in sweeps.items()}
        return cls(store, name is not None, sweeps, standing, reports)

    def states(self) -> list[str]:
        return [run["state"] for runs in self.reports.values() for run in runs]

    def page(self) -> dict[str, Any]:
        """Return every run's state by sweep, and what is measured, as JSON data."""
        strays = [] if self.named else strays_of(self.store)
        measured = {sweep: _measurements(s, self.standing) for sweep, s in self.sweeps.items()}
        return {
            **self.reports,
            **({NO_SWEEP: [{"run_id": i} for i in strays]} if strays else {}),
            MEASUREMENTS: measured,
        }

    def lines(self, profile_name: str | None) -> list[str]:
        """Return it in lines for a person."""
        location, lines = self.store.location, []
        if not self.reports:
            lines.append(f"{location} holds no sweep yet; start one with `depthsweep run`")
        for sweep, runs in self.reports.items():
            found = self.sweeps[sweep]
            lines += [*_text(sweep, found.runs, runs), *_measured(found, self.standing)]
            lines += _live(location, sweep, profile_name)
        return lines if self.named else [*lines, *_strays(self.store)]


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
    from orchestrator.display.progress import duration

    spent = sum(run["seconds"] for run in runs)
    lines = wrapped(f"{sweep}: {len(runs)} runs, {said}; {duration(spent)} in runs")
    going = pace(specs, runs)
    beside = []
    if going.runs_per_hour is not None:
        rate = going.runs_per_hour
        beside.append(f"{rate:.3g} runs an hour" if rate < 100 else f"{rate:,.0f} runs an hour")
    ended = [run["ended"] for run in runs if run["ended"]]
    if ended:
        ago = datetime.now(UTC) - datetime.fromisoformat(max(ended))
        beside.append(f"the last ended {duration(ago.total_seconds())} ago")
    if going.seconds_left is not None:
        beside.append(f"about {duration(going.seconds_left)} left at this pace")
    lines += wrapped(", ".join(beside))
    lines += ["", *_table(runs, [state for state in STATES if counts[state]])]
    return [*lines, *_under_way(specs, runs), *_wrong(specs, runs)]


def _under_way(specs: Sequence[RunSpec], runs: list[dict[str, Any]]) -> list[str]:
    """Return a line for each run that is going on: what it is, and its newest checkpoint."""
    label = RunLabels(specs)
    going = [one for one in zip(specs, runs, strict=True) if one[1]["state"] == "running"]
    lines = [""] if going else []
    for spec, run in going[:LISTED]:
        kept = f", kept up to step {run['checkpoint']} of {spec.steps}" if run["checkpoint"] else ""
        lines += wrapped(f"running {run['run_id']} {label(spec)}{kept}")
    return [*lines, f"and {len(going) - LISTED} more"] if going[LISTED:] else lines


def _wrong(specs: Sequence[RunSpec], runs: list[dict[str, Any]]) -> list[str]:
    """Return which runs failed or were lost and why; many of them by cause, with the first."""
    label = RunLabels(specs)
    wrong = [(s, r) for s, r in zip(specs, runs, strict=True) if r["state"] in ("failed", "lost")]
    if not wrong:
        return []
    causes = failures_by_cause(runs)
    shown = wrong if len(wrong) <= LISTED else []
    if not shown:
        for cause, _ in causes[:LISTED]:
            shown.append(next(one for one in wrong if cause_of(one[1]) == cause))
    count = dict(causes)
    lines = [""]
    for spec, run in shown:
        cause = cause_of(run)
        lines += wrapped(f"{run['state']} {run['run_id']} {label(spec)}")
        others = f" ({count[cause]} runs say that)" if len(wrong) > LISTED else ""
        lines += wrapped(f"{cause}{others}", first="  ")
    lines += wrapped(
        f"`depthsweep logs {shown[0][1]['run_id']}` shows the rest of what the first one said"
    )
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
    return ["", *wrapped(said, rest="")]
