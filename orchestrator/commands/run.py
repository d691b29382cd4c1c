"""``depthsweep run``: a sweep on this machine, or on the Ray cluster at an address."""

from __future__ import annotations

import click

from orchestrator.ledger.recovery import EVERYTHING
from orchestrator.ledger.sweep_account import Limits
from orchestrator.options import ON_CLUSTER, TRACK, limited
from orchestrator.sweep_run import carry_out
from sweeps.declaration.expand import read_sweep
from sweeps.store.store import Store


@click.command("run")
@click.argument("sweep_file")
@click.option("--store", "location", default="./store", show_default=True, help="Results folder.")
@limited
@ON_CLUSTER
@TRACK
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON.")
def command(
    sweep_file: str,
    location: str,
    limits: Limits,
    address: str | None,
    track: tuple[str, ...],
    as_json: bool,
) -> int:
    """Run SWEEP_FILE. Finished runs are skipped, the rest continue from their checkpoints."""
    from orchestrator.display.sweep_console import SweepConsole

    sweep = read_sweep(sweep_file)
    store = Store.at(location)
    store.require_writable()
    console = SweepConsole(as_json)
    result = carry_out(sweep, store, EVERYTHING, address, limits, console, track)
    console.ended(result)
    return result.exit_code
