"""What a shell completes: sweeps and run ids of the store that the line names, files beside them.

It is click's own completion, switched on in bash with

    eval "$(_DEPTHSWEEP_COMPLETE=bash_source depthsweep)"

(zsh and fish: ``zsh_source``, ``fish_source``). A shell waits for the answer, so folders are listed
and nothing is read; what goes wrong completes nothing.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

import click
from click.shell_completion import CompletionItem

from sweeps.declaration.sweep_files import shipped_sweeps

RUN_ID = re.compile(r"[0-9a-f]{12}")
# More ids than that are told once some of their digits are.
MOST = 200

Complete = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]


def _store(context: click.Context) -> Path:
    """Return the folder of the store that a line means, as far as it has been typed; that of an
    object store is not asked, and is none."""
    said = context.params.get("location") or context.params.get("store") or "./store"
    return Path(str(said)).expanduser()


def _names(folder: Path) -> list[str]:
    try:
        return sorted(one.name for one in os.scandir(folder) if one.is_dir())
    except OSError:
        return []


def sweeps_of_store(context: click.Context) -> list[str]:
    """Return the names of the sweeps that the store has."""
    return [name for name in _names(_store(context) / "sweeps") if not name.startswith(".")]


def runs_of_store(context: click.Context) -> list[str]:
    """Return the ids of the runs that the store has."""
    return [name for name in _names(_store(context) / "runs") if RUN_ID.fullmatch(name)]


def shipped(context: click.Context) -> list[str]:
    """Return the names of the sweeps that come with depthsweep."""
    del context
    return list(shipped_sweeps())


def _offered(
    of: tuple[Callable[[click.Context], Iterable[str]], ...],
    files: bool,
    context: click.Context,
    parameter: click.Parameter,
    begun: str,
) -> list[CompletionItem]:
    del parameter
    found = [name for one in of for name in one(context) if name.startswith(begun)]
    items = [CompletionItem(name) for name in dict.fromkeys(found)][:MOST]
    # A path is the shell's own to complete, where no name is; bash forgets what stood before this.
    return [*([CompletionItem(begun, type="file")] if files else ()), *items]


def _completes(*of: Callable[[click.Context], Iterable[str]], files: bool = False) -> Complete:
    return partial(_offered, of, files)


SWEEP = _completes(sweeps_of_store)
SWEEP_OR_FILE = _completes(sweeps_of_store, shipped, files=True)
FILE_OR_SHIPPED = _completes(shipped, files=True)
RUN = _completes(runs_of_store)
SWEEP_OR_RUN = _completes(sweeps_of_store, runs_of_store)
