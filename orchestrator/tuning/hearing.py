"""What a sweep says while it runs: events of its runs, and notices for a person."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

Kind = str


@dataclass(frozen=True)
class Event:
    """Something that happened to a run: started, progress, ended; lost, preempted or again, and
    then to be started once more."""

    run_id: str
    kind: Kind
    report: dict[str, Any]


@dataclass
class Hearing:
    """Who is told: events of runs, and notices on the sweep. What they raise is dropped."""

    on_event: Callable[[Event], None] = lambda _: None
    on_notice: Callable[[str], None] = lambda _: None

    def event(self, run_id: str, kind: Kind, report: Mapping[str, Any]) -> None:
        try:
            self.on_event(Event(run_id, kind, dict(report)))
        except Exception:
            return  # an exception here would end the sweep

    def notice(self, text: str) -> None:
        try:
            self.on_notice(text)
        except Exception:
            return


@dataclass
class Notices:
    """What has been said, so that it is said once, or now and then."""

    said: set[str] = field(default_factory=set)
    aside: set[str] = field(default_factory=set)
    waits: str | None = None
    since: float = 0.0
    told: float = float("-inf")
