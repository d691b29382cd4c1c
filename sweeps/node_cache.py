"""Where a node keeps what it can make or fetch again, for stores that are not a folder of its own.

``DEPTHSWEEP_CACHE`` names the folder; without it, ``depthsweep`` in the user's cache folder. What
lies there is known by content or by version, so any number of stores and processes share it and it
may be deleted at any time that nothing runs.
"""

from __future__ import annotations

import os
from pathlib import Path


def node_cache() -> Path:
    """Return the folder, which need not exist yet."""
    named = os.environ.get("DEPTHSWEEP_CACHE")
    if named:
        return Path(named).expanduser().absolute()
    above = os.environ.get("XDG_CACHE_HOME")
    return (Path(above) if above else Path.home() / ".cache") / "depthsweep"
