"""Ray's Jobs API: what is told to a cluster's head, and what its answers mean for a user."""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from orchestrator.jobs.job_identity import JobState, State
from sweeps.errors import UserError

ANSWER_SECONDS = 20.0
POLL_SECONDS = 0.5
_STATES: dict[str, State] = {
    "PENDING": "pending",
    "RUNNING": "running",
    "SUCCEEDED": "succeeded",
    "FAILED": "failed",
    "STOPPED": "stopped",
}


class NoCluster(UserError):
    """Nothing answers at a cluster's address."""


def require_packages(*names: str) -> None:
    """Raises UserError, naming the extra to install, where a package clusters need is missing."""
    if any(find_spec(name) is None for name in names):
        raise UserError(
            "clusters need more of Ray: pip install -e '.[cluster]' where depthsweep was cloned"
        )


def read_token(path: Path) -> str | None:
    """Return the token in a file, or None where there is none.

    Raises UserError when others may read the file: whoever has the token can run code there.
    """
    try:
        if path.stat().st_mode & 0o077:
            raise UserError(f"{path}: others may read this token; chmod 600 {path}")
        return path.read_text(encoding="utf-8").strip() or None
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UserError(f"{path}: the token cannot be read ({error.strerror})") from None


@dataclass(frozen=True)
class JobsApiClient:
    """The Jobs API of one cluster, known to answer, to accept the token, to be this Ray."""

    address: str
    token_path: Path | None
    _headers: dict[str, str]

    @classmethod
    def connect(cls, address: str, token_path: Path | None) -> JobsApiClient:
        """Return the API at ``address`` (http://host:port).

        Raises NoCluster where nothing answers, UserError where the token is refused or Ray is
        another version.
        """
        require_packages("requests")
        import requests

        token = read_token(token_path) if token_path else None
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        client = cls(address.rstrip("/"), token_path, headers)
        try:
            answer = client._get("/api/version")
            found = answer.json()["ray_version"]
            client._get("/api/jobs/")  # the version is told to anyone, the jobs are not
        except (requests.ConnectionError, requests.Timeout) as error:
            reason = "timed out" if isinstance(error, requests.Timeout) else "refused"
            raise NoCluster(f"no Ray cluster answers at {client.address} ({reason})") from None
        except (requests.RequestException, ValueError, KeyError, TypeError):
            raise UserError(f"{client.address} is no Ray Jobs API: not what it answers") from None
        here = version("ray")
        if found != here:
            raise UserError(
                f"the cluster at {client.address} runs Ray {found}, this is Ray {here};"
                f" start it with ray[default]=={here}"
            )
        return client

    def _get(self, path: str, **parameters: str) -> Any:
        import requests

        answer = requests.get(
            self.address + path, headers=self._headers, params=parameters, timeout=ANSWER_SECONDS
        )
        if answer.status_code in (401, 403):
            had = f"the token of {self.token_path}" if self._headers else "requests without one"
            raise UserError(
                f"the cluster at {self.address} refuses {had}; put its token into"
                f" {self.token_path or 'a file, named by token_file in the profile'}, mode 0600"
            )
        answer.raise_for_status()
        return answer

    @property
    def _client(self) -> Any:
        from ray.job_submission import JobSubmissionClient

        logging.getLogger("ray").setLevel(logging.ERROR)
        with _no_address_from_the_environment():
            return JobSubmissionClient(self.address, headers=self._headers)

    def nodes_alive(self) -> int:
        """Return how many nodes the cluster has now."""
        return len(self.nodes())

    def nodes(self) -> list[dict[str, Any]]:
        """Return the cluster's living nodes: node_ip, is_head_node, resources_total."""
        answer = self._get("/api/v0/nodes", limit="1000", detail="1")
        found = answer.json()["data"]["result"]["result"]
        return [node for node in found if node["state"] == "ALIVE"]

    # --------------------------------------------------------------------------- jobs
    def jobs(self) -> list[JobState]:
        """Return the jobs that came through the Jobs API, oldest first."""
        found = [self._state(job) for job in self._get("/api/jobs/").json() if job["submission_id"]]
        return sorted(found, key=lambda job: job.started or 0.0)

    def job(self, submission_id: str) -> JobState:
        return self._state(self._get(f"/api/jobs/{submission_id}").json())

    @staticmethod
    def _state(job: dict[str, Any]) -> JobState:
        return JobState(
            job["submission_id"],
            _STATES[job["status"]],
            dict(job.get("metadata") or {}),
            (job["start_time"] or 0) / 1000 or None,
            (job["end_time"] or 0) / 1000 or None,
            " ".join((job["message"] or "").split()),
        )

    def submit(
        self,
        submission_id: str,
        entrypoint: str,
        working_dir: Path,
        environment: dict[str, str],
        metadata: dict[str, str],
    ) -> bool:
        """Give a job to the cluster; return False where it has one of this id already."""
        runtime = {
            "working_dir": str(working_dir),
            "env_vars": {"RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0", **environment},
        }
        try:
            self._client.submit_job(
                entrypoint=entrypoint,
                submission_id=submission_id,
                runtime_env=runtime,
                metadata=metadata,
            )
        except RuntimeError as error:
            if "already exists" in str(error):
                return False
            if "exceeds the maximum size" in str(error):
                raise UserError(
                    "the sweep's local files are too large to go along with the job; put models and"
                    " data on storage that the nodes see, or on the hub"
                ) from None
            raise
        return True

    def log(self, submission_id: str) -> str:
        """Return what the job has said so far."""
        said: str = self._get(f"/api/jobs/{submission_id}/logs").json()["logs"] or ""
        return said

    def follow(self, submission_id: str) -> Iterator[str]:
        """Yield what the job says, as it says it, until it ends."""
        told = 0
        while True:
            ended = self.job(submission_id).ended_state
            said = self.log(submission_id)
            if len(said) > told:
                yield said[told:]
                told = len(said)
            if ended:
                return
            time.sleep(POLL_SECONDS)

    def stop(self, submission_id: str) -> None:
        """Ask the job to end; its driver gets SIGTERM."""
        self._client.stop_job(submission_id)


@contextlib.contextmanager
def _no_address_from_the_environment() -> Iterator[None]:
    """Ray prefers these variables to the address it is given."""
    names = ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS")
    kept = {name: os.environ.pop(name) for name in names if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(kept)
