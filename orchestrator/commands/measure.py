"""``depthsweep measure``: weights that are there already, on a text, without training."""

from __future__ import annotations

import click

from orchestrator.measuring import (
    measure_checkpoints,
    measure_weights,
    probe_on,
    recorded_as,
)
from orchestrator.shell.completion import SWEEP_OR_RUN
from sweeps.errors import UserError
from sweeps.store.store import Store


@click.command("measure")
@click.argument("what", nargs=-1, metavar="[SWEEP|RUN_ID]...", shell_complete=SWEEP_OR_RUN)
@click.option("--base", help="In place of runs: the checkpoint that --tuned was trained from.")
@click.option("--tuned", help="A folder, or owner/name@commit of the hub.")
@click.option("--probe", "file", required=True, help="The file of texts to probe on.")
@click.option("--name", help="What the sweep of these measurements is called.")
@click.option("--store", "location", default="./store", show_default=True, help="Results folder.")
def command(
    what: tuple[str, ...],
    base: str | None,
    tuned: str | None,
    file: str,
    name: str | None,
    location: str,
) -> int:
    """Compare the weights that runs kept (`keep: final`) with what they began with, on another
    text; or any two checkpoints of one architecture (--base, --tuned).

    What comes out is a sweep of its own in the store, for `profile`, `compare`, `report` and
    `query`. Its runs have ids of their own: those that they would have had with that probe.
    """
    two = base is not None and tuned is not None
    if bool(what) == two or (base is None) != (tuned is None):
        raise UserError("measure takes sweeps or ids of runs, or both --base and --tuned")
    store, probe = Store.at(location), probe_on(file)
    if what:
        store.require_there()
    store.require_writable()
    if base is not None and tuned is not None:
        run = measure_checkpoints(base, tuned, probe, store, click.echo)
        runs, of = [run], f"{run.model.name}-to-{run.objective.label}"
    else:
        runs = measure_weights(what, probe, store, click.echo)
        of = what[0].partition("@")[0] if len(what) == 1 else "weights"
    sweep = recorded_as(name, of, file, runs, store)
    click.echo(f"{len(runs)} measured: `depthsweep profile {sweep}` shows them")
    return 0
