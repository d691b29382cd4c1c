"""A sweep carried out by forked workers, two at a time, under faults."""

from __future__ import annotations

import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

from sweeps.liveness.watch import stale_seconds
from sweeps.spec import RunSpec
from sweeps.store.store import Store
from tests.faults import forked
from tests.faults.harm import READ_BY_A_RESUME, Disk, harm_file, small_files_only
from tests.faults.schedule import FILES, HARMS, Fault

SLOTS = 2
# Faults that one store takes before its sweep is left to finish.
FAULTS_A_ROUND = 40
# Operations on the store in a run are some hundreds; crashes are spread over the first of them.
OPERATIONS = 160
# Attempts at a run without a fault in between that end without a result: it never will.
VAIN_ATTEMPTS = 5
POLL_SECONDS = 0.01

Hold = ExitStack


class Round:
    """One store, from empty to every run ended."""

    def __init__(
        self,
        runs: list[RunSpec],
        store: Store,
        disk: Disk,
        logs: Path,
        faults: list[Fault],
        sabotage: Callable[[], None] | None = None,
    ) -> None:
        self.runs = runs
        self.store = store
        self.disk = disk
        self.logs = logs
        self.faults = list(reversed(faults))
        self.sabotage = sabotage
        self.applied: Counter[str] = Counter()
        self.active: list[forked.Attempt] = []
        self.vain: Counter[str] = Counter()
        self._crashes: list[tuple[int, int]] = []
        self._releases: list[tuple[float, Hold]] = []
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
            if not self.active and not self._unfinished() and not self._releases:
                return
            if not self.active and all(
                self.vain[run.run_id] >= VAIN_ATTEMPTS for run in self._unfinished()
            ):
                self._release(all_of_them=True)
                return
            time.sleep(POLL_SECONDS)

    # ------------------------------------------------------------------------------------ attempts
    def _unfinished(self) -> list[RunSpec]:
        return [run for run in self.runs if self.store.run(run.run_id).done() is None]

    def _reap(self) -> None:
        for attempt in list(self.active):
            if attempt.poll():
                self.active.remove(attempt)
                self.vain[attempt.run.run_id] += 1

    def _start(self) -> None:
        # A stopped attempt holds no slot: another one takes its run over once it is stale.
        moving = [a for a in self.active if not a.stopped]
        busy = sum(len(attempt.pids) for attempt in moving)
        waiting = [
            run
            for run in self._unfinished()
            if run.run_id not in {attempt.run.run_id for attempt in moving}
            and self.vain[run.run_id] < VAIN_ATTEMPTS
        ]
        self._order.shuffle(waiting)
        for run in waiting:
            size = run.execution.processes or 1
            if busy + size > SLOTS:
                continue
            crash = self._crashes.pop() if self._crashes else None
            log = self.logs / f"{run.run_id}.log"
            attempt = forked.start(run, self.store.root, log, crash, self.sabotage)
            self.active.append(attempt)
            busy += size

    def _wakes(self, attempt: forked.Attempt, pid: int, after: float) -> None:
        def wake() -> None:
            attempt.stopped.discard(pid)
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)

        hold = Hold()
        hold.callback(wake)
        self._releases.append((time.monotonic() + after, hold))

    def _release(self, all_of_them: bool = False) -> None:
        now = time.monotonic()
        for due, hold in list(self._releases):
            if all_of_them or now >= due:
                self._releases.remove((due, hold))
                hold.close()
        for attempt in self.active:  # one that stopped itself before an operation
            for pid in attempt.alive():
                if pid not in attempt.stopped and _is_stopped(pid):
                    attempt.stopped.add(pid)
                    self._wakes(attempt, pid, 2 * stale_seconds())

    # -------------------------------------------------------------------------------------- faults
    def _strike(self) -> None:
        now = time.monotonic()
        if not self.faults or now < self._next:
            return
        if self._strike_with(self.faults[-1]):
            self.applied[self.faults[-1].kind] += 1
            self.faults.pop()
            self._refused = 0
            self.vain.clear()
        else:
            self._refused += 1
            if self._refused > 20:  # nothing here to befall: it comes later
                self.faults.insert(0, self.faults.pop())
                self._refused = 0
        self._next = now + (self.faults[-1].wait if self.faults else 0.0)
        if self.faults and not self._unfinished():
            self.faults.clear()  # the rest is for another store

    def _strike_with(self, fault: Fault) -> bool:
        """Apply a fault; return False where there is nothing it could befall now."""
        harm, _, what = fault.kind.partition("_")
        if harm in HARMS and what in FILES:
            harmed = harm_file(self.store, fault.kind, fault.pick)
            if harmed is not None and what in READ_BY_A_RESUME:
                for attempt in self.active:
                    if attempt.run.run_id == harmed:
                        for pid in attempt.alive():
                            os.kill(pid, signal.SIGKILL)
            return harmed is not None
        if fault.kind in ("kill_at_operation", "stop_at_operation"):
            number = signal.SIGKILL if harm == "kill" else signal.SIGSTOP
            self._crashes.append((1 + int(fault.pick * OPERATIONS), number))
            return True
        if fault.kind in ("full_disk", "read_only_disk") and self.disk.mounted:
            if self.disk.troubled:
                return False
            hold = Hold()
            if fault.kind == "full_disk":
                hold.enter_context(self.disk.full())
            elif not hold.enter_context(self.disk.read_only()):
                hold.close()
                return False
            self._releases.append((time.monotonic() + fault.hold, hold))
            return True
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
            attempt.stopped.add(pid)
            self._wakes(attempt, pid, stale_seconds() + fault.hold)
        else:  # a failing write, or a full or read-only disk where none may be mounted
            hold = Hold()
            hold.enter_context(small_files_only(pid, int(fault.pick * 4000)))
            self._releases.append((time.monotonic() + fault.hold, hold))
        return True

    def _targets(self, gang: bool) -> Iterator[tuple[forked.Attempt, int]]:
        for attempt in self.active:
            if (len(attempt.pids) > 1) == gang and not attempt.stopped:
                for pid in attempt.alive():
                    yield attempt, pid


def _is_stopped(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"
    except OSError:
        return False
