"""The attempt at a run that is measured and not trained, of which a failure leaves nothing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sweeps.attempts.attempt import Attempt, Superseded
from sweeps.spec import RunSpec
from sweeps.store.store import Store
from workers.progress import PREPARATION, logged


@contextmanager
def measuring(run: RunSpec, store: Store) -> Iterator[Attempt]:
    """Enter an attempt at a run. Where it fails and no sweep names the run, the run is forgotten:
    no `resume` would ever end it, and `ls` and `status` would show it as open for good."""
    folder = store.run(run.run_id)
    entered = False
    try:
        with Attempt(folder) as attempt:
            entered = True
            with PREPARATION.heard_by(logged(attempt.log)):
                yield attempt
    except Superseded:
        raise
    except BaseException:
        if entered and folder.done() is None and run.run_id in store.strays():
            folder.forget()
        raise
