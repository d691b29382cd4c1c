"""``depthsweep distance``: how far each fine-tuning objective is from pretraining, untrained."""

from __future__ import annotations

import click

from sweeps.errors import UserError


@click.command()
@click.argument("name")
@click.option("--store", default="./store", show_default=True, help="Folder of the store.")
@click.option(
    "--threads", default=2, show_default=True, type=click.IntRange(1), help="CPU threads."
)
def command(name: str, store: str, threads: int) -> None:
    """Measure the objective distance of every model and objective of sweep NAME.

    It needs no training: the cosine, block by block, between the gradient of the pretraining
    objective and that of the fine-tuning objective. What is in the store already is not measured
    again; the tables, claims and the report then carry it.
    """
    from sweeps.reading.objective_distance import distance_key, recorded_distance
    from sweeps.store.store import Store

    place = Store.at(store)
    runs = {distance_key(run): run for run in place.load_sweep(name).runs}
    missing = {key: run for key, run in runs.items() if recorded_distance(place, key) is None}
    click.echo(
        f"{len(runs)} pairs of model and objective, {len(runs) - len(missing)} measured before"
    )
    if not missing:
        return
    place.require_writable()
    import torch

    from workers.probes.objective_distance import measure_objective_distance

    torch.set_num_threads(threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    refused = 0
    for run in missing.values():
        label = f"{run.model.name} {run.objective.label}"
        try:
            click.echo(f"{label}: {measure_objective_distance(run, place, device):.4f}")
        except UserError as error:
            refused += 1
            click.echo(f"{label}: not measured: {error}", err=True)
    if refused == len(runs):
        raise UserError(f"sweep {name!r}: no objective distance could be measured")
