"""``depthsweep digest``: do two stores hold the same rows?"""

from __future__ import annotations

import json
from dataclasses import asdict

import click

from orchestrator.shell.completion import SWEEP


@click.command("digest")
@click.argument("name", shell_complete=SWEEP)
@click.option("--store", default="./store", show_default=True, help="Folder of the store.")
@click.option("--json", "as_json", is_flag=True, help="A JSON object a table.")
def command(name: str, store: str, as_json: bool) -> None:
    """Print a checksum of every table of sweep NAME.

    Equal for equal rows, bit for bit, whatever was interrupted or resumed. Processors of other
    kinds round otherwise: rows of two of them differ in their last digits.
    """
    from sweeps.reading.digest import digests
    from sweeps.reading.tables import open_store

    found = list(digests(open_store(store, sweep=name)))
    if as_json:
        click.echo(json.dumps([asdict(each) for each in found], indent=1))
        return
    width = max(len(each.table) for each in found)
    for each in found:
        click.echo(f"{each.table:<{width}} {each.rows:>10,} rows  {each.sha256[:32]}")
