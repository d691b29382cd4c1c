"""Which runs are being carried out just now: their newest attempts, watched."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from sweeps.leases.lease import Vigil as Watched
from sweeps.liveness.process import is_there
from sweeps.liveness.watch import NOTICE_SECONDS, poll_seconds, tell
from sweeps.store.run_folder import RunFolder

# How many runs are looked at side by side: a listing of an object store takes its time.
LOOKS_AT_ONCE = 16


class Vigil(Watched):
    """What this process has seen of a run's newest attempt since it began to look."""

    def __init__(self, folder: RunFolder) -> None:
        super().__init__(folder.path / "attempts")


def alive_runs(folders: Sequence[RunFolder]) -> set[str]:
    """Return the ids of the runs and measurements whose newest attempt is alive; see ``watched``
    for how long that takes."""
    return {folder.run_id for folder, (_, alive) in watched(folders).items() if alive}


def watched(folders: Sequence[RunFolder]) -> dict[RunFolder, tuple[Vigil, bool]]:
    """Return a vigil over each run or measurement, and whether its newest attempt is alive.

    All are watched together: it takes no time where processes of this machine are asked for, one
    heartbeat for an attempt that lives elsewhere, and ``stale_seconds`` if one is silent.
    """
    vigils = {folder: Vigil(folder) for folder in folders}
    alive: dict[RunFolder, bool] = {}
    began, told = time.monotonic(), False
    with ThreadPoolExecutor(LOOKS_AT_ONCE) as pool:
        while unsure := [folder for folder in vigils if folder not in alive]:
            looks = pool.map(Vigil.look, [vigils[folder] for folder in unsure])
            seen = dict(zip(unsure, looks, strict=True))
            alive |= {folder: look == "alive" for folder, look in seen.items() if look != "unsure"}
            if len(alive) < len(vigils):
                if not told and time.monotonic() - began > NOTICE_SECONDS:
                    tell(len(vigils) - len(alive))
                    told = True
                time.sleep(poll_seconds())
    return {folder: (vigil, alive[folder]) for folder, vigil in vigils.items()}


def is_dead_here(attempt: dict[str, Any]) -> bool:
    """Return whether an attempt's process is one of this machine, boot and namespace, and is gone.

    False also where this process cannot know; see ``is_there``.
    """
    return is_there(attempt) is False
