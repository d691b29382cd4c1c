"""Which runs have ended without the weights that their sweep asks for now."""

from __future__ import annotations

from collections.abc import Iterable

from orchestrator.ledger.recovery import Action
from sweeps.store.records import COMPLETE
from sweeps.store.store import Store

# So many runs are named.
NAMED = 3


def without_weights(name: str, actions: Iterable[Action], store: Store) -> str | None:
    """Return what to do about runs of a sweep that ended before ``keep`` was set, None where there
    are none: how a run is carried out is no part of its id, so it is not run again by itself."""
    # Of one that diverged there is nothing to keep, however often it is trained.
    whys = set(COMPLETE)
    ended = [one.run for one in actions if one.kind == "skip" and one.why in whys]
    asked = [run.run_id for run in ended if run.execution.keep != "none"]
    lacking = [run_id for run_id in asked if not store.run(run_id).checkpoints()]
    if not lacking:
        return None
    shown = ", ".join(lacking[:NAMED]) + (", …" if lacking[NAMED:] else "")
    many = f"{len(lacking)} runs have" if lacking[1:] else "1 run has"
    return (
        f"{many} ended without the weights that `keep` asks for: `depthsweep resume {name} --only"
        f" ID --force` trains one again ({shown})"
    )
