"""Runs that have a result, whose last attempt was cut off between that and its own end."""

from __future__ import annotations

from collections.abc import Iterable

from sweeps.attempts.attempt import end_for
from sweeps.attempts.living import alive_runs
from sweeps.spec import RunSpec
from sweeps.store.store import Store


def finish_off(store: Store, runs: Iterable[RunSpec]) -> list[str]:
    """End the attempts of closed runs whose process is gone, remove what they left, and return the
    ids; takes time only where there are such."""
    waiting = {}
    for run in runs:
        folder = store.run(run.run_id)
        newest = folder.newest_attempt()
        if newest is not None and newest["cause"] is None and folder.done() is not None:
            waiting[run.run_id] = run
    alive = alive_runs([store.run(run_id) for run_id in waiting])
    left = [run_id for run_id in waiting if run_id not in alive]
    for run_id in left:
        folder = store.run(run_id)
        newest = folder.newest_attempt()
        if newest is not None and end_for(folder, newest, "lost"):
            folder.remove_unlisted(waiting[run_id].execution.keep)
    return left
