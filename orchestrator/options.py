"""Words of the command line that several commands share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from sweeps.errors import UserError

if TYPE_CHECKING:
    from sweeps.statistics.profiles import At

ON_CLUSTER = click.option(
    "--address",
    envvar="RAY_ADDRESS",
    help="Run on the Ray cluster there (HOST:PORT or auto), not on this machine.",
)


def moment(at: str) -> At:
    """Return ``final`` or the step that ``--at`` names; raise UserError for anything else."""
    if at == "final":
        return "final"
    if not (at.isascii() and at.isdecimal()):
        raise UserError(f"--at {at}: give final or the number of a probe step")
    return int(at)
