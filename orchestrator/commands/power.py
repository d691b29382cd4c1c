"""``depthsweep power``: which verdicts a sweep can come to, before a GPU is taken."""

from __future__ import annotations

import json
import math

import click

from orchestrator.options import sweep_of
from orchestrator.shell.completion import SWEEP_OR_FILE
from sweeps.declaration.expand import Sweep
from sweeps.errors import UserError


@click.command("power")
@click.argument("sweep", shell_complete=SWEEP_OR_FILE)
@click.option(
    "--store", "location", help="Measure the spread of seeds on what finished (NAME: ./store)."
)
@click.option(
    "--effect",
    type=float,
    default=0.5,
    show_default=True,
    help="Share of the slope that is kept where `persists` is to be said.",
)
@click.option(
    "--cv", type=float, help="sd over mean of the slopes of seeds. Default: measured, or 0.1."
)
@click.option(
    "--target",
    type=float,
    default=0.8,
    show_default=True,
    help="Probability of a verdict that seeds are asked for.",
)
@click.option(
    "--correlation",
    type=float,
    default=0.5,
    show_default=True,
    help="Of the slopes of one seed under both controls.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object for programs.")
def command(
    sweep: str,
    location: str | None,
    effect: float,
    cv: float | None,
    target: float,
    correlation: float,
    as_json: bool,
) -> None:
    """Show what SWEEP, a file or the name of one in the store, can and cannot decide.

    For each condition under a control: the probability of the verdict `persists` where the stated
    share of the slope is kept, and of `collapses` where nothing is, with the seeds that are planned
    under the control and under standard; how many seeds it takes, and how many more runs.
    """
    from orchestrator.display.output import terminal_width
    from orchestrator.display.power_text import power_data, power_text
    from sweeps.findings.deciding import deciding
    from sweeps.findings.verdicts import DELTA

    _require("--effect", effect, DELTA < effect < math.inf, f"above {DELTA:g}: less is not kept")
    _require("--target", target, 0 < target < 1, "between 0 and 1")
    _require("--correlation", correlation, -1 <= correlation <= 1, "from -1 to 1")
    if cv is not None:
        _require("--cv", cv, 0 < cv < math.inf, "above 0")
    found, place = sweep_of(sweep, location)
    slopes = _final_slopes(found, place) if place is not None and cv is None else {}
    answer = deciding(
        found.runs, effect=effect, target=target, correlation=correlation, cv=cv, slopes=slopes
    )
    if as_json:
        click.echo(json.dumps(power_data(found.name, answer), indent=1))
    else:
        click.echo(power_text(found.name, answer, terminal_width()), nl=False)


def _require(option: str, value: float, holds: bool, wanted: str) -> None:
    if not holds:
        raise UserError(f"{option} {value:g}: give a number {wanted}")


def _final_slopes(sweep: Sweep, location: str) -> dict[str, dict[str | None, float]]:
    """Return the slopes of each run of a sweep that finished in a store, by run id and stack."""
    from sweeps.reading.tables import Tables
    from sweeps.statistics.profiles import measure
    from sweeps.store.store import Store

    store = Store.at(location).reading(())
    if not store.root.is_dir():
        raise UserError(f"--store {location}: no such folder; leave it out before the sweep ran")
    # By run id, not by name: a file is planned that the store may know in another version.
    runs = measure(Tables(store, list(sweep.runs), include_running=False)).runs
    found: dict[str, dict[str | None, float]] = {}
    for run_id, stack, slope in runs.select("run_id", "stack", "slope").iter_rows():
        if slope is not None:
            found.setdefault(run_id, {})[stack] = slope
    return found
