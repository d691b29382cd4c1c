"""Sweeps as batch jobs of Slurm: the job's name is the submission id, its comment the version."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cluster.job import Job
from cluster.profile import Slurm
from cluster.render import render
from orchestrator.jobs.batch_tool import run_tool
from orchestrator.jobs.job_identity import JobState, State
from sweeps.errors import UserError

POLL_SECONDS = 2.0
# Of a job that is in none of these, Slurm is still doing something.
_STATES: dict[str, State] = {
    "PENDING": "pending",
    "CONFIGURING": "pending",
    "REQUEUED": "pending",
    "REQUEUE_HOLD": "pending",
    "SPECIAL_EXIT": "pending",
    "SUSPENDED": "pending",
    "COMPLETED": "succeeded",
    "CANCELLED": "stopped",
    **dict.fromkeys(
        (
            *("FAILED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY", "BOOT_FAIL", "DEADLINE"),
            *("PREEMPTED", "REVOKED"),
        ),
        "failed",
    ),
}
_FORMAT = "%j|%T|%V|%i|%k"
# What the batch script says last.
_ENDED = re.compile(
    r"^depthsweep: job \d+ ended with exit code (?P<code>\d+)(?P<cancelled>, cancelled)?$",
    re.MULTILINE,
)
_TAIL_BYTES = 65_536


@dataclass(frozen=True)
class SlurmJobs:
    """The jobs of this user in Slurm, and of those that have left its queue what is recorded.

    ``recorded`` is what a store keeps of each by submission id, with ``slurm_job`` (its number) and
    ``output`` (the path of what it says).
    """

    profile: Slurm
    recorded: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def start(self, job: Job, say: Callable[[str], None]) -> dict[str, str]:
        """Give the rendered script to sbatch; the file stays here, and so does the output. Return
        what a record keeps of it."""
        path = Path(f"{job.submission_id}.sbatch")
        path.write_text(render(self.profile, job), encoding="utf-8")
        command = ["sbatch", "--parsable", str(path)]
        say(f"runs: {' '.join(command)}")
        number = run_tool(command).strip().split(";")[0]
        say(f"Slurm job {number}; its output: {job.submission_id}.out in this folder")
        return {"slurm_job": number, "output": str(Path(f"{job.submission_id}.out").absolute())}

    def jobs(self) -> list[JobState]:
        """Return this user's jobs that Slurm still knows, oldest first, after those it does not."""
        asked = ["squeue", "--me", "--states=all", "--noheader", f"--format={_FORMAT}"]
        lines = run_tool(asked).splitlines()
        rows = [line.split("|", 4) for line in lines if line.startswith("depthsweep-")]
        known = {
            name: JobState(name, _STATES.get(state, "running"), {"version": version, "job": number})
            for name, state, _, number, version in sorted(rows, key=lambda row: row[2])
        }
        left = [name for name in self.recorded if name not in known and self._is_ours(name)]
        return [*(self._ended(name) for name in left), *known.values()]

    def log(self, submission_id: str) -> str:
        """Return what the job has said so far."""
        path = self._output(submission_id)
        if not path.is_file():
            raise UserError(
                f"{path.absolute()}: not there; Slurm writes a job's output into the folder it was"
                " submitted from: go there, or wait until the job has begun"
            )
        return path.read_text(encoding="utf-8", errors="replace")

    def follow(self, submission_id: str) -> Iterator[str]:
        """Yield what the job says until it has ended."""
        told = 0
        while True:
            going_on = any(
                job.submission_id == submission_id and not job.ended_state for job in self.jobs()
            )
            path = self._output(submission_id)
            if path.is_file():
                with path.open("rb") as file:
                    file.seek(told)
                    said = file.read()
                told += len(said)
                yield said.decode("utf-8", errors="replace")
            if not going_on:
                return
            time.sleep(POLL_SECONDS)

    def stop(self, submission_id: str) -> None:
        """End the job. One that runs is told: its runs checkpoint first, for as long as they need
        and the time limit allows."""
        for job in self.jobs():
            if job.submission_id == submission_id and not job.ended_state:
                number = job.metadata["job"]
                told = ["--batch", "--signal=USR2"] if job.state == "running" else []
                run_tool(["scancel", *told, number])

    def _is_ours(self, submission_id: str) -> bool:
        return "slurm_job" in self.recorded[submission_id]

    def _output(self, submission_id: str) -> Path:
        recorded = self.recorded.get(submission_id, {}).get("output")
        return Path(str(recorded or f"{submission_id}.out"))

    def _ended(self, submission_id: str) -> JobState:
        """Return how a job ended that Slurm no longer knows: by what its script said last."""
        record = self.recorded[submission_id]
        known = {"version": str(record.get("version", "")), "job": str(record["slurm_job"])}
        path = self._output(submission_id)
        try:
            with path.open("rb") as file:
                file.seek(max(0, path.stat().st_size - _TAIL_BYTES))
                said = file.read().decode("utf-8", errors="replace")
        except OSError:
            said = ""
        ends = list(_ENDED.finditer(said))
        if not ends:
            why = f"it has left Slurm's queue, and {path} does not say how it ended"
            return JobState(submission_id, "failed", known, message=why)
        last = ends[-1]
        state: State = "succeeded" if last["code"] == "0" else "failed"
        if last["cancelled"]:
            state = "stopped"
        return JobState(submission_id, state, known, message=f"exit code {last['code']}")
