"""What follows from a failure: the run again, elsewhere or not at all; a node set aside; a stop.

Causes and what follows are those of the design ("Failure policy, by cause"). Pure: who is told of
failures decides, and whoever places runs carries it out.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from typing import Literal

# Losses of a run without getting further, on nodes that are still there, until it is given up.
LOSSES = 3
# Errors in code or data until a run has failed.
ERRORS = 2
# And where all of them were on nodes on which nothing has worked yet, while there are others.
ERRORS_ON_NODES_THAT_MAY_BE_BAD = 4
# Failures of different runs on a node, without a success between, until it is set aside; and so
# many runs may be on a node of several that has not shown yet that it works.
NODE_FAILURES = 3
# Runs in a row that fail with one cause until the sweep stops.
ALIKE = 12

Next = Literal["again", "failed"]


@dataclass(frozen=True)
class Verdict:
    """What becomes of a run that failed: ``again`` not on the nodes ``barred`` where there are
    others, or ``failed`` with a ``text``."""

    next: Next
    text: str = ""
    barred: frozenset[str] = frozenset()


@dataclass
class _Trouble:
    """What went wrong with one run since it last got further."""

    losses: list[frozenset[str]] = field(default_factory=list)
    errors: list[tuple[str, frozenset[str]]] = field(default_factory=list)

    def nodes(self) -> frozenset[str]:
        return frozenset[str]().union(*self.losses, *(nodes for _, nodes in self.errors))


class Failures:
    """The failures of one sweep."""

    def __init__(self) -> None:
        self.aside: dict[str, str] = {}
        self.stopped: str | None = None
        self._runs: dict[str, _Trouble] = {}
        self._nodes: dict[str, dict[str, str]] = {}  # node, run, why
        self._proven: set[str] = set()
        self._causes: deque[str] = deque(maxlen=ALIKE)

    def got_further(self, run_id: str, nodes: Collection[str]) -> None:
        """A run made a step: its nodes work, and its losses so far do not count."""
        if run_id in self._runs:
            self._runs[run_id].losses.clear()
        for node in nodes:
            self._proven.add(node)
            self._nodes.pop(node, None)

    def lost(
        self, run_id: str, nodes: Iterable[str], why: str, present: Collection[str]
    ) -> Verdict:
        """A process or a node of a run is gone; ``present`` are the nodes there still are."""
        trouble = self._runs.setdefault(run_id, _Trouble())
        trouble.losses.append(frozenset(nodes))
        self._blame(run_id, nodes, why, present)
        counted = [on for on in trouble.losses if on <= set(present)]
        if len(counted) >= LOSSES:
            first, _, more = why.partition("\n")
            text = f"lost {len(counted)} times without getting further; last: {first}\n{more}"
            return Verdict("failed", text.rstrip())
        return Verdict("again", why, self._barred(trouble, present))

    def erred(
        self, run_id: str, nodes: Iterable[str], why: str, present: Collection[str]
    ) -> Verdict:
        """An error in code or data ended a run."""
        trouble = self._runs.setdefault(run_id, _Trouble())
        trouble.errors.append((_cause(why), frozenset(nodes)))
        alike = {on for cause, on in trouble.errors if cause == _cause(why)}
        if len(alike) > 1 and any(on <= self._proven for on in alike):
            # The same on a node that works: it is the run's own, and no node is to blame. On two
            # of which nothing has worked yet, it may be the nodes'.
            for node, failed in self._nodes.items():
                failed.pop(run_id, None)
                if len(failed) < NODE_FAILURES:
                    self.aside.pop(node, None)
        else:
            self._blame(run_id, nodes, why, present)
        barred = self._barred(trouble, present)
        tried_well = any(on <= self._proven for _, on in trouble.errors) or not barred
        most = ERRORS if tried_well else ERRORS_ON_NODES_THAT_MAY_BE_BAD
        if len(trouble.errors) >= most:
            return Verdict("failed", why)
        return Verdict("again", why, barred)

    def gave_up_for_the_store(
        self, run_id: str, nodes: Iterable[str], why: str, present: Collection[str]
    ) -> Verdict:
        """A run waited for the store in vain: no fault of its own, perhaps of its node."""
        self._blame(run_id, nodes, why, present)
        return Verdict("again", why)

    def ended(self, run_id: str, status: str, why: str | None) -> None:
        """A run has ended for good: so many in a row that failed alike stop the sweep."""
        self._runs.pop(run_id, None)
        if status != "failed":
            self._causes.clear()
            return
        self._causes.append(_cause(why or ""))
        if len(self._causes) == ALIKE and len(set(self._causes)) == 1:
            self.stopped = f"the last {ALIKE} runs failed with one cause: {(why or '').strip()}"

    def left(self, node: str) -> None:
        """A node is not there any more; what comes back under its name begins anew."""
        self.aside.pop(node, None)
        self._nodes.pop(node, None)
        self._proven.discard(node)

    def room_on(self, node: str) -> int | None:
        """Return how many runs may be on a node until it has shown that it works; None for any."""
        if node in self._proven and not self._nodes.get(node):
            return None
        return max(1, NODE_FAILURES - len(self._nodes.get(node, ())))

    def _blame(self, run_id: str, nodes: Iterable[str], why: str, present: Collection[str]) -> None:
        for node in nodes:
            if node not in present or node in self.aside:
                continue
            failed = self._nodes.setdefault(node, {})
            failed[run_id] = why
            others = set(present) - set(self.aside) - {node}
            if len(failed) >= NODE_FAILURES and others:
                runs = f"{len(failed)} different runs failed there without a success between"
                self.aside[node] = f"{runs}; last: {why.splitlines()[0] if why else ''}"

    def _barred(self, trouble: _Trouble, present: Collection[str]) -> frozenset[str]:
        """Return the nodes to keep off, unless that leaves none."""
        barred = trouble.nodes() & set(present)
        return barred if set(present) - barred - set(self.aside) else frozenset()


def _cause(text: str) -> str:
    """Return what two failures of one cause have in common: the message but for numbers, ids and
    quoted names."""
    line = text.strip().splitlines()[0] if text.strip() else ""
    return re.sub(r"\b[0-9a-f]{6,}\b|\d+|/\S+", "#", line)
