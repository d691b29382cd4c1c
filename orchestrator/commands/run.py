"""``depthsweep run``: a sweep on this machine, or on the Ray cluster at an address."""

from __future__ import annotations

import click

from orchestrator.display.actions_text import print_actions
from orchestrator.ledger.sweep_account import Limits
from orchestrator.notification import NOTIFY, notifying
from orchestrator.options import ON_CLUSTER, TRACK, limited
from orchestrator.shell.completion import FILE_OR_SHIPPED
from orchestrator.studies import chosen_runs
from orchestrator.sweep_run import carry_out, plan_sweep
from sweeps.declaration.expand import SweepFile
from sweeps.store.store import Store


@click.command("run")
@click.argument("sweep_file", shell_complete=FILE_OR_SHIPPED)
@click.option("--store", "location", default="./store", show_default=True, help="Results folder.")
@click.option(
    "--only",
    metavar="NAME=VALUE,…",
    help="Only the runs that are so: model=gpt2,seed=0; != leaves out, status=failed works too.",
)
@click.option("--limit", type=click.IntRange(min=1), help="Only the first so many that are left.")
@click.option(
    "--set",
    "changed",
    metavar="NAME=VALUE",
    multiple=True,
    help="Another value than the file's, for all runs: a sweep of its own name; repeatable.",
)
@click.option("--dry-run", is_flag=True, help="Say what would happen to each run; start nothing.")
@limited
@ON_CLUSTER
@TRACK
@NOTIFY
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON.")
def command(
    sweep_file: str,
    location: str,
    only: str | None,
    limit: int | None,
    changed: tuple[str, ...],
    dry_run: bool,
    limits: Limits,
    address: str | None,
    track: tuple[str, ...],
    notify: str | None,
    as_json: bool,
) -> int:
    """Run SWEEP_FILE. Finished runs are skipped, the rest continue from their checkpoints.

    The name of a sweep that comes with depthsweep will do, too: demo, paper, replica.

    \b
    depthsweep run study.yaml --only model=gpt2,seed=0 --set steps=10 --limit 1
    """
    from orchestrator.display.sweep_console import SweepConsole

    sweep = SweepFile.read(sweep_file).sweep(changed)
    store = Store.at(location)
    choice = chosen_runs(sweep, store, only, limit)
    if dry_run:
        plan = plan_sweep(sweep, store, choice)
        if not as_json:
            click.echo(f"{plan.sweep.name}: {len(plan.sweep.runs)} runs in {location}")
        print_actions(plan.actions, plan.measures, as_json)
        return 0
    store.require_writable()
    console = SweepConsole(as_json)
    with notifying(notify, sweep, location) as ended:
        result = carry_out(sweep, store, choice, address, limits, console, track)
        ended(result)
        console.ended(result)
    return result.exit_code
