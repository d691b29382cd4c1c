"""Sweeps as RayJobs of a Kubernetes cluster, through kubectl."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from cluster.job import Job
from cluster.profile import Kuberay
from cluster.render import render
from orchestrator.jobs.batch_tool import run_tool
from orchestrator.jobs.job_identity import JobState, State
from sweeps.errors import UserError

POLL_SECONDS = 5.0
_STATES: dict[str, State] = {
    "Complete": "succeeded",
    "Failed": "failed",
    "ValidationFailed": "failed",
    "Running": "running",
}


@dataclass(frozen=True)
class KubernetesJobs:
    """The RayJobs of one namespace that depthsweep made."""

    profile: Kuberay

    def start(self, job: Job, say: Callable[[str], None]) -> dict[str, str]:
        """Apply the rendered RayJob; the file stays here, to read and to apply by hand. Return what
        a record keeps of it: nothing more."""
        path = Path(f"{job.submission_id}.yaml")
        path.write_text(render(self.profile, job), encoding="utf-8")
        command = ["kubectl", "apply", "-f", str(path), "--namespace", self.profile.namespace]
        say(f"runs: {' '.join(command)}")
        run_tool(command)
        return {}

    def jobs(self) -> list[JobState]:
        """Return the RayJobs of the namespace, oldest first."""
        label = "app.kubernetes.io/name=depthsweep"
        found = json.loads(self._kubectl("get", "rayjobs.ray.io", "-l", label, "-o", "json"))
        return sorted(map(_state, found["items"]), key=lambda job: job.started or 0.0)

    def log(self, submission_id: str) -> str:
        """Return what the driver has said so far; it runs in a Job of the RayJob's name."""
        try:
            return self._kubectl("logs", f"job/{submission_id}", "--tail=-1")
        except UserError:
            return ""  # no pod yet

    def follow(self, submission_id: str) -> Iterator[str]:
        """Yield what the driver says, and the one after it where the RayJob is tried again, until
        the RayJob has ended or is gone."""
        command = self._command("logs", "--follow", f"job/{submission_id}")
        while True:
            if self.log(submission_id):
                with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
                    assert process.stdout is not None
                    yield from process.stdout
            known = {job.submission_id: job for job in self.jobs()}
            if submission_id not in known or known[submission_id].ended_state:
                return
            time.sleep(POLL_SECONDS)

    def stop(self, submission_id: str) -> None:
        """Delete the RayJob, and with it its cluster."""
        self._kubectl("delete", "rayjobs.ray.io", submission_id, "--wait=false")
        self._kubectl("delete", "configmap", submission_id, "--ignore-not-found")

    def _command(self, *words: str) -> list[str]:
        return ["kubectl", *words, "--namespace", self.profile.namespace]

    def _kubectl(self, *words: str) -> str:
        return run_tool(self._command(*words))


def _state(rayjob: dict[str, Any]) -> JobState:
    status = rayjob.get("status") or {}
    return JobState(
        rayjob["metadata"]["name"],
        _STATES.get(status.get("jobDeploymentStatus", ""), "pending"),
        dict(rayjob["spec"].get("metadata") or {}),
        _seconds(status.get("startTime")),
        _seconds(status.get("endTime")),
        " ".join(str(status.get("message") or "").split()),
    )


def _seconds(text: str | None) -> float | None:
    return datetime.fromisoformat(text).timestamp() if text else None
