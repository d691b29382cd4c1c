"""A sweep carried out by forked workers, two at a time, under faults."""

from __future__ import annotations

import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from sweeps.liveness.watch import stale_seconds
from sweeps.spec import RunSpec
from tests.faults import forked
from tests.faults.grounds import Ground, Hold
from tests.faults.harm.on_disk import READ_BY_A_RESUME, harm_file, small_files_only
from tests.faults.schedule import FILES, HARMS, HOST_KINDS, INSIDE, LATE, Fault

SLOTS = 2
# Faults that one store takes before its sweep is left to finish.
FAULTS_A_ROUND = 40
# Attempts at a run without a fault in between that end without a result: it never will.
VAIN_ATTEMPTS = 5
POLL_SECONDS = 0.01
# Whoever waits for a successor's result to thaw does so no longer.
FROZEN_SECONDS = 90.0
# Hosts are away for 1 to 9 s, longer and shorter than what counts as gone; then ranks whose gang
# was ended meanwhile have so long to find that out.
AWAY_FACTOR, FIND_OUT_SECONDS = 6, 15.0


class Round:
    """One store, from empty to every run ended."""

    def __init__(
        self,
        runs: list[RunSpec],
        ground: Ground,
        logs: Path,
        faults: list[Fault],
        sabotage: Callable[[], None] | None = None,
    ) -> None:
        self.runs = runs
        self.ground = ground
        self.logs = logs
        # What attempts are given comes with them, everything else when it is due.
        self._inside = [f for f in faults if f.kind in INSIDE and f.kind not in ground.befalls]
        self.faults = [fault for fault in reversed(faults) if fault not in self._inside]
        self.sabotage = sabotage
        self.applied: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.active: list[forked.Attempt] = []
        self.vain: Counter[str] = Counter()
        # Runs whose last attempt was lost: a driver gives them another one, result or not.
        self._owed: set[str] = set()
        self._pending: list[tuple[Fault, Callable[[], bool]]] = []
        self._releases: list[tuple[Callable[[], bool], Hold]] = []
        self._away: set[int] = set()
        self._next = 0.0
        self._refused = 0
        # Which unfinished run is next does not depend on time.
        self._order = random.Random(len(faults))

    def carry_out(self) -> None:
        """Run and resume until every run has a result, or cannot have one."""
        while True:
            self._release()
            self._reap()
            self._start()
            self._strike()
            if self.active or self._releases:
                pass
            elif all(self.vain[run.run_id] >= VAIN_ATTEMPTS for run in self._unfinished()):
                self.ground.settle()
                return
            time.sleep(POLL_SECONDS)

    # ------------------------------------------------------------------------------------ attempts
    def _unfinished(self) -> list[RunSpec]:
        return [
            run
            for run in self.runs
            if run.run_id in self._owed or not self.ground.ended(run.run_id)
        ]

    def _reap(self) -> None:
        for attempt in list(self.active):
            if not attempt.poll():
                continue
            self.active.remove(attempt)
            run_id = attempt.run.run_id
            if attempt.empty is None:
                self.vain[run_id] += 1
            if attempt.lost:
                self._owed.add(run_id)
            elif attempt.pays and attempt.has_result:
                self._owed.discard(run_id)
            if attempt.fault is not None:
                self._account_for(attempt, attempt.fault)

    def _account_for(self, attempt: forked.Attempt, fault: Fault) -> None:
        """Count a fault that an attempt was given, or give it to another one, to strike sooner."""
        if attempt.empty is not None:
            codes = set(attempt.codes.values())
            left = [path.name for path in attempt.empty.iterdir()]
            # Another fault may have been quicker, or the end of the rank that was refused first.
            if any(code >= 0 and code != 2 for code in codes) or left:
                self.wrong.append(f"a node without the mount: {attempt.codes}, left {left}")
            if 2 in codes:
                self._count(fault)
            else:
                self._inside.append(fault)
        elif attempt.struck is not None and attempt.struck.exists():
            said = attempt.said()
            if fault.kind in LATE and len(attempt.pids) == 1 and "Traceback" in "".join(said):
                self.wrong.append(f"{attempt.log.name}: woke and ended with {said[-1]}")
            self._count(fault)
        else:
            self._inside.append(replace(fault, pick=0.7 * fault.pick))

    def _count(self, fault: Fault) -> None:
        self.applied[fault.kind] += 1
        self.vain.clear()

    def _start(self) -> None:
        # A stopped attempt holds no slot: another one takes its run over once it is stale.
        moving = [a for a in self.active if not a.stopped and not a.away]
        busy = sum(len(attempt.pids) for attempt in moving)
        if busy >= SLOTS:
            return
        waiting = [
            run
            for run in self._unfinished()
            if run.run_id not in {attempt.run.run_id for attempt in moving}
            and self.vain[run.run_id] < VAIN_ATTEMPTS
        ]
        self._order.shuffle(waiting)
        for run in waiting:
            size = run.execution.processes or 1
            hosts = self._hosts(size)
            if busy + size > SLOTS or hosts is None:
                continue
            fault = self._inside.pop(0) if self._inside else None
            log = self.logs / f"{run.run_id}.log"
            place, known = self.ground.location, self.ground.identity
            attempt = forked.start(
                run, place, known, log, fault, self.sabotage, self.ground.net, hosts
            )
            attempt.pays = run.run_id in self._owed
            self.active.append(attempt)
            busy += size

    def _hosts(self, size: int) -> list[int] | None:
        """Return where ranks go, to hosts that have little to do; None where too few are there."""
        there = [host for host in self.ground.hosts if host not in self._away]
        self._order.shuffle(there)
        taken = Counter(host for a in self.active for host in a.hosts)
        there.sort(key=lambda host: taken[host])
        return there[:size] if len(there) >= size or not self.ground.hosts else None

    def _wakes(self, attempt: forked.Attempt, pid: int, due: Callable[[], bool]) -> None:
        def wake() -> None:
            attempt.stopped.discard(pid)
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)

        hold = Hold()
        hold.callback(wake)
        attempt.stopped.add(pid)
        self._releases.append((due, hold))

    def _release(self) -> None:
        for due, hold in list(self._releases):
            if due():
                self._releases.remove((due, hold))
                hold.close()
                self.vain.clear()  # what failed meanwhile says nothing
        for attempt in self.active:  # one that stopped itself before an operation
            for pid in attempt.alive():
                if pid not in attempt.stopped and _is_stopped(pid):
                    self._wakes(attempt, pid, self._thaw(attempt))

    def _thaw(self, attempt: forked.Attempt) -> Callable[[], bool]:
        """Return what says when an attempt that stopped itself goes on."""
        after = _after(2 * stale_seconds())
        if attempt.fault is None or attempt.fault.kind not in LATE:
            return after
        patience = _after(FROZEN_SECONDS)
        run_id = attempt.run.run_id

        def successor_is_done() -> bool:
            moving = [a for a in self.active if a.run.run_id == run_id and not a.stopped]
            return patience() or (not moving and self.ground.ended(run_id))

        return successor_is_done

    # -------------------------------------------------------------------------------------- faults
    def _strike(self) -> None:
        now = time.monotonic()
        for fault, struck in list(self._pending):
            if struck():
                self._pending.remove((fault, struck))
                self._count(fault)
        if not self.faults or now < self._next:
            return
        if self._strike_with(self.faults[-1]):
            self.faults.pop()
            self._refused = 0
        else:
            self._refused += 1
            if self._refused > 20:  # nothing here to befall: it comes later
                self.faults.insert(0, self.faults.pop())
                self._refused = 0
        self._next = now + (self.faults[-1].wait if self.faults else 0.0)
        if self.faults and not self._unfinished():
            self.faults.clear()  # the rest is for another store

    def _strike_with(self, fault: Fault) -> bool:
        """Apply a fault, or see to it that it comes; return False where there is nothing it could
        befall now."""
        harm, _, what = fault.kind.partition("_")
        if harm in HARMS and what in FILES:
            return self._harm(fault, what)
        if fault.kind in HOST_KINDS:
            return self._befall_host(fault, harm)
        if fault.kind in self.ground.befalls:
            befallen = self.ground.befall(fault)
            if befallen is None:
                return False
            if befallen.hold is not None:
                self._releases.append((_after(befallen.seconds), befallen.hold))
            self._pending.append((fault, befallen.struck))
            return True
        return self._befall_process(fault, harm, what)

    def _harm(self, fault: Fault, what: str) -> bool:
        assert self.ground.store is not None
        harmed = harm_file(self.ground.store, fault.kind, fault.pick)
        if harmed is None:
            return False
        if what in READ_BY_A_RESUME:
            for attempt in self.active:
                if attempt.run.run_id == harmed:
                    for pid in attempt.alive():
                        os.kill(pid, signal.SIGKILL)
        self._count(fault)
        return True

    def _befall_host(self, fault: Fault, harm: str) -> bool:
        """Disturb a host that a rank is on; who drives gives up those that it does not reach."""
        found = sorted({host for a in self.active for host in a.hosts} - self._away)
        if not found or self._away:  # two that are away leave no room for a gang
            return False
        host = found[int(fault.pick * len(found))]
        hold = Hold()
        hold.enter_context(self.ground.disturbed(harm, host))
        if harm != "lossy":
            self._away.add(host)
            hold.callback(self._is_back, host)
            for attempt in self.active:
                attempt.leave(host)
        self._releases.append((_after(AWAY_FACTOR * fault.hold), hold))
        self._count(fault)
        return True

    def _is_back(self, host: int) -> None:
        """Leave the ranks of a host to themselves for a while, or for good where they are whole."""
        self._away.discard(host)
        for attempt in self.active:
            if attempt.away and attempt.hosts.count(host) == len(attempt.pids):
                attempt.away.clear()
            elif attempt.away:
                hold = Hold()
                hold.callback(attempt.away.clear)
                self._releases.append((_after(FIND_OUT_SECONDS), hold))

    def _befall_process(self, fault: Fault, harm: str, what: str) -> bool:
        pids = list(self._targets(gang=what == "rank"))
        if not pids:
            return False
        attempt, pid = pids[int(fault.pick * len(pids))]
        if harm == "kill":
            os.kill(pid, signal.SIGKILL)
        elif harm == "terminate":
            os.kill(pid, signal.SIGTERM)
        elif harm == "stop":
            os.kill(pid, signal.SIGSTOP)
            self._wakes(attempt, pid, _after(stale_seconds() + fault.hold))
        else:  # a failing write, or a full or read-only disk where none may be mounted
            hold = Hold()
            hold.enter_context(small_files_only(pid, int(fault.pick * 4000)))
            self._releases.append((_after(fault.hold), hold))
        self._count(fault)
        return True

    def _targets(self, gang: bool) -> Iterator[tuple[forked.Attempt, int]]:
        for attempt in self.active:
            if (len(attempt.pids) > 1) == gang and not attempt.stopped and not attempt.away:
                for pid in attempt.alive():
                    yield attempt, pid


def _after(seconds: float) -> Callable[[], bool]:
    due = time.monotonic() + seconds
    return lambda: time.monotonic() >= due


def _is_stopped(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"
    except OSError:
        return False
