"""``depthsweep forget``: throw one run's rows and records away."""

from __future__ import annotations

import click

from sweeps.errors import UserError
from sweeps.store.claim import is_alive
from sweeps.store.store import Store


@click.command("forget")
@click.argument("run_id")
@click.option("--store", "location", default="./store", show_default=True, help="Results folder.")
def command(run_id: str, location: str) -> int:
    """Remove everything the store holds of run RUN_ID; `resume` or `run` makes it anew."""
    folder = Store.at(location).known_run(run_id)
    attempts = folder.attempts()
    if attempts and is_alive(folder, attempts[-1]):
        raise UserError(f"run {run_id} is running (process {attempts[-1]['pid']}); stop it first")
    folder.forget()
    click.echo(f"forgot run {run_id}")
    return 0
