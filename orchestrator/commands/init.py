"""``depthsweep init``: a first sweep file of one's own, asked or by options."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path

import click

from orchestrator.display.output import require_file
from orchestrator.new_sweep import KINDS, PRETRAINING, new_sweep
from sweeps.declaration.expand import read_sweep
from sweeps.errors import UserError


@click.command("init")
@click.option(
    "--model",
    "models",
    multiple=True,
    metavar="MODEL",
    help="A folder, a model of the catalogue (gpt2), org/name@COMMIT of the hub, or standin:gpt2;"
    " repeatable.",
)
@click.option("--data", metavar="DATA", help="A file or folder, org/name@COMMIT[:CONFIG].")
@click.option("--objective", metavar="KIND", help=f"One of {', '.join(KINDS)}.")
@click.option(
    "--column",
    "columns",
    multiple=True,
    metavar="ROLE=COLUMN",
    help="The dataset's own name of a column: text=review; repeatable.",
)
@click.option("--probe", metavar="DATA", help="Texts to probe with (default: those of --data).")
@click.option("--labels", type=click.IntRange(min=2), help="How many labels there are.")
@click.option("--name", help="Of the sweep (default: that of the file).")
@click.option(
    "-o", "--output", default="study.yaml", show_default=True, type=click.Path(dir_okay=False)
)
def command(
    models: tuple[str, ...],
    data: str | None,
    objective: str | None,
    columns: tuple[str, ...],
    probe: str | None,
    labels: int | None,
    name: str | None,
    output: str,
) -> None:
    """Write a commented sweep file for your model and data, and check it.

    What is not given is asked for.

    \b
    depthsweep init --model ./my-model --data reviews.csv \\
                    --objective classification --column text=review
    """
    require_file(output, "a sweep file is checked where it lies, and")
    path = Path(output)
    if path.exists():
        raise UserError(f"-o {output}: is there already; give another name or remove it")
    asked = sys.stdin.isatty()
    if not models:
        models = tuple(_ask("Model (a folder, gpt2, org/name@COMMIT)", "--model", asked).split())
    if data is None:
        data = _ask("Data (a file, org/name@COMMIT)", "--data", asked)
    if objective is None:
        objective = PRETRAINING
        if asked:
            objective = click.prompt("Objective", default=objective, type=click.Choice(KINDS))
    roles = {}
    for one in columns:
        role, sign, column = one.partition("=")
        if not sign or not column:
            raise UserError(f"--column {one}: write role=column, as in text=review")
        roles[role] = column
    name = name or re.sub(r"[^A-Za-z0-9._-]+", "-", path.stem).strip("-._") or "study"
    text = new_sweep(name, models, data, objective, roles, labels, probe, path)
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UserError(f"-o {output}: cannot be written ({error.strerror})") from None
    try:
        sweep = read_sweep(path)
    except UserError as error:
        path.unlink()
        raise UserError(f"{error}; nothing was written") from None
    click.echo(f"{path}: {len(sweep.runs)} runs of sweep {sweep.name}")
    click.echo(f"  depthsweep plan {shlex.quote(str(path))}")
    click.echo(f"  depthsweep run {shlex.quote(str(path))}")


def _ask(what: str, option: str, asked: bool) -> str:
    if not asked:
        raise UserError(f"init needs {option}; depthsweep init --help says more")
    return str(click.prompt(what))
