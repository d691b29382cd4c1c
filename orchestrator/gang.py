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
from workers.notice import Cause, Notice

POLL_SECONDS = 0.5
# An actor that does not say how far it is for so long, with a thread of its own to do it, is gone.
SILENCE_SECONDS = 60.0
# How long after a rank's error the death of another one is looked for, as its cause.
DEATH_SECONDS = 5.0


class RankLost(RuntimeError):
    """A rank's process is gone or does not answer; no fault of the run."""


@dataclass(frozen=True)
class Reached:
    """Where a run is; ``status`` is set once it has ended."""

    step: int
    steps: int
    loss: float | None
    status: str | None = None
    resumed_from: int = 0


class RankProcess:
    """One rank: a thread trains, another one answers how far it is and takes notice to stop."""

    def __init__(self) -> None:
        self._latest = Reached(0, 0, None)
        self._notice = Notice()

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
        where = Store.at(store, waits=True)
        for progress in train(run, where, ranks.device(), ranks, self._notice):
            self._latest = Reached(
                progress.step, progress.steps, progress.loss, None, progress.resumed_from
            )
            status = progress.status
        if status is None:
            raise RuntimeError("the run ended without a result")
        return status

    def latest(self) -> Reached:
        """Return where this rank is."""
        return self._latest

    def stop(self, cause: Cause) -> None:
        """Have all ranks stop, with a checkpoint, after the step they are in."""
        self._notice.give(cause)


def gang_progress(
    run: RunSpec, store: str, threads: int, cpus: float, gpus: float, notice: Notice
) -> Iterator[Reached]:
    """Yield where the first rank is whenever that changed, at last with the status.

    A ``notice`` is handed on to the ranks.

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
        yield from _watched(actors, run, store, threads, notice)
    except Exception as error:
        cause = "lost" if isinstance(error, RankLost) else "failed"
        _kill(actors)
        end_for(folder, cause, str(error))
        raise
    finally:
        _kill(actors)


def _watched(
    actors: list[Any], run: RunSpec, store: str, threads: int, notice: Notice
) -> Iterator[Reached]:
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
    reached: Reached
    warned = False
    while True:
        if notice.cause and not warned:
            actors[0].stop.remote(notice.cause)
            warned = True
        ended, going = ray.wait(running, num_returns=len(running), timeout=POLL_SECONDS)
        if ended:
            _raise_if_failed(ended, running)
        # All are asked, and each answers by a thread of its own: a stopped process does not, and
        # the others would wait for it until their collectives time out.
        reached, *_ = [_ask(a.latest, f"rank {rank}") for rank, a in enumerate(actors)]
        if not going:
            yield replace(reached, status=ray.get(running[0]))
            return
        if reached != told:
            told = reached
            yield reached


def _raise_if_failed(ended: list[Any], running: list[Any]) -> None:
    """Raise RankLost when a rank died, else the error of one that failed, else nothing.

    The others fail in their collectives when a rank dies, and often say so before Ray has seen the
    death: a failure counts as one only when nobody has died a moment later.
    """
    failed: BaseException | None = None
    for reference in ended:
        failed = failed or _error_of(reference, running)
    if failed is None:
        return
    ended, _ = ray.wait(running, num_returns=len(running), timeout=DEATH_SECONDS)
    for reference in ended:
        error = _error_of(reference, running)
        if isinstance(error, RankLost):
            failed = error
    raise failed


def _error_of(reference: Any, running: list[Any]) -> BaseException | None:
    try:
        ray.get(reference)
    except RayTaskError as error:
        cause: BaseException = error.cause or error
        return cause
    except RayActorError as error:
        who = f"rank {running.index(reference)} of {len(running)}"
        return RankLost(f"{who} died: {' '.join(str(error).split())}")
    return None


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
