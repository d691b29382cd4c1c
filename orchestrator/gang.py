"""Several ranks in one trial: child actors in the trial's own placement group.

The trial's process supervises: it starts one actor a rank, polls how far the first one is, and ends
them all. A rank that raises ends the run with its own error; one that dies, or that hangs until the
others' collectives time out, ends it as lost. Each run gets fresh processes, since DeepSpeed leaves
models and hooks behind.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayActorError, RayTaskError
from ray.util import get_current_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from sweeps.results.attempt import end_for
from sweeps.results.store import Store
from sweeps.spec import RunSpec

POLL_SECONDS = 0.5
# An actor that does not say how far it is for so long, with a thread of its own to do it, is gone.
SILENCE_SECONDS = 60.0


class RankLost(RuntimeError):
    """A rank's process is gone or does not answer; no fault of the run."""


@dataclass(frozen=True)
class Reached:
    """Where a run is; ``status`` is set once it has ended."""

    step: int
    steps: int
    loss: float | None
    status: str | None = None


class RankProcess:
    """One rank: a thread trains, another one answers how far it is."""

    def __init__(self) -> None:
        self._latest = Reached(0, 0, None)

    def meeting_point(self) -> tuple[str, int]:
        """Return an address at which the ranks can find this one."""
        with socket.socket() as free:
            free.bind(("", 0))
            return ray.util.get_node_ip_address(), free.getsockname()[1]

    def run(self, spec: str, store: str, threads: int, environment: dict[str, str]) -> str:
        """Train to the end and return the status."""
        os.environ.update(environment)
        import torch

        from workers.ranks import Ranks
        from workers.train import train

        torch.set_num_threads(threads)
        ranks = Ranks.from_environment()
        run = RunSpec.model_validate_json(spec)
        status = None
        for progress in train(run, Store.at(store, waits=True), ranks.device(), ranks):
            self._latest = Reached(progress.step, progress.steps, progress.loss)
            status = progress.status
        if status is None:
            raise RuntimeError("the run ended without a result")
        return status

    def latest(self) -> Reached:
        """Return where this rank is."""
        return self._latest


def gang_progress(
    run: RunSpec, store: str, threads: int, cpus: int, gpus: int
) -> Iterator[Reached]:
    """Yield where the first rank is whenever that changed, at last with the status.

    Raises the error of a rank that failed, and RankLost for one that died or hung.
    """
    processes = run.execution.processes or 1
    actor = ray.remote(RankProcess)
    options = {"num_cpus": cpus, "num_gpus": gpus, "max_concurrency": 2}
    group = get_current_placement_group()
    assert group is not None
    first = group.bundle_count - processes
    actors = [
        actor.options(
            **options,
            scheduling_strategy=PlacementGroupSchedulingStrategy(
                group, placement_group_bundle_index=first + rank
            ),
        ).remote()
        for rank in range(processes)
    ]
    folder = Store.at(store, waits=True).run(run.run_id)
    try:
        yield from _watched(actors, run, store, threads)
    except Exception as error:
        cause = "lost" if isinstance(error, RankLost) else "failed"
        _kill(actors)
        end_for(folder, cause, str(error))
        raise
    finally:
        _kill(actors)


def _watched(actors: list[Any], run: RunSpec, store: str, threads: int) -> Iterator[Reached]:
    host, port = _ask(actors[0].meeting_point, "rank 0")
    spec = run.model_dump_json()
    running = []
    for rank, actor in enumerate(actors):
        environment = {
            "RANK": str(rank),
            "LOCAL_RANK": str(rank),
            "WORLD_SIZE": str(len(actors)),
            "MASTER_ADDR": host,
            "MASTER_PORT": str(port),
        }
        running.append(actor.run.remote(spec, store, threads, environment))
    told: Reached | None = None
    while True:
        ended, going = ray.wait(running, num_returns=len(running), timeout=POLL_SECONDS)
        for reference in ended:
            _raise_if_failed(reference, running.index(reference), len(running))
        reached: Reached = _ask(actors[0].latest, "rank 0")
        if not going:
            yield replace(reached, status=ray.get(running[0]))
            return
        if reached != told:
            told = reached
            yield reached


def _raise_if_failed(reference: Any, rank: int, ranks: int) -> None:
    try:
        ray.get(reference)
    except RayTaskError as error:
        raise error.cause or error from error
    except RayActorError as error:
        detail = " ".join(str(error).split())
        raise RankLost(f"rank {rank} of {ranks} died: {detail}") from error


def _ask(method: Any, who: str) -> Any:
    try:
        return ray.get(method.remote(), timeout=SILENCE_SECONDS)
    except GetTimeoutError as error:
        raise RankLost(f"{who} has not answered for {SILENCE_SECONDS:g} s") from error
    except RayActorError as error:
        raise RankLost(f"{who} died: {' '.join(str(error).split())}") from error


def _kill(actors: list[Any]) -> None:
    for actor in actors:
        with contextlib.suppress(Exception):
            ray.kill(actor)
