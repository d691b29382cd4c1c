"""``depthsweep submit``: a sweep to a cluster; the laptop may close."""

from __future__ import annotations

import click

from orchestrator.ledger.sweep_account import Limits
from orchestrator.options import TRACK, limited


@click.command("submit")
@click.argument("sweep_file")
@click.option("--cluster", "profile_name", required=True, help="Profile: a name or a .yaml file.")
@click.option("--store", required=True, help="Results: a URL, or a path every node shares.")
@limited
@TRACK
@click.option("-f", "--follow", is_flag=True, help="Show what the job says until it ends.")
@click.option("--json", "as_json", is_flag=True, help="Print the submission as JSON.")
def command(
    sweep_file: str,
    profile_name: str,
    store: str,
    limits: Limits,
    track: tuple[str, ...],
    follow: bool,
    as_json: bool,
) -> int:
    """Submit SWEEP_FILE to a cluster. The same submit again attaches, or goes on with the rest."""
    from orchestrator.studies import request_for
    from orchestrator.sweep_submit import submit_sweep

    return submit_sweep(
        request_for(sweep_file, profile_name, store, limits, track), follow, as_json
    )
