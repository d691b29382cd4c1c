"""One run on what it holds: its ranks, on the nodes that the policy chose.

The trial's process supervises. It waits for its slots, has the nodes' hosts carry the
ranks out, polls how far the first one is, and ends them all. A rank that raises ends the run with
its own error; one that dies or falls silent ends it as lost.
"""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterator
from dataclasses import dataclass, replace
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayActorError, RayError, RayTaskError

from orchestrator.ranks.rank_hosts import host_name
from orchestrator.ranks.slot import Slot
from sweeps.store.attempt import end_for
from sweeps.store.claim import is_dead_here
from sweeps.store.store import Store
from workers.progress import Progress
from workers.ranks.notice import Notice
from workers.ranks.rank_process import Broken, Job

POLL_SECONDS = 1.0
# Ray waits for a group in whole seconds.
WAIT_SECONDS = 1
# A host that does not answer for so long is gone.
SILENCE_SECONDS = 60.0
ASSIGNMENT_SECONDS = 2.0
# How long after a rank's error the death of another one is looked for, as its cause.
DEATH_SECONDS = 5.0


class RankLost(RuntimeError):
    """A rank's process is gone or does not answer; no fault of the run."""


class RunBroken(RuntimeError):
    """The run ended with an error, which ``how`` describes."""

    def __init__(self, how: Broken) -> None:
        super().__init__(how.text)
        self.how = how


@dataclass(frozen=True)
class Gang:
    """A rank on each of ``slots``; ``fresh`` asks for processes that no run has been in."""

    run_id: str
    slots: tuple[Slot, ...]
    fresh: bool

    @property
    def nodes(self) -> tuple[str, ...]:
        """The node of each rank."""
        return tuple(slot.node for slot in self.slots)


def assignment(node: str, trial: str) -> dict[str, Any] | None:
    """Return the run that a waiting trial was given; see ``RankHost.assignment``.

    Raises RankLost where the node is gone.
    """
    asked = _host_of(node).assignment.remote(trial, ASSIGNMENT_SECONDS)
    run: dict[str, Any] | None = _ask(asked, "the trial's node")
    return run


def gang_progress(gang: Gang, job: Job, notice: Notice) -> Iterator[Progress]:
    """Yield where the first rank is whenever that changed, at last with the status.

    A ``notice`` is handed on to the ranks.

    Raises RunBroken with the error of a rank that failed, and RankLost for one that died or hung.
    """
    try:
        with contextlib.ExitStack() as held:
            if (yield from _reserved(gang, notice)):
                hosts = {node: _host_of(node) for node in gang.nodes}
                held.callback(_end, gang, hosts)
                yield from _watched(gang, hosts, _jobs(gang, hosts, job), notice)
    except RayError as error:
        raise _close(gang, job, RankLost(" ".join(str(error).split()))) from error
    except (RankLost, RunBroken, GeneratorExit) as error:
        raise _close(gang, job, error) from error.__cause__


def _close(gang: Gang, job: Job, error: BaseException) -> BaseException:
    """Close the attempt's record for a process that has not done it, and is no more.

    The newest attempt may be another driver's, which a rank of this one waited for: one whose
    process is there, or on another node, is left alone, and a successor finds it silent.
    """
    kinds = {RankLost: "lost", RunBroken: "failed"}
    folder = Store.at(job.store).work(gang.run_id)
    with contextlib.suppress(OSError):
        newest = folder.newest_attempt()
        if newest is not None and is_dead_here(newest):
            end_for(folder, newest, kinds.get(type(error), "cancelled"), str(error))
    return error


def _host_of(node: str) -> Any:
    try:
        return ray.get_actor(host_name(node))
    except ValueError as error:
        raise RankLost(f"node {node[:12]} has left the cluster") from error


def _reserved(gang: Gang, notice: Notice) -> Generator[Progress, None, bool]:
    """Yield until what the run holds is there; return False when it was told to stop before."""
    for slot in gang.slots:
        while not slot.group.wait(WAIT_SECONDS):
            stopped = notice.cause
            yield Progress(0, 0, None, stopped)
            if stopped:
                return False
            present = {node["NodeID"] for node in ray.nodes() if node["Alive"]}
            for node in gang.nodes:
                if node not in present:
                    raise RankLost(f"node {node[:12]} has left the cluster")
    return True


