"""``depthsweep report``: a sweep as one self-contained HTML page, or its figures as files."""

from __future__ import annotations

from pathlib import Path

import click

from orchestrator.display.output import STDOUT, require_file, require_folder
from orchestrator.options import moment
from orchestrator.shell.completion import SWEEP
from sweeps.errors import UserError

FORMATS = ("html", "pdf", "svg")
# Where results go that were not told where: a page, or a folder of figures.
_DEFAULTS = {"html": "report.html", "pdf": "figures", "svg": "figures"}
# Millimetres of a column of a page of two, as most journals have it.
COLUMN = 84.0
# Less shows nothing, more is no page.
NARROWEST, WIDEST = 40.0, 400.0


@click.command()
@click.argument("name", shell_complete=SWEEP)
@click.option("--store", default="./store", show_default=True, help="Folder of the store.")
@click.option(
    "-o",
    "--output",
    metavar="PATH",
    help="File to write, .html, .pdf or .svg; of figures a folder too; - prints the page. Default:"
    " report.html, or the folder figures.",
)
@click.option(
    "--format", "kind", type=click.Choice(FORMATS), help="Default: what -o ends in, else html."
)
@click.option(
    "--figure",
    "figures",
    multiple=True,
    metavar="NAME",
    help="Of pdf and svg: profiles, slope-against-slope, kept, verdicts, slopes, learned, losses,"
    " training-losses, changes or update-ratios; may be repeated. Default: all.",
)
@click.option(
    "--width",
    type=click.FloatRange(NARROWEST, WIDEST),
    metavar="MM",
    help=f"Of pdf and svg: how wide figures are, in millimetres. Default: {COLUMN:g}, a column.",
)
@click.option("--claims", "file", metavar="FILE", help="Default: those the sweep came with.")
@click.option("--metric", default="procrustes", show_default=True, help="Which change is shown.")
@click.option("--at", default="final", show_default=True, help="final, or a probe step.")
def command(
    name: str,
    store: str,
    output: str | None,
    kind: str | None,
    figures: tuple[str, ...],
    width: float | None,
    file: str | None,
    metric: str,
    at: str,
) -> None:
    """Write the report of sweep NAME: what it says, profiles, what outlives a control, training.

    The page needs no network. Click a model and every chart follows. As pdf or svg figures are
    written at the width of a column, with their fonts: a file each in a folder, or one file in
    which they lie under each other.
    """
    form = _form_of(output, kind)
    if output is not None and form != "html":
        require_file(output, "figures")
    path = Path(output or _DEFAULTS[form])
    if form == "html":
        for option, value in (("--figure", figures), ("--width", width)):
            if value:
                raise UserError(f"{option}: a page has every figure; add --format pdf or svg")
        _write_page(path, name, store, file, metric, at)
        return

    if file is not None:
        raise UserError("--claims: figures show no claims; leave it out, or ask for html")
    from sweeps.report.store_page import figures_to

    written = figures_to(
        path,
        form,
        name,
        store,
        metric,
        moment(at),
        figures=figures,
        millimetres=COLUMN if width is None else width,
    )
    for each in written:
        click.echo(f"{each}: {each.stat().st_size / 1e3:.0f} kB")


def _form_of(output: str | None, kind: str | None) -> str:
    """Return the form that is asked for: a file is what its name ends in."""
    ending = Path(output).suffix.lower().removeprefix(".") if output else ""
    ending = "html" if ending == "htm" else ending
    if ending and ending not in FORMATS:
        if kind in (None, "html"):
            raise UserError(f"-o {output}: no such form of a report; end it in .html, .pdf or .svg")
        return str(kind)  # a folder with a dot in its name
    if kind and ending and kind != ending:
        raise UserError(f"-o {output}: ends in .{ending}, and --format is {kind}; leave one out")
    return kind or ending or "html"


def _write_page(path: Path, name: str, store: str, file: str | None, metric: str, at: str) -> None:
    from sweeps.report.store_page import page_of

    require_folder(path)
    page = page_of(name, store, file, metric, moment(at))
    if str(path) == STDOUT:
        # The page says of itself that it is UTF-8, whatever the terminal has.
        click.echo(page.encode(), nl=False)
        return
    try:
        path.write_text(page, encoding="utf-8")
    except OSError as error:
        raise UserError(f"-o {path}: cannot be written ({error.strerror})") from None
    click.echo(f"{path}: {len(page.encode()) / 1e6:.1f} MB")
