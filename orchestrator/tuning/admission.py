"""When each run starts, and what follows when it ends: the driver's side of a sweep of trials.

The policy's books say which run's turn it is; Tune is offered that one and Ray places it. Reports
come back: where a run is, how far, how it ended or failed; the failure policy says what then. A run
that starts again is the same trial, paused meanwhile, or started anew by Tune where its process was
lost.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from typing import Any, Protocol

from orchestrator.connection.nodes import RayDied
from orchestrator.ledger.sweep_account import Limits
from orchestrator.policy.books import Ask, Books, NodeRoom
from orchestrator.policy.failures import Failures, Verdict
from orchestrator.policy.next_start import Waiting
from orchestrator.policy.occupancy import Demand
from orchestrator.sizing.placement import Node
from orchestrator.tuning.cluster_view import View
from orchestrator.tuning.hearing import Hearing, Kind, Notices
from orchestrator.tuning.request import Request, pause_for
from orchestrator.tuning.requests import Requests, demand_of_request
from sweeps.errors import UserError

# How often a cluster is asked which nodes it has.
LOOK_SECONDS = 1.0
# How long something is waited for until that is said, and again.
PATIENCE_SECONDS, REMIND_SECONDS = 10.0, 300.0
# A run that Ray was given and has not started for so long waits for what the books do not see.
PENDING_SECONDS = 60.0
# How long nothing starts once a node has not seen the store: until it is known who does.
STORE_SECONDS = 6.0
# A trial that has not reported for so long has a process that does nothing any more. Longer than a
# node's first imports may take on a slow disk.
SILENT_SECONDS = 900.0
# How long a place is waited for that a run had which is over.
LEAVING_SECONDS = 30.0
# Measured on two cores: from an offer to the first report of a trial in a process of its own.
START_SECONDS = 3.0


class Cluster(Protocol):
    """What is asked of a cluster; see ``orchestrator.tuning.cluster_view``."""

    group: str

    def look(self) -> View:
        """Return what there is now."""

    def doubt(self, node: str, why: str) -> None:
        """Have no run on a node before it has shown that it sees the store."""

    def leaving(self, groups: Collection[str]) -> set[str]:
        """Return those of some placement groups whose place is waited for: not free yet, and
        another node would come for what is asked for meanwhile."""


class Admission:
    """The state of a sweep that runs.

    Args:
        requests: sized for the nodes that ``cluster`` has now, whose runs are ``waiting``.
        settings: of each run, what a trial's config shows beside the request.
        store_away: says why the store cannot be used now, or None where it can.
        store_looked_at: says the same by a look at this moment; by default as ``store_away``.
    """

    def __init__(
        self,
        requests: Requests,
        waiting: Mapping[str, Waiting],
        cluster: Cluster,
        limits: Limits,
        hearing: Hearing,
        settings: Callable[[str], Mapping[str, Any]] = lambda _: {},
        store_away: Callable[[], str | None] = lambda: None,
        store_looked_at: Callable[[], str | None] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.books = Books(
            waiting.values(), limits.most, limits.most_gpus, START_SECONDS, time.monotonic
        )
        self.failures = Failures()
        self.books.room_on, self.books.aside = self.failures.room_on, self.failures.aside
        self.stopped: str | None = None
        self._requests, self._cluster, self._hearing = requests, cluster, hearing
        self._settings, self._store_away, self._clock = settings, store_away, clock
        self._store_looked_at = store_looked_at or store_away
        self._began, self._limits = clock(), limits
        self._looked = float("-inf")
        self._present: dict[str, Node] = {}
        self._new = set(waiting)  # runs that no trial has had
        self._pause = pause_for(len(waiting))
        self._picked: deque[Ask] = deque()
        self._tries: Counter[str] = Counter()
        self._used: dict[str, Request] = {}  # what each run was started with last
        self._heard: dict[str, float] = {}  # when each run that is on reported last
        self._held_until = float("-inf")
        self._wrong: frozenset[str] = frozenset()  # nodes that cannot carry out runs, as they say
        self._furthest: dict[str, int] = {}
        self._resumed: set[str] = set()
        self._ended: set[str] = set()
        self._stepping_back: set[str] = set()
        self._asked_at: dict[str, float] = {}
        self._groups: dict[str, str] = {}  # the placement group of each run's last try
        self._over_at: dict[str, float] = {}  # of those whose run is over, since when
        self._notices = Notices()

    # ---------------------------------------------------------------------------------- starting
    @property
    def all_offered(self) -> bool:
        """Whether every run has its trial."""
        return not self._new

    def tick(self) -> None:
        """Take in what has changed, and pick what starts now."""
        now = self._clock()
        if now - self._looked >= LOOK_SECONDS:
            self._looked = now
            self._look(now)
        if self.stopped or self._picked:
            return
        if self.failures.stopped:
            self._stop(self.failures.stopped)
            return
        if self._limits.seconds is not None and now - self._began > self._limits.seconds:
            self._stop("the time budget is used up")
            return
        away = self._store_away()
        if away is None and now >= self._held_until and not self._leaving(now):
            if not self.books.cluster.placed:
                self.books.weigh(now)
            while (ask := self.books.next(now)) is not None:
                self._picked.append(ask)
                self._asked_at[ask.run.run_id] = now
            self.books.weigh(now)
        self._say_what_is_waited_for(now, away)

    def _leaving(self, now: float) -> bool:
        """Whether Ray still holds for a run that is over what the next one is to have: asked for
        now, that would wait, and an autoscaler bring more than the sweep may use."""
        over = [run_id for run_id in self._groups if not self.books.holds(run_id)]
        held = self._cluster.leaving([self._groups[run_id] for run_id in over])
        for run_id in over:
            group = self._groups[run_id]
            if group not in held or now - self._over_at.setdefault(group, now) > LEAVING_SECONDS:
                del self._groups[run_id]
                self._over_at.pop(group, None)
        return any(run_id in self._groups for run_id in over)

    def offer(self) -> dict[str, Any] | None:
        """Return the config of a run that starts in a new trial, or None where none does now."""
        ask = next((ask for ask in self._picked if ask.run.run_id in self._new), None)
        if ask is None:
            return None
        self._picked.remove(ask)
        self._new.discard(ask.run.run_id)
        return self._config(self._request(ask.run, ask.node))

    def again(self) -> tuple[str, dict[str, Any], Request] | None:
        """Return a run whose paused trial starts now, with its config and request; or None."""
        ask = next((ask for ask in self._picked if ask.run.run_id not in self._new), None)
        if ask is None:
            return None
        self._picked.remove(ask)
        request = self._request(ask.run, ask.node)
        return request.run_id, self._config(request), request

    def _request(self, run: Waiting, node: str | None) -> Request:
        run_id = run.run_id
        request = self._requests.taught(self._requests[run_id])
        self._tries[run_id] += 1
        self._used[run_id] = request
        group = f"{self._cluster.group}{run_id}-{self._tries[run_id]}"
        self._groups[run_id] = group
        # Resources of a run that has ended are free to Ray a tenth of a second later: a group for
        # that place would go to another node, also to one on which nothing is to start now.
        off = run.barred | self.books.cluster.closed if node else self.books.bars(run)
        off = (off | set(self.failures.aside)) & set(self._present) | self._wrong
        off -= set(self.books.nodes_of(run_id))
        request = request.at(node, off, group if self._cluster.group else "")
        return replace(request, pause=self._pause)

    def _config(self, request: Request) -> dict[str, Any]:
        return request.config(self._settings(request.run_id))

    # ----------------------------------------------------------------------------------- reports
    def silent(self, placed: Collection[str]) -> list[str]:
        """Return those of the runs whose trials have a process that have not reported for long, or
        never: the processes are to be ended, and count as lost then. ``placed`` have one."""
        if self.stopped:
            return []  # all are told to end
        now = self._clock()
        self._heard = dict.fromkeys(self._asked_at.keys() & set(placed), now) | self._heard
        found = [one for one in placed if now - self._heard.get(one, now) > SILENT_SECONDS]
        for run_id in found:
            del self._heard[run_id]
        return found

    def reports(self, run_id: str, result: Mapping[str, Any]) -> str:
        """Take in a report; return what becomes of the trial: ``goes on``, ``pauses`` until its
        turn comes again, or ``ends``, then with the status ``failed``."""
        now = self._clock()
        if result.get("seats"):
            self.books.is_at(run_id, [(seat[0], seat[1]) for seat in result["seats"]], now)
            self._asked_at.pop(run_id, None)
            self._hearing.event(run_id, "started", {"nodes": self.books.nodes_of(run_id)})
        status, step = result.get("status"), result.get("step") or 0
        self._heard[run_id] = now
        if status:
            del self._heard[run_id]
        if result.get("resumed_from"):
            self._resumed.add(run_id)
        if step > self._furthest.get(run_id, 0) and result.get("loss") is not None:
            self._furthest[run_id] = step
            self.failures.got_further(run_id, self.books.nodes_of(run_id))
        if run_id in self._stepping_back:
            self._stepping_back.discard(run_id)
            self.books.is_back(run_id, self._demand_of(run_id))
            return "pauses"
        if status == "again":
            return self._goes_wrong(run_id, result, now)
        if status in ("preempted", "cancelled"):
            self._hearing.event(run_id, "progress", result)
            self._hearing.event(run_id, "preempted", {})
            off = frozenset(self.books.nodes_of(run_id))
            self.books.goes_back(run_id, off, self._demand_of(run_id))
            return "pauses"
        if status:
            self._end(run_id, str(status), result, now)
            return "goes on"  # a result that is done ends its trial
        self.books.has_reached(run_id, step, result.get("steps") or 0, now)
        if not result.get("seats"):
            self._hearing.event(run_id, "progress", result)
        return "goes on"

    def _end(self, run_id: str, status: str, result: Mapping[str, Any], now: float) -> None:
        if run_id in self._ended:
            return  # one that was given up says so itself, too
        self._ended.add(run_id)
        whole = status == "finished" and run_id not in self._resumed and self._tries[run_id] < 2
        if status != "failed":
            self.failures.got_further(run_id, self.books.nodes_of(run_id))
        self.books.has_ended(run_id, now, measures=whole)
        self.failures.ended(run_id, status, result.get("error"))
        self._hearing.event(run_id, "ended", {**result, "status": status})

    def _goes_wrong(self, run_id: str, result: Mapping[str, Any], now: float) -> str:
        what, why = result.get("what"), str(result.get("error") or "")
        nodes, present = self.books.nodes_of(run_id), set(self._present)
        if what in ("mistake", "error", "node") and self._store_looked_at() is not None:
            what = "store"  # a file that is not there, say, is the store's that is not there
        if what == "memory":
            if self._requests.with_less_memory(self._used[run_id]) is not None:
                self._back(run_id, Verdict("again", why), "again")
                self.books.demands(self._demand_of)
                return "pauses"
            verdict = Verdict("failed", why)
        elif what == "mistake":
            verdict = Verdict("failed", why)
        elif what == "superseded":
            verdict = Verdict("again", why)
        elif what == "node":
            # Its node does not see the store that the driver sees: it is asked again before it
            # gets another run.
            self._held_until = now + STORE_SECONDS
            for node in nodes:
                self._cluster.doubt(node, why)
            verdict = Verdict("again", why, frozenset(nodes) & present)
        elif what == "store":
            verdict = self.failures.gave_up_for_the_store(run_id, nodes, why, present)
        elif what == "lost":
            verdict = self.failures.lost(run_id, nodes, why, present)
        else:
            verdict = self.failures.erred(run_id, nodes, why, present)
        self._name_set_aside()
        if verdict.next == "again":
            self._back(run_id, verdict, "lost" if what == "lost" else "again")
            return "pauses"
        ends = {**result, "error": verdict.text, "mistake": what == "mistake"}
        self._end(run_id, "failed", ends, now)
        return "ends"

    def _demand_of(self, run_id: str) -> Demand:
        return demand_of_request(self._requests.taught(self._requests[run_id]))

    def _back(self, run_id: str, verdict: Verdict, kind: Kind) -> None:
        self.books.goes_back(run_id, verdict.barred, self._demand_of(run_id))
        self._hearing.event(run_id, kind, {"error": verdict.text})

    def loses(self, run_id: str, why: str) -> tuple[dict[str, Any], Request]:
        """Take in that a trial's process is gone; return the config and request with which Tune
        starts it anew: one that holds next to nothing, and hands the trial back, so that the run
        starts again when and where its turn is."""
        request = Request(run_id, "", "", {}, steps_back=True)
        if run_id in self._stepping_back:
            self._once(f"{run_id} waits for a process that can be started: {why}")
            return self._config(request), request
        nodes = self.books.nodes_of(run_id)
        self._heard.pop(run_id, None)
        self._look(self._clock())
        verdict = self.failures.lost(run_id, nodes, why, set(self._present))
        self._name_set_aside()
        if verdict.next == "failed":
            text = verdict.text
            self._end(run_id, "failed", {"error": text}, self._clock())
            request = replace(request, steps_back=False, given_up=text)
            return self._config(request), request
        self._stepping_back.add(run_id)
        self._asked_at.pop(run_id, None)
        self.books.steps_back(run_id, verdict.barred)
        self._hearing.event(run_id, "lost", {"error": why})
        return self._config(request), request

    # --------------------------------------------------------------------------------- the cluster
    def _look(self, now: float) -> None:
        try:
            view = self._cluster.look()
        except RayDied:
            raise
        except Exception as error:
            # The control store of a cluster may be away for a moment: what was there still counts.
            self._once(f"the cluster does not say what it has: {' '.join(str(error).split())}")
            return
        for node, why in view.wrong.items():
            self._once(f"node {node[:12]} gets no run for now: {why}")
        self._wrong = frozenset(view.wrong)
        present = {node.name: node for node in view.nodes}
        for gone in set(self._present) - set(present):
            self.failures.left(gone)
        changed = {n.name for n in view.nodes} != set(self._present)
        self._present = present
        if changed and present:
            self._fit(view)
        placement = self._requests.placement
        if placement is not None:
            rooms = [
                NodeRoom(node.name, placement.size_of(node), placement.free_on(node))
                for node in view.nodes
                if placement.size_of(node)
            ]
            self.books.growth = float(sum(placement.size_of(node) for node in view.to_come))
            size = sum(room.size for room in rooms)
            self.books.share = size / (1 + view.waiting) if view.waiting else None
            self.books.look(rooms, now)

    def _fit(self, view: View) -> None:
        """Size what waits for the nodes there are now; where that cannot be, as it was."""
        try:
            fitted = self._requests.fit(view.nodes, view.to_come)
        except UserError as error:
            self._once(str(error))
            return
        if fitted is not None:
            self.books.exchange(fitted)
            self.books.demands(self._demand_of)

    def _name_set_aside(self) -> None:
        for node, why in self.failures.aside.items():
            if node not in self._notices.aside:
                self._hearing.notice(f"node {node[:12]} is set aside: {why}")
        for node in self._notices.aside - set(self.failures.aside):
            if node in self._present:
                why = "what failed there has failed elsewhere, too"
                self._hearing.notice(f"node {node[:12]} is used again: {why}")
        self._notices.aside = set(self.failures.aside)

    # ------------------------------------------------------------------------------------ notices
    def _stop(self, why: str) -> None:
        self.stopped = why
        self._once(f"the sweep stops: {why}")

    def _once(self, text: str) -> None:
        if text not in self._notices.said:
            self._notices.said.add(text)
            self._hearing.notice(text)

    def _say_what_is_waited_for(self, now: float, away: str | None) -> None:
        waits = f"no run is started while the store is away: {away}" if away else None
        waits = waits or self.books.waits_for() or self._pending_for_long(now)
        seen = self._notices
        if waits != seen.waits:
            seen.waits, seen.since = waits, now
        elif waits and now - seen.since > PATIENCE_SECONDS and now - seen.told > REMIND_SECONDS:
            seen.told = now
            self._hearing.notice(f"waiting: {waits}")

    def _pending_for_long(self, now: float) -> str | None:
        long = [run_id for run_id, at in self._asked_at.items() if now - at > PENDING_SECONDS]
        placed = [run_id for run_id in long if run_id in self._heard]
        if not long:
            return None
        first, *more = placed or long
        which = f"{first} and {len(more)} others" if more else first
        return f"{which}: {'no process has answered yet' if placed else 'Ray has no place yet'}"
