"""Sweeps as batch jobs of Slurm: the job's name is the submission id."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from cluster.job import Job
from cluster.profile import Slurm
from cluster.render import render
from orchestrator.jobs.batch_tool import run_tool
from orchestrator.jobs.job_identity import JobState, State
from sweeps.errors import UserError

POLL_SECONDS = 2.0
_STATES: dict[str, State] = {
    "PENDING": "pending",
    "CONFIGURING": "pending",
    "REQUEUED": "pending",
    "SUSPENDED": "pending",
    "RUNNING": "running",
    "COMPLETING": "running",
}


@dataclass(frozen=True)
class SlurmJobs:
    """The jobs of this user in Slurm's queue; one that has ended is no longer in it."""

    profile: Slurm

    def start(self, job: Job, say: Callable[[str], None]) -> None:
        """Give the rendered script to sbatch; the file stays here, and so does the output."""
        path = Path(f"{job.submission_id}.sbatch")
        path.write_text(render(self.profile, job), encoding="utf-8")
        command = ["sbatch", "--parsable", str(path)]
        say(f"runs: {' '.join(command)}")
        number = run_tool(command).strip().split(";")[0]
        say(f"Slurm job {number}; its output: {job.submission_id}.out in this folder")

    def jobs(self) -> list[JobState]:
        """Return this user's jobs in the queue, oldest first."""
        lines = run_tool(["squeue", "--me", "--noheader", "--format=%j|%T|%V"]).splitlines()
        rows = [line.split("|") for line in lines if line.startswith("depthsweep-")]
        return [
            JobState(name, _STATES.get(state, "running"), {"sweep": ""})
            for name, state, _ in sorted(rows, key=lambda row: row[2])
        ]

    def log(self, submission_id: str) -> str:
        """Return what the job has said so far, from the folder it was submitted in."""
        path = Path(f"{submission_id}.out")
        if not path.is_file():
            raise UserError(
                f"{path.absolute()}: not there; Slurm writes a job's output into the folder it was"
                " submitted from: go there"
            )
        return path.read_text(encoding="utf-8", errors="replace")

    def follow(self, submission_id: str) -> Iterator[str]:
        """Yield what the job says until it has left the queue."""
        told = 0
        while True:
            queued = any(job.submission_id == submission_id for job in self.jobs())
            said = self.log(submission_id) if Path(f"{submission_id}.out").is_file() else ""
            if len(said) > told:
                yield said[told:]
                told = len(said)
            if not queued:
                return
            time.sleep(POLL_SECONDS)

    def stop(self, submission_id: str) -> None:
        """Cancel the job: SIGTERM now, SIGKILL after the site's grace time."""
        run_tool(["scancel", "--me", f"--name={submission_id}"])
