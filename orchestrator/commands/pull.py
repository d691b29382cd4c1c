"""``depthsweep pull``: what another store has, brought into this one."""

from __future__ import annotations

import json

import click

from orchestrator.display.output import counted_aloud, wrapped
from sweeps.store.store import Store


@click.command("pull")
@click.argument("source", metavar="FROM")
@click.option("--store", "location", default="./store", show_default=True, help="Where it goes.")
@click.option(
    "--sweep", metavar="NAME", help="Only this sweep, all its versions (or NAME@VERSION)."
)
@click.option("--weights", is_flag=True, help="Also checkpoints that runs kept.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object for programs.")
def command(source: str, location: str, sweep: str | None, weights: bool, as_json: bool) -> int:
    """Bring the sweeps and runs of the store FROM, a folder or URL, into another one.

    Runs that have ended come whole and checked, and count once all of them is there. A run that
    both stores have a result of stays as it is here, and is named where its rows differ; one that
    is going on is left. The same command again brings what is missing. 1 where a file of FROM is
    not what its record says.
    """
    from sweeps.upkeep.pulling import pull

    pulled = pull(
        Store.at(source),
        Store.at(location),
        sweep,
        weights=weights,
        watch=lambda moved, total: counted_aloud(moved, "runs", total),
    )
    if as_json:
        click.echo(json.dumps(pulled.page(), indent=1))
    else:
        click.echo("\n".join(part for line in pulled.lines() for part in wrapped(line)))
    return pulled.exit_code
