"""``depthsweep export``: what a store has of a sweep, to trackers."""

from __future__ import annotations

import click

from orchestrator.options import sweep_of
from sweeps.declaration.track import TRACKERS


@click.command("export")
@click.argument("sweep_file_or_name")
@click.option(
    "--to",
    "kinds",
    multiple=True,
    required=True,
    type=click.Choice(TRACKERS),
    help="Where to; repeatable.",
)
@click.option("--store", "location", default="./store", show_default=True, help="Results folder.")
def command(sweep_file_or_name: str, kinds: tuple[str, ...], location: str) -> None:
    """Show the runs of a sweep in a tracker, from the store: all that has begun, each once.

    Where tracking stopped half-way, or an export did, this adds what is missing. Options come from
    the sweep's `track:` section.
    """
    from orchestrator.tracking.feed import export
    from orchestrator.tracking.kinds import make_trackers
    from sweeps.store.store import Store

    sweep, _ = sweep_of(sweep_file_or_name, location)
    store = Store.at(location)
    for tracker in make_trackers(sweep.track.only(dict.fromkeys(kinds)), sweep, store):
        done = export(tracker, sweep, store)
        click.echo(f"{sweep.name}: {done} to {tracker.kind}")
