"""``depthsweep query``: SQL over the tables of a store."""

from __future__ import annotations

import click


@click.command()
@click.argument("sql")
@click.option("--store", default="./store", show_default=True, help="Folder of the store.")
@click.option("--sweep", metavar="NAME", help="Only the runs of this sweep.")
@click.option(
    "--format",
    "form",
    type=click.Choice(["table", "csv", "json", "jsonl", "parquet"]),
    help="Default: table, or what the name of -o says.",
)
@click.option("-o", "--output", type=click.Path(dir_okay=False), help="Write to this file.")
@click.option("--include-running", is_flag=True, help="Also rows of runs that have not ended.")
def command(
    sql: str,
    store: str,
    sweep: str | None,
    form: str | None,
    output: str | None,
    include_running: bool,
) -> None:
    """Ask the store in SQL: tables runs, steps, layers, profiles, attempts.

    Every table carries the columns of runs (model, objective, control, seed, status ...):

    \b
    depthsweep query "SELECT model, control, avg(procrustes)
                      FROM profiles GROUP BY ALL"
    """
    from orchestrator.display.output import emit
    from sweeps.reading.query import query
    from sweeps.reading.tables import open_store

    frame = query(open_store(store, sweep=sweep, include_running=include_running), sql)
    emit(frame, form, output)
