"""``depthsweep profile``: where in depth each condition of a sweep changed."""

from __future__ import annotations

import json

import click

from orchestrator.options import OUTPUT, moment
from orchestrator.shell.completion import SWEEP
from sweeps.errors import UserError

# Of a run on a terminal, after its settings.
_SEEN = ("seed", "status", "slope", "final_loss", "seconds")


@click.command()
@click.argument("name", shell_complete=SWEEP)
@click.option("--store", default="./store", show_default=True, help="Folder of the store.")
@click.option(
    "--by",
    metavar="COLUMNS",
    help="Default: model,objective,control and what else differs.",
)
@click.option("--metric", default="procrustes", show_default=True, help="Which change.")
@click.option("--at", default="final", show_default=True, help="final, or a probe step.")
@click.option(
    "--block-class",
    metavar="CLASS",
    help="Only blocks of this class, in a model of several kinds.",
)
@click.option(
    "--export",
    "form",
    type=click.Choice(["csv", "parquet", "json"]),
    help="One row per condition and block, with everything known of both.",
)
@click.option("--runs", "per_run", is_flag=True, help="Export one row per run instead.")
@OUTPUT
@click.option("--json", "as_json", is_flag=True, help="One JSON object for programs.")
def command(
    name: str,
    store: str,
    by: str | None,
    metric: str,
    at: str,
    block_class: str | None,
    form: str | None,
    per_run: bool,
    output: str | None,
    as_json: bool,
) -> None:
    """Show the depth profiles of sweep NAME, per condition.

    By depth: change of each block from first to last, scaled to the row's largest. Slope: of the
    change on relative depth (0 to 1), with the t interval over seeds and probe rows. Centre: its
    centre of mass (a flat profile: 0.5). Over g: slope over mean change, less what noise in the
    weights alone does. n: finished runs. A model of several stacks, as encoder and decoder, has a
    profile of each; a block that runs several times has a layer for each call.
    """
    import polars as pl

    from orchestrator.display.output import STDOUT, emit, terminal_width
    from sweeps.reading.tables import open_store
    from sweeps.report.profile_text import profile_text
    from sweeps.statistics.conditions import (
        condition_columns,
        everyone,
        layer_bands,
        parse_by,
        summarise,
    )
    from sweeps.statistics.profiles import measure
    from sweeps.statistics.run_summary import run_summary

    profiles = measure(open_store(store, sweep=name), metric, moment(at), block_class)
    keys = parse_by(by, everyone(profiles))
    if per_run and as_json:
        raise UserError("--runs with --json: use --export json")
    if as_json:
        table, bands = summarise(profiles, keys), layer_bands(profiles, keys)
        page = {
            "sweep": name,
            "metric": metric,
            "at": profiles.at,
            "block_class": block_class,
            "by": keys,
            "conditions": table.to_dicts(),
            "blocks": bands.to_dicts(),
            "left_out": profiles.left_out.to_dicts(),
        }
        click.echo(json.dumps(page, indent=1))
    elif per_run:
        summary = run_summary(profiles)
        if form is None and output in (None, STDOUT):
            # On a terminal what tells runs apart is seen first, and what has no room comes last.
            first = ["run_id", *condition_columns(everyone(profiles)), *_SEEN]
            summary = summary.select(*first, pl.exclude(first))
        emit(summary, form, output)
    elif form is not None or output is not None:
        table, bands = summarise(profiles, keys), layer_bands(profiles, keys)
        wide = bands.join(table.drop("n", "mean", "null"), on=keys, how="left", nulls_equal=True)
        emit(wide, form, output)
    elif profiles.runs.is_empty():
        raise UserError(
            f"sweep {name!r} in store {store} has no finished run with a profile yet; see"
            f" depthsweep status {name} --store {store}"
        )
    else:
        click.echo(profile_text(name, profiles, keys, terminal_width()), nl=False)
