"""``depthsweep query``: SQL over the tables of a store."""

from __future__ import annotations

from dataclasses import replace

import click

from orchestrator.options import OUTPUT
from orchestrator.shell.completion import SWEEP
from sweeps.errors import UserError


@click.command()
@click.argument("sql")
@click.option("--store", default="./store", show_default=True, help="Folder of the store.")
@click.option(
    "--sweep",
    metavar="NAME",
    shell_complete=SWEEP,
    help="Which, or NAME@VERSION (default: the last one run).",
)
@click.option("--all", "whole", is_flag=True, help="Every run of the store, of any sweep or none.")
@click.option(
    "--format",
    "form",
    type=click.Choice(["table", "csv", "json", "jsonl", "parquet"]),
    help="Default: table, or what the name of -o says.",
)
@click.option("--json", "as_json", is_flag=True, help="The same as --format json.")
@OUTPUT
@click.option("--include-running", is_flag=True, help="Also rows of runs that have not ended.")
def command(
    sql: str,
    store: str,
    sweep: str | None,
    whole: bool,
    form: str | None,
    as_json: bool,
    output: str | None,
    include_running: bool,
) -> None:
    """Ask a sweep in SQL: tables runs, steps, layers, profiles, jackknife, evaluations,
    metrics, answers, samples, subspaces, attempts.

    Every table carries the columns of runs: each setting under the name that sweep files use
    (model, objective, control, seed, learning_rate ...), and status, last_step, final_loss,
    evaluation_loss, seconds ...
    Rows of blocks have stack (encoder, decoder; null in a model of one) and block_class; those of
    profiles also which block they are a call of: block_number, iteration.

    \b
    depthsweep query "SELECT model, control, avg(procrustes)
                      FROM profiles WHERE step = last_step AND depth = 1
                      GROUP BY ALL"
    """
    from orchestrator.display.output import emit
    from sweeps.reading.query import query
    from sweeps.reading.tables import open_store
    from sweeps.store.sweep_records import recorded_runs

    if whole and sweep is not None:
        raise UserError("--all asks every run of the store, --sweep one sweep: give one of them")
    if as_json and form not in (None, "json"):
        raise UserError(f"--json and --format {form}: give one of them")
    tables = open_store(store, include_running=include_running)
    if not whole:
        name = sweep or tables.store.newest_sweep()
        tables = replace(tables, planned=recorded_runs(tables.store, name))
    frame = query(tables, sql)
    emit(frame, "json" if as_json else form, output)
