"""``depthsweep resume``: what is left of a sweep this store knows."""

from __future__ import annotations

import click

from orchestrator.display.actions_text import print_actions
from orchestrator.ledger.recovery import decide, decide_measurements, ledger_of
from orchestrator.ledger.sweep_account import Limits
from orchestrator.notification import NOTIFY, notifying
from orchestrator.options import ON_CLUSTER, TRACK, limited
from orchestrator.shell.completion import SWEEP
from orchestrator.studies import choice_of
from orchestrator.sweep_run import carry_out
from sweeps.declaration.expand import Sweep
from sweeps.errors import UserError
from sweeps.sources.content import require_sources
from sweeps.store.store import Store


@click.command("resume")
@click.argument("name", shell_complete=SWEEP)
@click.option("--store", "location", default="./store", show_default=True, help="Results folder.")
@click.option(
    "--only", help="Only runs that failed, diverged, …, or one run or measurement by its id."
)
@click.option("--force", is_flag=True, help="Also make again what has a result (with --only ID).")
@click.option("--dry-run", is_flag=True, help="Say what would happen to each run; start nothing.")
@limited
@ON_CLUSTER
@TRACK
@NOTIFY
@click.option("--cluster", "profile_name", help="Submit to a cluster: a profile or .yaml file.")
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON.")
def command(
    name: str,
    location: str,
    only: str | None,
    force: bool,
    dry_run: bool,
    limits: Limits,
    address: str | None,
    track: tuple[str, ...],
    notify: str | None,
    profile_name: str | None,
    as_json: bool,
) -> int:
    """Run and measure what is left of sweep NAME, as it stands in the store."""
    store = Store.at(location)
    sweep = store.load_sweep(name)
    choice = choice_of(sweep, only, force)
    if dry_run:
        standing = ledger_of(store, sweep)
        measures = decide_measurements(sweep.to_measure, standing, choice)
        print_actions(decide(sweep.runs, standing, choice), measures, as_json)
        return 0
    if profile_name is not None:
        from orchestrator.tracking.kinds import arguments

        chosen = [*(["--only", only] if only else []), *(["--force"] if force else [])]
        chosen += [*arguments(sweep, track), *(["--notify", notify] if notify else [])]
        return _submit(name, sweep, location, profile_name, chosen, limits, as_json)
    store.require_writable()
    from orchestrator.display.sweep_console import SweepConsole

    console = SweepConsole(as_json)
    with notifying(notify, sweep, location) as ended:
        result = carry_out(sweep, store, choice, address, limits, console, track)
        ended(result)
        console.ended(result)
    return result.exit_code


def _submit(
    name: str,
    sweep: Sweep,
    location: str,
    profile_name: str,
    chosen: list[str],
    limits: Limits,
    as_json: bool,
) -> int:
    """Give what is left of a sweep to a cluster, as the store has it."""
    from cluster.library import read_profile
    from orchestrator.jobs.submission import Request, absolute_store
    from orchestrator.jobs.working_directory import came_along
    from orchestrator.sweep_submit import submit_sweep

    require_sources(sweep.runs)
    file = came_along(sweep)
    if file is not None:
        raise UserError(
            f"{sweep.name} was submitted with local files ({file}); submit its sweep file again,"
            " which goes on with what is left"
        )
    profile = read_profile(profile_name)
    request = Request(
        sweep,
        None,
        ["resume", name],
        absolute_store(location),
        profile_name,
        profile,
        (*chosen, *limits.within(profile.most_gpus).as_words()),
    )
    return submit_sweep(request, False, as_json)
