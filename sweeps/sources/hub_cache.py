"""What of the hub is on this machine already: where huggingface_hub keeps it, never fetched."""

from __future__ import annotations

import os
from pathlib import Path


def hub_cache() -> Path:
    """Return the folder of huggingface_hub's cache, as it finds it itself."""
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        if os.environ.get(name):
            return Path(os.path.expandvars(os.environ[name])).expanduser()
    home = os.environ.get("HF_HOME")
    if not home:
        home = str(Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "huggingface")
    return Path(os.path.expandvars(home)).expanduser() / "hub"


def cached_snapshot(hub: str, revision: str) -> Path | None:
    """Return the folder of what is here of a repository's model at a commit; None where nothing is.

    It may hold some of the files only: whoever reads one asks whether it is there.
    """
    repository = "models--" + hub.replace("/", "--")
    try:
        place = hub_cache() / repository / "snapshots" / revision
        return place if place.is_dir() else None
    except (OSError, RuntimeError):  # no home, or none that may be read
        return None
