"""``depthsweep distance``: how far each fine-tuning objective is from pretraining, untrained."""

from __future__ import annotations

from collections.abc import Iterator

import click

from orchestrator.display.output import wrapped
from orchestrator.ledger.recovery import Choice
from orchestrator.ledger.sweep_account import Limits
from orchestrator.options import ON_CLUSTER, limited
from orchestrator.shell.completion import SWEEP
from orchestrator.sweep_run import run_sweep
from sweeps.declaration.expand import Sweep
from sweeps.reading.closings import Closings
from sweeps.reading.measurements import recorded, refusal_of
from sweeps.reading.text_table import Column, text_table
from sweeps.spec import measurements_of
from sweeps.store.store import Store


@click.command()
@click.argument("name", shell_complete=SWEEP)
@click.option("--store", "location", default="./store", show_default=True, help="Results folder.")
@limited
@ON_CLUSTER
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON.")
def command(name: str, location: str, limits: Limits, address: str | None, as_json: bool) -> int:
    """Measure the objective distance of every model and objective of sweep NAME.

    It needs no training: 1 less the cosine, block by block, between the gradients of the
    pretraining objective and of the fine-tuning one. From now on the sweep wants it: `resume`
    measures what is left. Runs are left alone.
    """
    from orchestrator.display.sweep_console import SweepConsole

    store = Store.at(location)
    sweep = store.load_sweep(name)
    store.require_writable()
    sweep = sweep.wanting({*sweep.measurements, "objective_distance"})
    console = SweepConsole(as_json)
    choice = Choice(only="objective_distance")
    result = run_sweep(sweep, store, choice, address, limits, console)
    console.ended(result)
    if not as_json:
        closings = Closings(store, [one.work_id for one in sweep.to_measure])
        click.echo("\n".join(_lines(closings, sweep)))
    return result.exit_code


def _lines(store: Closings, sweep: Sweep) -> Iterator[str]:
    """Yield a line a model and objective, then those that cannot be measured and why."""
    rows, refused = [], []
    for one in measurements_of(sweep.runs, ["objective_distance"]):
        result, refusal = recorded(store, one), refusal_of(store, one)
        model, objective = one.run.model.name, one.run.objective.label
        if refusal is not None:
            said = f"cannot be measured: {one.label}: {refusal}"
            refused += wrapped(said)
        if result is None:
            continue
        low, high = _number(result["low"]), _number(result["high"])
        noisy = "noisy" if result["noisy"] else ""
        common = _number((result["common"] or {}).get("distance"))
        distance = _number(result["distance"])
        rows.append((model, objective, distance, f"{low} to {high}", noisy, common))
    names = ("model", "objective", "distance", "95 % interval", "", "on one text")
    columns = [
        Column(name, [row[k] for row in rows], right=k > 1, kept=True)
        for k, name in enumerate(names)
    ]
    yield from (text_table(columns, 80)[0] if rows else [])
    yield from refused


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
