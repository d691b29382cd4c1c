"""A Ray cluster on this machine: several nodes on loopback, with a token of its own.

Each node is a `ray start --block` process of this user; what was started is written down, so that
exactly that is ended. (`ray stop` would end every Ray of the machine.)
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster.profile import Local
from cluster.render import local_commands
from sweeps.errors import UserError
from sweeps.liveness.process import identity, is_there

START_SECONDS = 90.0
STOP_SECONDS = 15.0
POLL_SECONDS = 0.3


def state_folder() -> Path:
    """Return where a user's local clusters are written down (XDG_STATE_HOME)."""
    home = os.environ.get("XDG_STATE_HOME") or str(Path.home() / ".local/state")
    return Path(home) / "depthsweep"


@dataclass(frozen=True)
class LocalCluster:
    """A cluster by its port; ``folder`` holds its token, its processes and what they say."""

    profile: Local

    @property
    def folder(self) -> Path:
        return state_folder() / f"local-{self.profile.port}"

    @property
    def token_path(self) -> Path:
        given = self.profile.token_file
        return Path(given).expanduser() if given else self.folder / "token"

    @property
    def _record(self) -> Path:
        return self.folder / "processes.json"

    def processes(self) -> list[dict[str, Any]]:
        """Return those of its node processes that are alive, as they were recorded."""
        if not self._record.is_file():
            return []
        recorded: list[dict[str, Any]] = json.loads(self._record.read_text())["nodes"]
        return [node for node in recorded if _alive(node)]

    def up(self) -> None:
        """Start the head, then the other nodes; return when the Jobs API answers and all joined.

        Raises UserError where it is up already, or a port is taken, with what Ray said.
        """
        if self.processes():
            raise UserError(
                f"a local cluster is up on port {self.profile.port};"
                " end it first: depthsweep cluster down"
            )
        self._make_token()
        scratch = tempfile.mkdtemp(prefix="ds-", dir="/tmp")  # sockets need short paths
        share = max(1, (os.cpu_count() or 1) // self.profile.nodes)
        nodes: list[dict[str, Any]] = []
        try:
            for index, command in enumerate(local_commands(self.profile, share)):
                nodes.append(self._start(index, command, scratch))
                self._record.write_text(json.dumps({"nodes": nodes, "scratch": scratch}))
                if index == 0:
                    self._await(lambda: self._answers(), 0)
            self._await(lambda: self._nodes_alive() >= self.profile.nodes, len(nodes) - 1)
        except BaseException:
            self.down()
            raise

    def down(self) -> int:
        """End what ``up`` started; return how many nodes there were."""
        alive = self.processes()
        _end([node["pid"] for node in alive])
        if self._record.is_file():
            scratch = json.loads(self._record.read_text())["scratch"]
            _end_orphans(scratch)
            shutil.rmtree(scratch, ignore_errors=True)
            self._record.unlink()
        return len(alive)

    def _make_token(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if self.token_path.is_file():
            return
        with open(os.open(self.token_path, os.O_WRONLY | os.O_CREAT, 0o600), "w") as file:
            file.write(secrets.token_hex(32))

    def _start(self, index: int, command: str, scratch: str) -> dict[str, Any]:
        import psutil

        words = shlex.split(command)
        program = [sys.executable, "-m", "ray.scripts.scripts", *words[1:]]
        # One each: of two nodes in one folder the second would replace the first's copy of a job's
        # working directory under its driver.
        program.append(f"--temp-dir={scratch}/{index}")
        # Ray's own choice is the same for every node of a machine, whoever started it; a head whose
        # agent finds it taken accepts no job.
        program.append(f"--dashboard-agent-listen-port={_free_port()}")
        environment = {
            **os.environ,
            **self.profile.env,
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(self.token_path),
            "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
            "RAY_JOB_STOP_WAIT_TIME_S": "60",
            # Nodes find the commands of this environment, depthsweep among them.
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",
        }
        environment.pop("RAY_ADDRESS", None)
        with self._log(index).open("wb") as log:
            started = subprocess.Popen(
                program, stdout=log, stderr=log, env=environment, start_new_session=True
            )
        return {**identity(started.pid), "began": psutil.Process(started.pid).create_time()}

    def _log(self, index: int) -> Path:
        return self.folder / f"node-{index}.log"

    def _await(self, ready: Any, index: int) -> None:
        until = time.monotonic() + START_SECONDS
        while not ready():
            recorded = json.loads(self._record.read_text())["nodes"]
            if not _alive(recorded[index]) or time.monotonic() > until:
                lines = self._log(index).read_text(errors="replace").strip().splitlines()
                said = next((line for line in reversed(lines) if "Error" in line), "")
                raise UserError(
                    f"node {index} of the local cluster did not start: {said or 'no answer'}"
                    f" ({self._log(index)} has it all); is a port of the profile taken?"
                )
            time.sleep(POLL_SECONDS)

    def _answers(self) -> bool:
        from orchestrator.jobs.ray_jobs import JobsApiClient

        try:
            JobsApiClient.connect(self.profile.address, self.token_path)
        except UserError:
            return False
        return True

    def _nodes_alive(self) -> int:
        from orchestrator.jobs.ray_jobs import JobsApiClient

        return JobsApiClient.connect(self.profile.address, self.token_path).nodes_alive()


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def _alive(node: dict[str, Any]) -> bool:
    import psutil

    there = is_there(node)
    if there is not None or node.get("boot"):
        return bool(there)  # of another boot or container it is none of this machine's
    try:  # no /proc
        process = psutil.Process(node["pid"])
        same: bool = abs(process.create_time() - node["began"]) < 1
        return same and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _end(nodes: list[int]) -> None:
    """End nodes and everything they started, gently first."""
    import psutil

    family = []
    for pid in nodes:
        with contextlib.suppress(psutil.NoSuchProcess):
            node = psutil.Process(pid)
            family += [node, *node.children(recursive=True)]
            node.terminate()
    _, left = psutil.wait_procs(family, timeout=STOP_SECONDS)
    for process in left:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(left, timeout=STOP_SECONDS)


def _end_orphans(scratch: str) -> None:
    """End what a node left behind that died before its children; they name the cluster's folder."""
    import psutil

    left = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if any(f"{scratch}/" in word for word in process.cmdline()):
                process.kill()
                left.append(process)
    psutil.wait_procs(left, timeout=STOP_SECONDS)
