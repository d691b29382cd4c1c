"""Words of the command line that several commands share."""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from orchestrator.ledger.sweep_account import Limits
from sweeps.declaration.entries.track import TRACKERS
from sweeps.errors import UserError

if TYPE_CHECKING:
    from sweeps.declaration.expand import Sweep
    from sweeps.statistics.profile_rows import At

ON_CLUSTER = click.option(
    "--address",
    envvar="RAY_ADDRESS",
    help="Run on the Ray cluster there (HOST:PORT or auto), not on this machine.",
)

OUTPUT = click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, allow_dash=True),
    help="Write to this file; - is stdout.",
)

TRACK = click.option(
    "--track",
    "track",
    multiple=True,
    type=click.Choice([*TRACKERS, "none"]),
    help="Show the runs there, too, besides what the sweep file says; repeatable.",
)


def _seconds(context: click.Context, option: click.Parameter, said: str | None) -> float | None:
    """Return a time span such as 90, 30m, 12h or 2d in seconds."""
    del context, option
    if said is None:
        return None
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd]?)", said.strip())
    if found is None or not float(found[1]):
        raise UserError(f"--time-budget {said}: give a time such as 30m, 12h or 2d")
    return float(found[1]) * {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400}[found[2]]


def _runs_per_gpu(context: click.Context, option: click.Parameter, said: str) -> int | None:
    del context, option
    if said == "auto":
        return None
    if not (said.isascii() and said.isdecimal() and int(said)):
        raise UserError(f"--runs-per-gpu {said}: give auto, or how many may share a GPU at most")
    return int(said)


_LIMITS = (
    click.option(
        "--max-concurrent", type=click.IntRange(min=1), help="Runs side by side (default: all)."
    ),
    click.option(
        "--max-gpus",
        type=click.IntRange(min=1),
        help="GPUs held at a time, or CPUs where there are none (default: all).",
    ),
    click.option(
        "--runs-per-gpu",
        default="auto",
        callback=_runs_per_gpu,
        help="Small runs that may share a GPU at most: auto or a number.",
    ),
    click.option(
        "--time-budget",
        callback=_seconds,
        help="Stop after so long (30m, 12h, 2d), with checkpoints.",
    ),
)


def limited(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options that limit what a sweep takes; it is called with ``limits``."""

    @functools.wraps(command)
    def with_limits(
        *arguments: Any,
        max_concurrent: int | None,
        max_gpus: int | None,
        runs_per_gpu: int | None,
        time_budget: float | None,
        **others: Any,
    ) -> Any:
        limits = Limits(max_concurrent, max_gpus, runs_per_gpu, time_budget)
        return command(*arguments, limits=limits, **others)

    for option in reversed(_LIMITS):
        with_limits = option(with_limits)
    return with_limits


def moment(at: str) -> At:
    """Return ``final`` or the step that ``--at`` names; raise UserError for anything else."""
    if at == "final":
        return "final"
    if not (at.isascii() and at.isdecimal()):
        raise UserError(f"--at {at}: give final or the number of a probe step")
    return int(at)


def names_sweep(given: str) -> bool:
    """Return whether an argument is the name of a sweep in the store, and not a file's path: a
    folder is no sweep file, so it hides no name."""
    there = os.path.exists(given) and not os.path.isdir(given)
    return not (there or os.sep in given or given.endswith((".yaml", ".yml")))


def sweep_of(given: str, location: str | None) -> tuple[Sweep, str | None]:
    """Return the sweep that a file or a name stands for, and the store that it is looked for in:
    for a name ./store where none is given. A name that the store does not know may be that of a
    sweep which comes with depthsweep."""
    from sweeps.declaration.expand import read_sweep
    from sweeps.declaration.sweep_files import shipped_sweeps, what_is_there
    from sweeps.store.store import Store

    if not names_sweep(given):
        return read_sweep(given), location
    place = location or "./store"
    try:
        return Store.at(place).load_sweep(given), place
    except UserError as error:
        unknown = error
    try:
        return read_sweep(given), location
    except UserError:
        shipped = shipped_sweeps()
        if Path(given).name in shipped:
            raise  # it comes with depthsweep, and cannot be expanded
        raise UserError(
            f"{given}: {what_is_there(given)}, none of those that come with depthsweep"
            f" ({', '.join(shipped)}), and {unknown}"
        ) from None
