"""``depthsweep cancel``: stop a sweep's job on its cluster, losing nothing that was saved."""

from __future__ import annotations

import time
from collections import Counter

import click

from orchestrator.shell.completion import SWEEP
from sweeps.errors import UserError

WAIT_SECONDS = 90.0
POLL_SECONDS = 0.5


@click.command("cancel")
@click.argument("name", shell_complete=SWEEP)
@click.option("--store", default="./store", show_default=True, help="Where its results go.")
@click.option("--cluster", "profile_name", help="Profile (default: where it was submitted).")
def command(name: str, store: str, profile_name: str | None) -> int:
    """Stop the job of sweep NAME. Finished runs are kept, the others continue when resumed."""
    from orchestrator.jobs.submission import find
    from orchestrator.ledger.recovery import decide, decide_measurements, ledger_of
    from sweeps.store.store import Store
    from sweeps.versions.version_id import SweepName

    found = find(name, store, profile_name)
    job = found.job
    if job.ended_state:
        raise UserError(f"{job.submission_id} has ended already ({job.state})")
    found.queue.stop(job.submission_id)
    until = time.monotonic() + WAIT_SECONDS
    while time.monotonic() < until:
        known = {each.submission_id: each for each in found.queue.jobs()}
        if job.submission_id not in known or known[job.submission_id].ended_state:
            break
        time.sleep(POLL_SECONDS)
    else:
        raise UserError(f"{job.submission_id} was told to stop and has not in {WAIT_SECONDS:.0f} s")
    click.echo(f"{job.submission_id} stopped")
    records = Store.at(store)
    if SweepName.parse(name).name in records.sweep_names():
        sweep = records.load_sweep(name)
        standing = ledger_of(records, sweep)
        states = [standing(run.run_id) for run in sweep.runs]
        counts = Counter(each.state for each in states)
        kept = sum(each.checkpoint > 0 for each in states)
        said = ", ".join(f"{count} {state}" for state, count in counts.items())
        click.echo(f"  {said}; {kept} continue from a checkpoint")
        runs = decide(sweep.runs, standing)
        measures = decide_measurements(sweep.to_measure, standing)
        if {one.kind for one in runs} | {one.kind for one in measures} == {"skip"}:
            click.echo("  nothing is left to run")
            return 0
    click.echo(f"  depthsweep resume {name} --cluster {found.profile_name} --store {store}")
    return 0
