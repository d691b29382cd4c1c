"""One run on what it holds: its ranks, one to a bundle of the trial's placement group.

The trial's process supervises. It holds the first rank itself and has actors hold the others, tells
them how they find each other, watches how far the first one is, and ends them all. A rank that
raises ends the run with its own error; one that dies, hangs or falls silent ends it as lost.
"""

from __future__ import annotations

import contextlib
import os
import random
import socket
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayActorError, RayError, RayTaskError

from orchestrator.ranks.rank_holder import RankHolder, Seat, holders
from sweeps.attempts.attempt import end_for
from sweeps.attempts.living import is_dead_here
from sweeps.attempts.run_log import RunLog
from sweeps.errors import UserError
from sweeps.store.store import Store
from workers.progress import Progress
from workers.ranks.notice import Notice
from workers.ranks.rank_process import Broken, Job

POLL_SECONDS = 1.0
# A holder that does not answer for so long is gone; it may have to be started, and Ray waits for a
# bundle that was lost with its node without saying so.
SILENCE_SECONDS = 60.0
START_SECONDS = 180.0
# Of the end of a run: a holder that says nothing for so long is on a node that is cut off or hangs.
# What the others held is not kept from other runs for it.
ANSWER_SECONDS = 10.0
# How long after a rank's error the death of another one is looked for, as its cause.
DEATH_SECONDS = 5.0
# What a collective says whose other side is gone, in lower case: torch, gloo and NCCL.
OF_A_COLLECTIVE = (
    *("gloo", "nccl", "distbackenderror", "distnetworkerror", "diststoreerror", "tcpstore"),
    *("connection closed by", "connection reset by", "broken pipe", "processgroup"),
)
# Where ranks meet: a range that a firewall between nodes can be told.
PORTS_VARIABLE, PORTS = "DEPTHSWEEP_PORTS", "20000-29999"
PORTS_TRIED = 20


class RankLost(RuntimeError):
    """A rank's process is gone or does not answer; no fault of the run."""


class RunBroken(RuntimeError):
    """The run ended with an error, which ``how`` describes."""

    def __init__(self, how: Broken) -> None:
        super().__init__(how.text)
        self.how = how


class Gang:
    """The ranks of one trial: to be held once, then to carry out its run, or one after another."""

    def __init__(self, bundles: list[dict[str, float]], alone: bool, fresh: bool) -> None:
        self._first = RankHolder(alone, fresh)
        self._others: list[Any] = []
        if len(bundles) > 1:
            group = ray.util.get_current_placement_group()
            self._others = holders(group, bundles, alone, fresh)
        self._seats: list[Seat] = []

    def seats(self) -> list[Seat]:
        """Return where each rank is, once all are held; raises RankLost where one never is."""
        if not self._seats:
            asked = [holder.where.remote() for holder in self._others]
            others = [_ask(one, "the holder of a rank", START_SECONDS) for one in asked]
            self._seats = [self._first.seat, *others]
        return self._seats

    def progress(self, run_id: str, job: Job, notice: Notice) -> Iterator[Progress]:
        """Yield where the first rank is, now and then and whenever that changed, at last with the
        status.

        A ``notice`` is handed on to the ranks.

        Raises RunBroken with the error of a rank that failed, and RankLost for one that died or
        hung.
        """
        try:
            yield from self._watched(self._jobs(job), notice)
            self._first.rest()
        except RayError as error:
            lost = RankLost(" ".join(str(error).split()))
            self.end()
            raise _close(run_id, job, lost) from error
        except (UserError, OSError, ImportError) as error:  # before any rank had its job
            self.end()
            how = Broken.by(error)
            broken = RankLost(how.text) if how.what == "error" else RunBroken(how)
            raise _close(run_id, job, broken) from error
        except (RankLost, RunBroken, GeneratorExit) as error:
            self.end()
            raise _close(run_id, job, error) from error.__cause__

    def end(self) -> None:
        """Leave no process of the run, so that what it held is free before it is given back.

        A holder that does not answer, perhaps on a node that is cut off, is given up: nobody can
        say when its rank is gone, which finds the others silent and ends by itself.
        """
        asked = {}  # by its answer, which takes a moment: a holder, and the end of its rank
        for holder in self._others:
            with contextlib.suppress(RayError):
                asked[holder.where.remote()] = holder, holder.end.remote()
        self._first.end()
        if not asked:
            return
        answers, silent = ray.wait([*asked], num_returns=len(asked), timeout=ANSWER_SECONDS)
        for none in silent:
            with contextlib.suppress(RayError):
                ray.kill(asked[none][0])
        ends = [asked[answer][1] for answer in answers]
        if ends:
            ray.wait(ends, num_returns=len(ends), timeout=SILENCE_SECONDS)

    def close(self) -> None:
        """Leave nothing."""
        self.end()
        for holder in self._others:
            with contextlib.suppress(RayError):
                ray.kill(holder)
        self._others = []

    def _jobs(self, job: Job) -> list[Job]:
        """Return the ranks' jobs: how they find each other. What each sees, its holder adds."""
        seats = self.seats()
        shared = {"WORLD_SIZE": str(len(seats))}
        if len(seats) > 1:
            shared |= {"MASTER_ADDR": seats[0].address, "MASTER_PORT": str(free_port())}
        return [
            replace(
                job,
                environment={
                    **job.environment,
                    **shared,
                    "RANK": str(rank),
                    "LOCAL_RANK": str(sum(other.node == seat.node for other in seats[:rank])),
                },
            )
            for rank, seat in enumerate(seats)
        ]

    def _watched(self, jobs: list[Job], notice: Notice) -> Iterator[Progress]:
        running = [
            holder.run.remote(job) for holder, job in zip(self._others, jobs[1:], strict=True)
        ]
        self._first.begin(jobs[0])
        yield Progress(0, 0, None)
        warned = False
        while True:
            if notice.cause and not warned:
                self._first.stop(notice.cause)
                warned = True
            ended = self._first.listen(POLL_SECONDS)
            over, _ = ray.wait(running, num_returns=len(running), timeout=0) if running else ([], 0)
            self._raise_if_broken(ended, over, running)
            if isinstance(ended, Progress):
                if running:
                    ray.wait(running, num_returns=len(running), timeout=SILENCE_SECONDS)
                yield ended
                return
            if ended is None:
                yield self._first.latest  # also where nothing changed: this process is at it

    def _raise_if_broken(
        self, first: Progress | Broken | None, over: list[Any], running: list[Any]
    ) -> None:
        """Raise RankLost when a rank died, else the error of one that failed, else nothing.

        The others fail in their collectives when a rank dies or fails, and often say so before that
        is seen: a failure counts as one only when nobody has died a moment later, and that of a
        collective only where there is no other.
        """
        found = list(self._errors(first, over, running))
        if not found:
            return
        until = time.monotonic() + DEATH_SECONDS
        while running and not isinstance(found[0], RankLost) and time.monotonic() < until:
            first = first or self._first.listen(0.1)
            over, going = ray.wait(running, num_returns=len(running), timeout=0.1)
            found = sorted(self._errors(first, over, running), key=_is_consequence)
            if not going and first is not None:
                break
        raise found[0]

    def _errors(
        self, first: Progress | Broken | None, over: list[Any], running: list[Any]
    ) -> Iterator[RankLost | RunBroken]:
        """Yield what ended ranks ended with, where that was no result."""
        count = 1 + len(running)
        if isinstance(first, Broken):
            yield _error(first, 0, count)
        for one in over:
            rank = 1 + running.index(one)
            try:
                end = ray.get(one)
            except RayActorError as error:
                text = " ".join(str(error).split())
                yield RankLost(f"rank {rank} of {count}: its holder died: {text}")
                continue
            except RayTaskError as error:
                yield RunBroken(Broken.by(error.cause or error))
                continue
            if isinstance(end, Broken):
                yield _error(end, rank, count)


