"""``depthsweep submit``: a sweep to a cluster; the laptop may close."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sweeps.declaration.expand import read_sweep

if TYPE_CHECKING:
    from orchestrator.jobs.submission import Request


@click.command("submit")
@click.argument("sweep_file")
@click.option("--cluster", "profile_name", required=True, help="Profile: a name or a .yaml file.")
@click.option("--store", required=True, help="Results: a URL, or a path every node shares.")
@click.option("-f", "--follow", is_flag=True, help="Show what the job says until it ends.")
@click.option("--json", "as_json", is_flag=True, help="Print the submission as JSON.")
def command(sweep_file: str, profile_name: str, store: str, follow: bool, as_json: bool) -> int:
    """Submit SWEEP_FILE to a cluster. The same submit again attaches, or goes on with the rest."""
    from cluster.library import read_profile
    from orchestrator.jobs.submission import Request, absolute_store

    sweep = read_sweep(sweep_file)
    path = Path(sweep_file).absolute()
    request = Request(
        sweep,
        path,
        ["run", path.name],
        absolute_store(store),
        profile_name,
        read_profile(profile_name),
    )
    return carry_out(request, follow, as_json)


def carry_out(request: Request, follow: bool, as_json: bool) -> int:
    """Submit, say how to go on, and follow if asked; return 1 when a followed job failed."""
    from orchestrator.jobs.submission import find, submit

    chosen = submit(request, lambda line: click.echo(line, err=True))
    if as_json:
        said = {
            "submission_id": chosen.submission_id,
            "attempt": chosen.attempt,
            "attached": chosen.attaches,
        }
        click.echo(json.dumps(said))
    else:
        how = "is under way already" if chosen.attaches else "is under way"
        click.echo(f"{chosen.submission_id} {how}")
        name, store = request.sweep.name, request.store
        click.echo(f"  depthsweep logs {name} -f --store {store}")
        click.echo(f"  depthsweep status {name} --store {store}")
    if not follow:
        return 0
    found = find(request.sweep.name, request.store, request.profile_name)
    for text in found.queue.follow(chosen.submission_id):
        click.echo(text, nl=False, err=as_json)
    ended = find(request.sweep.name, request.store, request.profile_name).job
    return 0 if ended.state == "succeeded" else 1