def _jobs(gang: Gang, hosts: dict[str, Any], job: Job) -> list[Job]:
    """Return the ranks' jobs: how they find each other, and which GPU each may see."""
    count = len(gang.nodes)
    environment = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0"}
    if count > 1:
        host, port = _ask(hosts[gang.nodes[0]].meeting_point.remote(), "the first rank's node")
        environment |= {"MASTER_ADDR": host, "MASTER_PORT": str(port)}
    asked = [hosts[slot.node].visible_gpu.remote(slot) for slot in gang.slots if slot.gpu]
    visible = [_ask(one, "the node of a rank") for one in asked]
    return [
        replace(
            job,
            environment={
                **environment,
                "RANK": str(rank),
                "WORLD_SIZE": str(count),
                # It counts among the devices that a rank sees, and DeepSpeed sets that device.
                "LOCAL_RANK": "0" if visible else str(rank),
                **({"CUDA_VISIBLE_DEVICES": visible[rank]} if visible else {}),
            },
        )
        for rank in range(count)
    ]


def _watched(
    gang: Gang, hosts: dict[str, Any], jobs: list[Job], notice: Notice
) -> Iterator[Progress]:
    running = [
        hosts[node].run.remote(gang.run_id, rank, jobs[rank], gang.fresh)
        for rank, node in enumerate(gang.nodes)
    ]
    first = hosts[gang.nodes[0]]
    told = Progress(0, 0, None)
    yield told
    warned = False
    while True:
        if notice.cause and not warned:
            first.stop.remote(gang.run_id, notice.cause)
            warned = True
        ended, going = ray.wait(running, num_returns=len(running), timeout=POLL_SECONDS)
        if ended:
            _raise_if_broken(ended, running)
        if not going:
            yield ray.get(running[0])
            return
        reached = _ask(first.latest.remote(gang.run_id, 0), "the first rank's node")
        if reached != told:
            told = reached
            yield reached


def _raise_if_broken(ended: list[Any], running: list[Any]) -> None:
    """Raise RankLost when a rank died, else the error of one that failed, else nothing.

    The others fail in their collectives when a rank dies, and often say so before its death is
    seen: a failure counts as one only when nobody has died a moment later.
    """
    failed = next((error for one in ended if (error := _error_of(one, running))), None)
    if failed is None:
        return
    if not isinstance(failed, RankLost):
        ended, _ = ray.wait(running, num_returns=len(running), timeout=DEATH_SECONDS)
        for reference in ended:
            error = _error_of(reference, running)
            failed = error if isinstance(error, RankLost) else failed
    raise failed


def _error_of(reference: Any, running: list[Any]) -> RunBroken | RankLost | None:
    who = f"rank {running.index(reference)} of {len(running)}"
    try:
        end = ray.get(reference)
    except RayActorError as error:
        return RankLost(f"{who}: its node's host died: {' '.join(str(error).split())}")
    except RayTaskError as error:
        return RunBroken(Broken.by(error.cause or error))
    if not isinstance(end, Broken):
        return None
    return RankLost(f"{who}: {end.text}") if end.what == "lost" else RunBroken(end)


def _ask(answer: Any, who: str) -> Any:
    try:
        return ray.get(answer, timeout=SILENCE_SECONDS)
    except GetTimeoutError as error:
        raise RankLost(f"{who} has not answered for {SILENCE_SECONDS:g} s") from error
    except RayActorError as error:
        raise RankLost(f"{who} is gone: {' '.join(str(error).split())}") from error


def _end(gang: Gang, hosts: dict[str, Any]) -> None:
    """Leave no process of the run, so that what it held is free before it is given back."""
    with contextlib.suppress(RayError):
        ray.get([host.end.remote(gang.run_id) for host in hosts.values()], timeout=SILENCE_SECONDS)
