"""``depthsweep report``: a sweep as one self-contained HTML page."""

from __future__ import annotations

from pathlib import Path

import click

from sweeps.errors import UserError


@click.command()
@click.argument("name")
@click.option("--store", default="./store", show_default=True, help="Folder of the store.")
@click.option(
    "-o",
    "--output",
    default="report.html",
    show_default=True,
    type=click.Path(dir_okay=False),
    help="File to write.",
)
@click.option(
    "--claims", "file", metavar="FILE", help="Default: those the sweep came with, or the study's."
)
@click.option("--metric", default="procrustes", show_default=True, help="Which change is shown.")
@click.option("--at", default="final", show_default=True, help="final, or a probe step.")
def command(name: str, store: str, output: str, file: str | None, metric: str, at: str) -> None:
    """Write the report of sweep NAME: profiles, slopes, persistence, claims, training, provenance.

    The page needs no network. Click a model and every chart follows.
    """
    from orchestrator.commands.profile import moment

    page = page_of(name, store, file, metric, moment(at))
    path = Path(output)
    try:
        path.write_text(page, encoding="utf-8")
    except OSError as error:
        raise UserError(f"-o {output}: cannot be written ({error.strerror})") from None
    click.echo(f"{path}: {len(page.encode()) / 1e6:.1f} MB")


def page_of(
    name: str,
    store: str,
    claims_file: str | None = None,
    metric: str = "procrustes",
    at: int | str = "final",
    *,
    include_running: bool = False,
    live: str | None = None,
) -> str:
    """Return the report of a sweep as HTML, from what the store holds now.

    ``live`` is the state it is made from, for a page that reloads itself; see ``live_report``.
    """
    from datetime import UTC, datetime
    from typing import cast

    from sweeps.reading.tables import open_store
    from sweeps.report.data import gather
    from sweeps.report.page import render
    from sweeps.statistics.claims import read_claims
    from sweeps.statistics.profiles import At
    from sweeps.store.claims_file import find_claims

    tables = open_store(store, sweep=name, include_running=include_running)
    sweep = tables.store.load_sweep(name)
    claims = read_claims(find_claims(tables.store, name, claims_file))
    data = gather(tables, name, sweep.description, sweep.text, claims, metric, cast(At, at))
    return render(data, datetime.now(UTC), live)
