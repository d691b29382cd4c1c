"""Sweeps as jobs of a cluster: ids, what attaches and what starts anew. No Ray here.

A sweep in a store is one job at a time. Its id is made of both and of the attempt, so the same
submit twice meets the same id, and a submit after the job has ended is the next attempt, which goes
on with what the store says is left.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from sweeps.declaration.expand import Sweep
from sweeps.errors import UserError
from sweeps.spec import content_id

State = Literal["pending", "running", "succeeded", "failed", "stopped"]
ENDED = ("succeeded", "failed", "stopped")
# KubeRay allows 47 characters for a RayJob's name.
_NAME_LENGTH = 22


@dataclass(frozen=True)
class JobState:
    """A job as its cluster knows it; times in seconds since 1970."""

    submission_id: str
    state: State
    metadata: dict[str, str] = field(default_factory=dict)
    started: float | None = None
    ended: float | None = None
    message: str = ""

    @property
    def ended_state(self) -> bool:
        return self.state in ENDED


class Queue(Protocol):
    """Where jobs of sweeps are: a Ray cluster, Kubernetes, Slurm."""

    def jobs(self) -> list[JobState]:
        """Return the jobs it knows, oldest first."""

    def log(self, submission_id: str) -> str:
        """Return what a job has said so far."""

    def follow(self, submission_id: str) -> Iterator[str]:
        """Yield what a job says until it ends."""

    def stop(self, submission_id: str) -> None:
        """Ask a job to end."""


def job_name(sweep: str, store: str) -> str:
    """Return what the ids of all attempts at a sweep in a store begin with."""
    plain = re.sub(r"[^a-z0-9]+", "-", sweep.lower()).strip("-")[:_NAME_LENGTH].strip("-")
    return f"depthsweep-{plain}-{content_id({'sweep': sweep, 'store': store}, 8)}"


def version_of(sweep: Sweep) -> str:
    """Return a digest of which runs and measurements a sweep stands for."""
    ids = [run.run_id for run in sweep.runs] + [one.work_id for one in sweep.to_measure]
    return content_id(sorted(ids))


def attempts(known: Sequence[JobState], name: str) -> dict[int, JobState]:
    """Return the jobs of one name by attempt."""
    pattern = re.compile(rf"{re.escape(name)}-([0-9]+)")
    found = ((pattern.fullmatch(job.submission_id), job) for job in known)
    return {int(match[1]): job for match, job in found if match}


@dataclass(frozen=True)
class Submission:
    """Which job a submit means: one that is under way, or the next attempt."""

    submission_id: str
    attempt: int
    attaches: bool


def submission(known: Sequence[JobState], name: str, version: str, recorded: int = 0) -> Submission:
    """Return the job a submit means.

    ``known`` is what the cluster has, ``recorded`` the newest attempt the store knows of: a cluster
    that is gone took its jobs with it. Raises UserError while another version of the sweep runs.
    """
    found = attempts(known, name)
    under_way = [number for number, job in found.items() if not job.ended_state]
    if under_way:
        number = max(under_way)
        job = found[number]
        if job.metadata.get("version", version) != version:
            raise UserError(
                f"{job.submission_id} is running another version of this sweep; wait for it, or"
                f" cancel it first: depthsweep cancel {job.metadata.get('sweep', 'NAME')}"
            )
        return Submission(job.submission_id, number, True)
    number = max([recorded, *found]) + 1
    return Submission(f"{name}-{number}", number, False)
