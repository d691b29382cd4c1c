"""``depthsweep merge``: several stores brought into one."""

from __future__ import annotations

import json

import click

from orchestrator.display.output import counted_aloud, wrapped
from sweeps.store.store import Store


@click.command("merge")
@click.argument("sources", metavar="STORE…", nargs=-1, required=True)
@click.option("--into", "location", required=True, metavar="TO", help="Where they go.")
@click.option("--weights", is_flag=True, help="Also checkpoints that runs kept.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a store, for programs.")
def command(sources: tuple[str, ...], location: str, weights: bool, as_json: bool) -> int:
    """Bring all of each STORE into another one, as `pull` does of one, in the order given.

    Of a run that several have a result of the first one stays.
    """
    from sweeps.upkeep.pulling import pull

    stores = [Store.at(source) for source in sources]
    for store in stores:  # a mistake is said before anything is copied
        store.require_there(store.location)
    pages, code = [], 0
    for store in stores:
        pulled = pull(
            store,
            Store.at(location),
            weights=weights,
            watch=lambda moved, total: counted_aloud(moved, "runs", total),
        )
        pages.append(pulled.page())
        code = max(code, pulled.exit_code)
        if not as_json:
            click.echo("\n".join(part for line in pulled.lines() for part in wrapped(line)))
    if as_json:
        click.echo(json.dumps(pages, indent=1))
    return code
