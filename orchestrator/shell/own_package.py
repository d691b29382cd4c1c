"""Whether the package ``sweeps`` is this project's: Weights & Biases has one of that name.

Installed beside each other the later one replaces files of the earlier, and whatever comes of that
names neither. This is asked before anything of ``sweeps`` is imported, and so imports none of it.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

# What the door of this project's package offers, and no other's.
DOOR = "open_store"


def foreign_sweeps() -> str | None:
    """Return the folder of a package ``sweeps`` that is another project's; None for our own."""
    found = importlib.util.find_spec("sweeps")
    places = [] if found is None else list(found.submodule_search_locations or ())
    if found is None or found.origin is None:  # no such package, or a folder without a door
        return places[0] if places else "nowhere"
    try:
        own = DOOR in Path(found.origin).read_text(encoding="utf-8", errors="replace")
    except OSError:  # it is in an archive
        own = True
    return None if own else str(Path(found.origin).parent)


def require_own_sweeps() -> None:
    """End the process with one line and exit code 2 where ``sweeps`` is another project's."""
    there = foreign_sweeps()
    if there is None:
        return
    print(
        f"depthsweep: the package 'sweeps' that Python finds ({there}) is not depthsweep's, which"
        " needs its own: Weights & Biases has one of that name; install depthsweep into a virtual"
        " environment of its own, or take the other off PYTHONPATH",
        file=sys.stderr,
    )
    sys.exit(2)
