"""What is left to do of a sweep: the ledger compared with the specification."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal

from sweeps.spec import RunSpec


@dataclass(frozen=True)
class Action:
    """What happens to one run, and why."""

    run: RunSpec
    kind: Literal["run", "skip"]
    reason: str


def decide(
    runs: Iterable[RunSpec],
    done: Callable[[str], dict[str, Any] | None],
    attempts: Callable[[str], list[dict[str, Any]]],
) -> list[Action]:
    """Return the action of each run, in order.

    ``done`` and ``attempts`` give the store's closing record and attempt records of a run id. A
    finished run is skipped, and so is a diverged one: that is a result. Anything else starts over.
    """
    actions = []
    for run in runs:
        closing = done(run.run_id)
        if closing is not None:
            actions.append(Action(run, "skip", closing["status"]))
            continue
        tries = attempts(run.run_id)
        cause = (tries[-1]["cause"] or "lost") if tries else None
        reason = f"its last attempt was {cause}" if cause else "new"
        actions.append(Action(run, "run", reason))
    return actions
