"""Holds a bundle of a run's placement group, and the rank process on it.

The trial holds the first bundle itself; each other one is held by an actor, so that Ray gives every
rank the GPU of its own bundle, on whichever node it put that.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from orchestrator.connection.ray_environment import ray
from orchestrator.ranks.held_rank import HeldRank
from orchestrator.ranks.rank_starter import RankStarter
from workers.progress import Progress
from workers.ranks.notice import Cause
from workers.ranks.rank_process import Broken, Job

POLL_SECONDS = 1.0


@dataclass(frozen=True)
class Seat:
    """Where a rank is: its node and the node's address, and the GPUs it was given there."""

    node: str
    address: str
    devices: tuple[str, ...]


def key_of_this_node() -> str:
    """Return the key of a Ray job's server on the node of this process: its code and environment
    are the job's."""
    context = ray.get_runtime_context()
    return f"{context.get_job_id()} {context.get_node_id()}"


class RankHolder:
    """One bundle and its rank process, which is started when a job comes.

    ``alone`` says that the bundle's GPU is the run's alone, ``fresh`` that no other run may have
    been in its process.
    """

    def __init__(self, alone: bool = True, fresh: bool = True) -> None:
        context = ray.get_runtime_context()
        given = context.get_accelerator_ids()
        devices = tuple(str(number) for number in given.get("GPU", ()))
        address = ray.util.get_node_ip_address()
        self.seat = Seat(context.get_node_id(), address, devices)
        self.alone, self.fresh = alone, fresh
        self._starter = RankStarter(key_of_this_node())
        self._rank: HeldRank | None = None
        self._job: Job | None = None

    def where(self) -> Seat:
        """Return where this is."""
        return self.seat

    def begin(self, job: Job) -> None:
        """Have a process carry out a job; see ``listen``."""
        self._job = job
        self.rest()  # of a gang's other ranks nobody says that their run is over
        if self._rank is None:
            number, connection = self._starter.start(self.seat.devices, self.alone)
            self._rank = HeldRank(number, connection)
        # A rank that was given no GPU sees none, whatever the machine has.
        environment = {**job.environment, "CUDA_VISIBLE_DEVICES": ",".join(self.seat.devices)}
        if self.seat.devices:
            # LOCAL_RANK counts among the devices that a rank sees: DeepSpeed sets that device.
            environment["LOCAL_RANK"] = "0"
        self._rank.begin(replace(job, environment=environment))

    def listen(self, seconds: float) -> Progress | Broken | None:
        """Take in what the process says for up to so many seconds; return how it ended, if it
        has."""
        rank = self._rank  # ``end`` may be called meanwhile, and a new job come
        assert rank is not None
        assert self._job is not None
        rank.listen(seconds)
        ended = rank.ended
        if isinstance(ended, Broken) and ended.what == "fork" and self._starter.forks:
            self._starter.forks = False
            self.end()
            self.begin(self._job)
            return None
        return ended

    @property
    def latest(self) -> Progress:
        """How far the rank is."""
        assert self._rank is not None
        return self._rank.latest

    def run(self, job: Job) -> Progress | Broken:
        """Carry out a job; return its last progress, or how it broke."""
        self.begin(job)
        while (ended := self.listen(POLL_SECONDS)) is None:
            pass
        return ended

    def stop(self, cause: Cause) -> None:
        """Have the run stop, with a checkpoint, after the step it is in."""
        if self._rank is not None:
            self._rank.stop(cause)

    def end(self) -> None:
        """Leave no process; return once it is gone, so that what it held is free."""
        rank, self._rank = self._rank, None
        if rank is not None:
            rank.close()

    def rest(self) -> None:
        """Keep a process that has done its job for the next one, unless that is to be fresh."""
        if self.fresh or self._rank is None or not isinstance(self._rank.ended, Progress):
            self.end()


def holders(group: Any, bundles: list[dict[str, float]], alone: bool, fresh: bool) -> list[Any]:
    """Return actors that hold all but the first bundle of a placement group."""
    from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

    return [
        ray.remote(RankHolder)
        .options(
            num_cpus=bundle.get("CPU", 0),
            num_gpus=bundle.get("GPU", 0),
            max_concurrency=4,
            scheduling_strategy=PlacementGroupSchedulingStrategy(
                group, placement_group_bundle_index=index
            ),
        )
        .remote(alone, fresh)
        for index, bundle in enumerate(bundles)
        if index
    ]
