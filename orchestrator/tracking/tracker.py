"""What a tracker is: it says what it has of each run, and takes what is missing.

The store is the truth, a tracker a copy for looking at. So nothing is written down of what was
logged: the tracker itself is asked (``logged_to``, ``ended``). A record of our own would be wrong
after a kill between logging and recording, and after somebody deleted a run there.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

import polars as pl

Value = str | int | float | bool

# Shorter values are words, such as true, that may stand in any text.
SECRET_LENGTH = 6


@dataclass(frozen=True)
class RunCard:
    """What a run is, wherever it is shown.

    Attributes:
        key: its id in every tracker: the run id, and of which store and sweep.
        name: run id, model, objective, control, what else tells it apart, seed.
        heads: model, objective, control and seed, as they are called.
        parameters: every setting that it has, flat.
    """

    run_id: str
    key: str
    name: str
    sweep: str
    description: str
    heads: dict[str, str]
    parameters: dict[str, Value]


@dataclass(frozen=True)
class StepRow:
    """The numbers of one step; ``time`` grows with the step and is the same in every attempt."""

    step: int
    time: datetime
    numbers: dict[str, float]


@dataclass(frozen=True)
class Outcome:
    """How a run stands where it is left: its status, its last step, what it comes to.

    Attributes:
        profiles: one row per probe step and layer; None where there is none.
        picture: makes the profiles' picture as ``svg`` or ``png``.
    """

    status: str
    step: int
    time: datetime
    numbers: dict[str, float]
    profiles: pl.DataFrame | None
    picture: Callable[[str], bytes]


class TrackedRun(Protocol):
    """One run in a tracker, open for more."""

    @property
    def logged_to(self) -> int:
        """The last step that the tracker had of it when it was opened; 0 for none."""

    def log(self, rows: Sequence[StepRow]) -> None:
        """Add steps, in order, all after ``logged_to`` and after those added before."""

    def end(self, outcome: Outcome) -> None:
        """Say how it ended, in place of what was said before; no more is logged then."""

    def leave(self) -> None:
        """Let go of it without an end: it may be opened again."""


class Tracker(Protocol):
    """A place where runs are shown; any method may raise, and may then be called again."""

    kind: str

    def ended(self) -> dict[str, str]:
        """Return the status of each run of the sweep, by its key, that ``end`` was said of."""

    def open(self, card: RunCard) -> TrackedRun:
        """Return the run's own place, new or found."""

    def close(self) -> None:
        """Let go of what is held."""


def reason(error: BaseException) -> str:
    """Return the first line of what went wrong, without what is secret in it."""
    text = str(error).strip().splitlines()
    said = text[0].rstrip(".") if text else type(error).__name__
    said = re.sub(r"//[^/@\s]+@", "//", said)
    for name, value in os.environ.items():
        if len(value) >= SECRET_LENGTH and re.search(r"KEY|TOKEN|PASSWORD|SECRET", name):
            said = said.replace(value, "…")
    return said[:200]
