"""``depthsweep diff``: two sweeps, of one store or two: their settings, and their findings."""

from __future__ import annotations

import json

import click

from orchestrator.difference import (
    Study,
    finding_lines,
    findings,
    specification_lines,
    specifications,
    with_settings_of,
)
from orchestrator.shell.completion import SWEEP_OR_FILE


@click.command()
@click.argument("first", shell_complete=SWEEP_OR_FILE)
@click.argument("second", shell_complete=SWEEP_OR_FILE)
@click.option("--store", default="./store", show_default=True, help="Folder of the store.")
@click.option("--other-store", help="Store of SECOND (default: that of FIRST).")
@click.option("--control", default="equal_step", show_default=True, help="The control asked about.")
@click.option("--against", default="standard", show_default=True, help="What it is compared with.")
@click.option("--metric", default="procrustes", show_default=True, help="Which change decides.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object for programs.")
def command(
    first: str,
    second: str,
    store: str,
    other_store: str | None,
    control: str,
    against: str,
    metric: str,
    as_json: bool,
) -> None:
    """Show in what the sweeps FIRST and SECOND differ: settings, then slopes and verdicts.

    Each is a name in its store, a version of one (NAME@VERSION, see ls), or a sweep file, which has
    settings only.
    """
    one, two = Study.at(first, store), Study.at(second, other_store or store)
    said = specifications(one.sweep.runs, two.sweep.runs)
    rows = None
    left = one.verdicts(first, control, against, metric)
    right = two.verdicts(second, control, against, metric)
    if left is not None and right is not None:
        (a, runs_of_a), (b, runs_of_b) = left, right
        rows = findings(with_settings_of(a, b, runs_of_a), with_settings_of(b, a, runs_of_b))
    if as_json:
        page = {"first": first, "second": second, **said, "conditions": rows}
        click.echo(json.dumps(page, indent=1))
        return
    names = (first, second)
    click.echo("\n".join(specification_lines(names, said)))
    if rows:
        click.echo()
        click.echo(f"slope of {metric} under {against}, verdict on {control}:")
        click.echo("\n".join(finding_lines(names, rows)))
