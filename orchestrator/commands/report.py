"""``depthsweep report``: a sweep as one self-contained HTML page."""

from __future__ import annotations

from pathlib import Path

import click

from orchestrator.options import moment
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
@click.option("--claims", "file", metavar="FILE", help="Default: those the sweep came with.")
@click.option("--metric", default="procrustes", show_default=True, help="Which change is shown.")
@click.option("--at", default="final", show_default=True, help="final, or a probe step.")
def command(name: str, store: str, output: str, file: str | None, metric: str, at: str) -> None:
    """Write the report of sweep NAME: profiles, slopes, persistence, claims, training, provenance.

    The page needs no network. Click a model and every chart follows.
    """

    from sweeps.report.store_page import page_of

    if Path(output).suffix.lower() not in (".html", ".htm", ""):
        raise UserError(f"-o {output}: a report is one HTML page; end the name in .html")
    page = page_of(name, store, file, metric, moment(at))
    path = Path(output)
    try:
        path.write_text(page, encoding="utf-8")
    except OSError as error:
        raise UserError(f"-o {output}: cannot be written ({error.strerror})") from None
    click.echo(f"{path}: {len(page.encode()) / 1e6:.1f} MB")
