"""The rank processes of one node, kept by one actor that holds no resources itself.

GPUs and CPUs are held by placement groups; what runs on them are processes of the node's host. A
rank gets a fresh process where asked to (a GPU, DeepSpeed), forked from one that has imported what
it needs; else a process carries out one run after another, warm.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import time
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any

from orchestrator.connection.ray_environment import ray
from orchestrator.ranks.rank_starter import RankStarter
from orchestrator.ranks.slot import Slot
from workers.progress import Progress
from workers.ranks.notice import Cause
from workers.ranks.rank_process import PING, PONG, Broken, Job

from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy  # isort: skip

PING_SECONDS = 5.0
# A process that does not answer for so long, with a thread of its own to do it, is gone.
SILENCE_SECONDS = 60.0
NOWHERE = Progress(0, 0, None)


@dataclass(eq=False)
class _Process:
    """A rank process: what it said last, and a future of how its run ends."""

    number: int
    connection: Connection
    watched: int  # a file descriptor that is readable once the process has ended
    heard: float = field(default_factory=time.monotonic)
    latest: Progress = NOWHERE
    ended: asyncio.Future[Progress | Broken] | None = None
    gone: asyncio.Event = field(default_factory=asyncio.Event)

    def send(self, message: Job | str) -> None:
        with contextlib.suppress(OSError):  # it has ended, as its descriptor will say
            self.connection.send(message)

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.number, signal.SIGKILL)


class RankHost:
    """Starts rank processes, and answers for them."""

    def __init__(self) -> None:
        self._starter = RankStarter()
        self._busy: dict[tuple[str, int], _Process] = {}
        self._idle: list[_Process] = []
        self._starting = asyncio.Lock()
        self._asking = asyncio.Lock()
        self._visible: dict[tuple[Any, int], str] = {}
        self._given: dict[str, asyncio.Future[dict[str, Any]]] = {}
        self._pinging: asyncio.Task[None] | None = None

    async def ready(self) -> None:
        """Begin to import what the processes need."""
        self._starter.warm_up()

    def meeting_point(self) -> tuple[str, int]:
        """Return an address at which the ranks of a run can find a process of this node."""
        with socket.socket() as free:
            free.bind(("", 0))
            return ray.util.get_node_ip_address(), free.getsockname()[1]

    async def assign(self, trial: str, run: dict[str, Any]) -> None:
        """Give a trial that waits here its run; an empty one says that there will be none."""
        self._given_to(trial).set_result(run)

    async def assignment(self, trial: str, seconds: float) -> dict[str, Any] | None:
        """Return the run that a trial was given, None when that was nothing for some seconds."""
        given = self._given_to(trial)
        await asyncio.wait([given], timeout=seconds)
        if not given.done():
            return None
        del self._given[trial]
        return given.result()

    def _given_to(self, trial: str) -> asyncio.Future[dict[str, Any]]:
        if trial not in self._given:
            self._given[trial] = asyncio.get_running_loop().create_future()
        return self._given[trial]

    async def visible_gpu(self, slot: Slot) -> str:
        """Return the CUDA_VISIBLE_DEVICES of a slot, which stays the same.

        A task that is given the slot is asked, one at a time: its process is used again
        (``max_calls``), since it leaves nothing on a GPU.
        """
        key = (slot.group.id, slot.bundle)
        async with self._asking:
            if key not in self._visible:
                self._visible[key] = await _ask(slot)
            return self._visible[key]

    async def run(self, run_id: str, rank: int, job: Job, fresh: bool) -> Progress | Broken:
        """Carry out one rank of a run; return its last progress, or how it broke.

        A rank of the same run that is still at it, for a trial that is gone, is killed first. A
        fresh process, or one that broke, stays until ``end``: other ranks may still hear from it.
        """
        if self._pinging is None:
            self._pinging = asyncio.get_running_loop().create_task(self._ping())
        await self._put_away(run_id, rank)
        process = await self._take(fresh)
        self._busy[run_id, rank] = process
        process.latest, process.heard = NOWHERE, time.monotonic()
        process.ended = asyncio.get_running_loop().create_future()
        process.send(job)
        ended = await process.ended
        if isinstance(ended, Broken) and ended.what == "fork" and self._starter.forks:
            self._starter.forks = False
            return await self.run(run_id, rank, job, fresh)
        if isinstance(ended, Progress) and not fresh:
            del self._busy[run_id, rank]
            self._idle.append(process)
        return ended

    async def latest(self, run_id: str, rank: int) -> Progress:
        """Return how far a rank is."""
        process = self._busy.get((run_id, rank))
        return process.latest if process else NOWHERE

    async def stop(self, run_id: str, cause: Cause) -> None:
        """Have a run stop, with a checkpoint, after the step it is in."""
        for process in self._of(run_id):
            process.send(cause)

    async def end(self, run_id: str) -> None:
        """Kill what there is of a run, and return once it is gone."""
        for of, rank in list(self._busy):
            if of == run_id:
                await self._put_away(run_id, rank)

    def _of(self, run_id: str) -> list[_Process]:
        return [process for (of, _), process in self._busy.items() if of == run_id]

    async def _put_away(self, run_id: str, rank: int) -> None:
        process = self._busy.get((run_id, rank))
        if process is None:
            return
        process.kill()
        await process.gone.wait()
        if self._busy.get((run_id, rank)) is process:
            del self._busy[run_id, rank]

    async def _take(self, fresh: bool) -> _Process:
        while self._idle and not fresh:
            process = self._idle.pop()
            if not process.gone.is_set():
                return process
        async with self._starting:
            number, connection = await asyncio.to_thread(self._starter.start)
        process = _Process(number, connection, os.pidfd_open(number))
        loop = asyncio.get_running_loop()
        loop.add_reader(process.connection.fileno(), self._hear, process)
        loop.add_reader(process.watched, self._bury, process)
        return process

    def _hear(self, process: _Process) -> bool:
        """Take in one message; return False once there will be no more."""
        try:
            message = process.connection.recv()
        except (EOFError, OSError):
            asyncio.get_running_loop().remove_reader(process.connection.fileno())
            return False
        process.heard = time.monotonic()
        if message == PONG or process.ended is None or process.ended.done():
            return True
        if isinstance(message, Progress):
            process.latest = message
        if isinstance(message, Broken) or message.status:
            process.ended.set_result(message)
        return True

    def _bury(self, process: _Process) -> None:
        silent = time.monotonic() - process.heard
        while process.connection.poll() and self._hear(process):
            pass
        loop = asyncio.get_running_loop()
        loop.remove_reader(process.watched)
        loop.remove_reader(process.connection.fileno())
        os.close(process.watched)
        process.connection.close()
        with contextlib.suppress(ChildProcessError):
            os.waitpid(process.number, os.WNOHANG)
        process.gone.set()
        if process.ended is not None and not process.ended.done():
            said = f"did not answer for {silent:.0f} s" if silent > SILENCE_SECONDS else "died"
            process.ended.set_result(Broken("lost", f"process {process.number} {said}"))

    async def _ping(self) -> None:
        while True:
            await asyncio.sleep(PING_SECONDS)
            for process in list(self._busy.values()):
                if time.monotonic() - process.heard > SILENCE_SECONDS:
                    process.kill()
                process.send(PING)


def _ask(slot: Slot) -> Any:
    strategy = PlacementGroupSchedulingStrategy(
        slot.group, placement_group_bundle_index=slot.bundle
    )
    asked = ray.remote(num_cpus=0, num_gpus=1, max_calls=0, scheduling_strategy=strategy)
    return asked(_visible).remote()


def _visible() -> str:
    return os.environ["CUDA_VISIBLE_DEVICES"]
