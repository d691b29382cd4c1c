"""A sweep given to a cluster, and what is said of it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from orchestrator.jobs.submission import Request


def submit_sweep(request: Request, follow: bool, as_json: bool) -> int:
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