def _error(end: Broken, rank: int, count: int) -> RankLost | RunBroken:
    if end.what == "lost":
        return RankLost(f"rank {rank} of {count}: {end.text}")
    return RunBroken(end)


def _is_consequence(error: RankLost | RunBroken) -> int:
    """Return how much an error looks like the consequence of another rank's: 0 for a death."""
    if isinstance(error, RankLost):
        return 0
    collective = any(said in error.how.text.lower() for said in OF_A_COLLECTIVE)
    return 2 if error.how.what == "error" and collective else 1


def _ask(answer: Any, who: str, seconds: float = SILENCE_SECONDS) -> Any:
    try:
        return ray.get(answer, timeout=seconds)
    except GetTimeoutError as error:
        raise RankLost(f"{who} has not answered for {seconds:g} s") from error
    except RayActorError as error:
        raise RankLost(f"{who} is gone: {' '.join(str(error).split())}") from error


def free_port() -> int:
    """Return a port of the range on which nobody of this node listens now.

    Raises UserError for a range that is none. Somebody may take it meanwhile: the run is then tried
    with another one.
    """
    said = os.environ.get(PORTS_VARIABLE, PORTS)
    try:
        low, high = (int(number) for number in said.split("-"))
        if not 0 < low <= high < 2**16:
            raise ValueError
    except ValueError:
        raise UserError(f"{PORTS_VARIABLE}={said}: give a range such as {PORTS}") from None
    for _ in range(PORTS_TRIED):
        port = random.randint(low, high)
        with socket.socket() as free, contextlib.suppress(OSError):
            free.bind(("", port))
            return port
    raise OSError(f"EADDRINUSE: no port of {said} is free here; see {PORTS_VARIABLE}")


def _close(run_id: str, job: Job, error: BaseException) -> BaseException:
    """Close the attempt's record for a process that has not done it, and is no more.

    The newest attempt may be another driver's, which a rank of this one waited for: one whose
    process is there, or on another node, is left alone, and a successor finds it silent.
    """
    kinds = {RankLost: "lost", RunBroken: "failed"}
    folder = Store.at(job.store).work(run_id)
    with contextlib.suppress(OSError):
        newest = folder.newest_attempt()
        if newest is not None and is_dead_here(newest):
            text = str(error)
            end_for(folder, newest, kinds.get(type(error), "cancelled"), text)
            if "\n" in text:
                log = RunLog(folder.log_path(newest["attempt"]))
                log.event("hung, and was killed", "error", stacks=text)
    return error
