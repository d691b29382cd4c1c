"""Words of the command line that several commands share."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click

from sweeps.declaration.track import TRACKERS
from sweeps.errors import UserError

if TYPE_CHECKING:
    from sweeps.declaration.expand import Sweep
    from sweeps.statistics.profiles import At

ON_CLUSTER = click.option(
    "--address",
    envvar="RAY_ADDRESS",
    help="Run on the Ray cluster there (HOST:PORT or auto), not on this machine.",
)

TRACK = click.option(
    "--track",
    "track",
    multiple=True,
    type=click.Choice([*TRACKERS, "none"]),
    help="Show the runs there, too, besides what the sweep file says; repeatable.",
)


def moment(at: str) -> At:
    """Return ``final`` or the step that ``--at`` names; raise UserError for anything else."""
    if at == "final":
        return "final"
    if not (at.isascii() and at.isdecimal()):
        raise UserError(f"--at {at}: give final or the number of a probe step")
    return int(at)


def names_sweep(given: str) -> bool:
    """Return whether an argument is the name of a sweep in the store, and not a file's path."""
    return not (os.path.exists(given) or os.sep in given or given.endswith((".yaml", ".yml")))


def sweep_of(given: str, location: str | None) -> tuple[Sweep, str | None]:
    """Return the sweep that a file or a name stands for, and the store that it is looked for in:
    for a name ./store where none is given."""
    from sweeps.declaration.expand import read_sweep
    from sweeps.store.store import Store

    if not names_sweep(given):
        return read_sweep(given), location
    location = location or "./store"
    try:
        return Store.at(location).load_sweep(given), location
    except UserError as error:
        raise UserError(f"{given}: no such sweep file, and {error}") from None
