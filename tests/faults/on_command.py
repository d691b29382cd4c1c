"""A sweep carried out by the real command line, again and again until done, under faults."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import ExitStack, suppress
from pathlib import Path

import psutil

from sweeps.liveness.watch import stale_seconds
from sweeps.store.store import Store
from tests.faults.harm.on_disk import READ_BY_A_RESUME, Disk, harm_file, small_files_only
from tests.faults.schedule import FILES, HARMS, Fault

DEPTHSWEEP = [sys.executable, "-m", "orchestrator"]
# Commands without a fault in between that end without every result: there never will be.
VAIN_COMMANDS = 3
# Nothing in the store changes for so long: the command hangs.
HUNG_SECONDS = 150.0
POLL_SECONDS = 0.05
# What Ray titles the processes of trials, which Tune wraps. The rank server of a node is a session
# of its own, known by the environment it has of its command; a rank is a process that it forked.
TRIAL, SERVER, RANK = ("ray::ResourceTrainable", "ray::RunTrainable"), "server", "rank"


class Sessions:
    """``depthsweep run``, then ``resume`` and ``run`` in turn, over one store."""

    def __init__(
        self, sweep: Path, runs: int, store: Store, disk: Disk, logs: Path, faults: list[Fault]
    ) -> None:
        self.sweep = sweep
        self.name = sweep.stem
        self.runs = runs
        self.store = store
        self.disk = disk
        self.logs = logs
        self.faults = list(reversed(faults))
        self.applied: Counter[str] = Counter()
        self.codes: list[int] = []
        self.hung = 0
        self._releases: list[tuple[float, ExitStack]] = []
        self._refused = 0

    def carry_out(self) -> None:
        """Start commands until every run has a result, or cannot have one."""
        vain = 0
        while self._unfinished() and vain < VAIN_COMMANDS:
            before = self.applied.total()
            self._command()
            vain = 0 if self.applied.total() > before else vain + 1

    def _unfinished(self) -> bool:
        done = [folder for folder in self.store.runs() if folder.done() is not None]
        return len(done) < self.runs

    def _command(self) -> None:
        number = len(self.codes) + 1
        first = not self.store.sweep_names()
        what = ["run", str(self.sweep)] if first or number % 2 else ["resume", self.name]
        scratch = self.logs.parent / "r"
        scratch.mkdir(exist_ok=True)
        with (self.logs / f"command-{number}.log").open("w") as log:
            driver = subprocess.Popen(
                [*DEPTHSWEEP, *what, "--store", str(self.store.root), "--max-concurrent", "2"],
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self.logs,
                start_new_session=True,
                env={**os.environ, "RAY_TMPDIR": str(scratch)},
            )
        family: set[psutil.Process] = set()
        due = alive_at = time.monotonic()
        latest = 0
        while driver.poll() is None:
            now = time.monotonic()
            family |= _family(driver.pid) | _servers(str(scratch))
            self._release(now)
            changed = _latest_change(self.store)
            if changed != latest or self._releases:
                latest, alive_at = changed, now
            if now - alive_at > HUNG_SECONDS:
                self.hung += 1
                break
            if self.faults and now >= due and self._may_strike(family):
                self._strike(driver.pid, family)
                due = now + (self.faults[-1].wait if self.faults else 0.0)
            time.sleep(POLL_SECONDS)
        self._release(float("inf"))
        self._end(driver, family)
        self.codes.append(driver.returncode)

    def _may_strike(self, family: set[psutil.Process]) -> bool:
        """Faults begin when a run is being trained, that is, has a live attempt."""
        return any(_name(p).startswith((*TRIAL, RANK)) for p in family)

    def _strike(self, driver: int, family: set[psutil.Process]) -> None:
        fault = self.faults[-1]
        if self._strike_with(fault, driver, family):
            self.applied[fault.kind] += 1
            self.faults.pop()
            self._refused = 0
            return
        self._refused += 1
        if self._refused > 40:
            self.faults.insert(0, self.faults.pop())
            self._refused = 0

    def _strike_with(self, fault: Fault, driver: int, family: set[psutil.Process]) -> bool:
        harm, _, what = fault.kind.partition("_")
        hold = ExitStack()
        until = time.monotonic() + fault.hold
        if harm in HARMS and what in FILES:
            harmed = harm_file(self.store, fault.kind, fault.pick)
            if harmed is not None and what in READ_BY_A_RESUME:
                attempts = self.store.run(harmed).attempts()
                for process in family:
                    if attempts and process.pid == attempts[-1].get("pid"):
                        with suppress(psutil.NoSuchProcess):
                            process.kill()
            return harmed is not None
        if what == "driver":
            number = {"kill": signal.SIGKILL, "terminate": signal.SIGTERM}.get(harm, signal.SIGINT)
            os.kill(driver, number)
            return True
        if fault.kind in ("full_disk", "read_only_disk") and self.disk.mounted:
            if self.disk.troubled:
                return False
            if fault.kind == "full_disk":
                hold.enter_context(self.disk.full())
            elif not hold.enter_context(self.disk.read_only()):
                hold.close()
                return False
            self._releases.append((until, hold))
            return True
        names = {
            "raylet": ("raylet",),
            "rank": (RANK,),
            "trial": TRIAL,
            "server": (SERVER,),
        }.get(what, (*TRIAL, RANK))
        found = [p for p in family if p.is_running() and _name(p).startswith(names)]
        if not found:
            return False
        target = sorted(found, key=lambda p: p.pid)[int(fault.pick * len(found))]
        with suppress(psutil.NoSuchProcess, ProcessLookupError):
            if harm == "kill":
                target.kill()
            elif harm == "terminate":
                target.terminate()
            elif harm == "stop":
                target.suspend()
                hold.callback(lambda: suppress(psutil.NoSuchProcess).__enter__() or _wake(target))
                self._releases.append((until + stale_seconds(), hold))
            else:
                hold.enter_context(small_files_only(target.pid, int(fault.pick * 4000)))
                self._releases.append((until, hold))
            return True
        return False

    def _release(self, now: float) -> None:
        for due, hold in list(self._releases):
            if now >= due:
                self._releases.remove((due, hold))
                hold.close()

    def _end(self, driver: subprocess.Popen[bytes], family: set[psutil.Process]) -> None:
        """Leave nothing of this command behind but what outlives a killed driver by itself.

        Its workers do, for some seconds: the next command starts while they write.
        """
        if driver.poll() is None:
            driver.kill()
        driver.wait()
        self._family = getattr(self, "_family", set()) | family

    def put_away(self) -> None:
        """End every process that any command has started."""
        for process in getattr(self, "_family", set()):
            with suppress(psutil.NoSuchProcess):
                process.kill()


def _wake(process: psutil.Process) -> None:
    with suppress(psutil.NoSuchProcess):
        process.resume()


def _family(pid: int) -> set[psutil.Process]:
    with suppress(psutil.NoSuchProcess):
        return set(psutil.Process(pid).children(recursive=True))
    return set()


def _servers(scratch: str) -> set[psutil.Process]:
    """Return the rank servers of commands with this scratch folder, and what they forked."""
    found: set[psutil.Process] = set()
    for process in psutil.process_iter(["ppid"]):
        with suppress(psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
            orphaned = process.info["ppid"] == 1 and _is_of_rank_server(process)
            if orphaned and process.environ().get("RAY_TMPDIR") == scratch:
                found |= {process, *process.children(recursive=True)}
    return found


def _is_of_rank_server(process: psutil.Process | None) -> bool:
    return process is not None and "workers.ranks.rank_server" in process.cmdline()


def _name(process: psutil.Process) -> str:
    with suppress(psutil.NoSuchProcess, psutil.ZombieProcess, IndexError):
        if _is_of_rank_server(process):
            return RANK if _is_of_rank_server(process.parent()) else SERVER
        title = process.cmdline()[0]
        return Path(title.split()[0]).name if title.startswith("/") else title
    return ""


def _latest_change(store: Store) -> int:
    """Return when a record, part or log of a run last changed; heartbeats do not count."""
    latest = 0
    for path in store.root.glob("runs/*/*/*"):
        if path.parent.name != "attempts":
            with suppress(OSError):
                latest = max(latest, path.stat().st_mtime_ns)
    return latest
