"""``depthsweep submit``: a sweep to a cluster; the laptop may close."""

from __future__ import annotations

from dataclasses import replace

import click

from orchestrator.ledger.sweep_account import Limits
from orchestrator.notification import NOTIFY
from orchestrator.options import TRACK, limited
from orchestrator.shell.completion import FILE_OR_SHIPPED


@click.command("submit")
@click.argument("sweep_file", shell_complete=FILE_OR_SHIPPED)
@click.option("--cluster", "profile_name", required=True, help="Profile: a name or a .yaml file.")
@click.option("--store", required=True, help="Results: a URL, or a path every node shares.")
@limited
@TRACK
@NOTIFY
@click.option("-f", "--follow", is_flag=True, help="Show what the job says until it ends.")
@click.option("--json", "as_json", is_flag=True, help="Print the submission as JSON.")
def command(
    sweep_file: str,
    profile_name: str,
    store: str,
    limits: Limits,
    track: tuple[str, ...],
    notify: str | None,
    follow: bool,
    as_json: bool,
) -> int:
    """Submit SWEEP_FILE to a cluster. The same submit again attaches, or goes on with the rest.

    What --notify names is told by the job, from the cluster, where its command line can be read.
    """
    from orchestrator.studies import request_for
    from orchestrator.sweep_submit import submit_sweep

    request = request_for(sweep_file, profile_name, store, limits, track)
    if notify is not None:
        request = replace(request, options=(*request.options, "--notify", notify))
    return submit_sweep(request, follow, as_json)
