"""``depthsweep forget``: throw the rows and records of one run or measurement away."""

from __future__ import annotations

import click

from orchestrator.shell.completion import RUN
from sweeps.attempts.living import alive_runs
from sweeps.errors import UserError
from sweeps.spec import is_measurement
from sweeps.store.store import Store


@click.command("forget")
@click.argument("work_id", metavar="ID", shell_complete=RUN)
@click.option("--store", "location", default="./store", show_default=True, help="Results folder.")
def command(work_id: str, location: str) -> int:
    """Remove everything the store holds of the run or measurement ID; `resume` or `run` makes it
    anew."""
    folder = Store.at(location).known(work_id)
    what = "measurement" if is_measurement(work_id) else "run"
    if alive_runs([folder]):
        newest = folder.newest_attempt() or {}
        where = f"process {newest.get('pid')} on {newest.get('node')}"
        raise UserError(f"{what} {work_id} is running ({where}); stop it first")
    folder.forget()
    click.echo(f"forgot {what} {work_id}")
    return 0
