"""What each node of a Slurm job runs: its Ray, and on the first node the driver of the sweep.

    python -m orchestrator.jobs.slurm_node --nodes 2 --cpus 64 --gpus 8 --notice 120 -- depthsweep …

`srun` starts it once a node. The first node's is the head: it waits for the others, runs the
command, and ends with its exit code; the others end once the head's Ray is gone. (`ray
symmetric-run` dies of SIGTERM, ends every Ray it can see, and has nodes wait a minute for a head
that has left.)

SIGTERM is Slurm's notice: a preemption, a time limit that comes near, a cancel. Sites differ in
which processes get it, this one alone (cgroups) or all (process trees). So Ray's own processes are
started with it blocked, the driver and the ranks of this node are sent it, and all of them are
given ``--notice`` seconds. What is left is killed then: nothing of a job outlives it on its nodes.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Any

# Here, and not where it is first used: a signal may come in the middle of an import.
import psutil

# How long nodes may take to start: many of them import from one shared file system.
START_SECONDS = 600.0
POLL_SECONDS = 0.5
# A node leaves once the head has refused it so many times in a row.
REFUSALS = 3
# Of a rank process that ends on its own, and of one that is killed.
LAST_SECONDS = 10.0
TERMINATED = 128 + signal.SIGTERM
RANKS = "workers.ranks.rank_server"
# prctl(2): processes whose parent has died become children of this one.
PR_SET_CHILD_SUBREAPER = 36


def main(words: Sequence[str]) -> int:
    """Be one node of a job; return the exit code of its driver, 0 on other nodes than the first.

    1 where Ray does not start or nodes do not come; 143 where a notice came before the driver had
    ended well, whatever it ended with: the job is to go on.
    """
    parser = argparse.ArgumentParser(prog="slurm_node", description=__doc__)
    for name in ("nodes", "cpus", "gpus", "notice"):
        parser.add_argument(f"--{name}", type=int, required=True)
    parser.add_argument("command", nargs="+")
    given = parser.parse_args(words)
    first = os.environ.get("SLURM_PROCID", "0") == "0"
    host = os.environ["SLURM_LAUNCH_NODE_IPADDR"]  # of the node that srun was called on: the first
    port = 20_000 + int(os.environ["SLURM_JOB_ID"]) % 20_000
    _adopt_orphans()
    notice = _Notice()
    scratch = tempfile.mkdtemp(prefix="ds-", dir="/tmp")  # sockets need short paths
    try:
        with _blocked_sigterm():
            ray = _start_ray(first, host, port, given.cpus, given.gpus, scratch)
        if first:
            return _head(ray, f"{host}:{port}", given.nodes, given.command, notice)
        return _other(ray, host, port, notice)
    finally:
        _end_everything(given.notice)
        shutil.rmtree(scratch, ignore_errors=True)


class _Notice:
    """Whether SIGTERM has come; ``told`` is the driver, to which it is passed on."""

    def __init__(self) -> None:
        self._given = False
        self.told: subprocess.Popen[bytes] | None = None
        signal.signal(signal.SIGTERM, self._take)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})

    def given(self) -> bool:
        """Return whether it has; a signal may come between any two looks."""
        return self._given

    def _take(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        if not self._given:
            self._given = True
            print(f"{socket.gethostname()}: Slurm gives notice; runs checkpoint", flush=True)
        if self.told is not None:
            self.told.terminate()
        for rank in _ranks():
            with contextlib.suppress(Exception):
                rank.terminate()


def _start_ray(
    first: bool, host: str, port: int, cpus: int, gpus: int, scratch: str
) -> subprocess.Popen[bytes]:
    where = (
        ["--head", f"--port={port}", "--include-dashboard=false"]
        if first
        else [f"--address={host}:{port}"]
    )
    # Ray's own choice of the agent's port is the same for every node of a machine, where another
    # job may have one.
    program = [sys.executable, "-m", "ray.scripts.scripts", "start", *where]
    program += [f"--node-ip-address={_own_address(host)}", f"--temp-dir={scratch}"]
    program += [f"--num-cpus={cpus}", f"--num-gpus={gpus}", "--disable-usage-stats", "--block"]
    program.append(f"--dashboard-agent-listen-port={_free_port()}")
    if not first:
        _await(lambda: _answers(host, port) == "yes", START_SECONDS)
    with open(f"{scratch}/ray.log", "wb") as log:
        return subprocess.Popen(program, stdout=log, stderr=log, start_new_session=True)


def _head(
    ray: subprocess.Popen[bytes], address: str, nodes: int, command: list[str], notice: _Notice
) -> int:
    """Run the driver once all nodes are there; return what the job ends with."""
    came = 0

    def ready() -> bool:
        nonlocal came
        came = _nodes(address)
        return came >= nodes or ray.poll() is not None or notice.given()

    _await(ready, START_SECONDS)
    if notice.given():
        return TERMINATED
    if came < nodes:
        print(f"depthsweep: {came} of {nodes} nodes have a Ray; see above", file=sys.stderr)
        return 1
    notice.told = driver = subprocess.Popen(
        command, env={**os.environ, "RAY_ADDRESS": address}, start_new_session=True
    )
    if notice.given():
        driver.terminate()
    code = driver.wait()
    notice.told = None
    return TERMINATED if notice.given() and code not in (0, 2) else code


def _other(ray: subprocess.Popen[bytes], host: str, port: int, notice: _Notice) -> int:
    """Return once the head has left; a notice is the head's to answer."""
    del notice
    refused = 0
    while refused < REFUSALS and ray.poll() is None:
        time.sleep(POLL_SECONDS)
        refused = refused + 1 if _answers(host, port) == "no" else 0
    if refused < REFUSALS:
        print(f"depthsweep: Ray of {socket.gethostname()} has ended: {ray.poll()}", flush=True)
        return 1
    return 0


def _nodes(address: str) -> int:
    """Return how many nodes are alive, 0 where nothing answers yet."""
    from ray._raylet import GcsClient  # type: ignore[attr-defined]

    try:
        found = GcsClient(address=address).get_all_node_info()
        return sum(node.state == 0 for node in found.values())  # GcsNodeInfo.ALIVE
    except Exception:
        return 0


def _answers(host: str, port: int) -> str:
    """Return "yes", "no" where the connection is refused, "" where nothing is known."""
    try:
        socket.create_connection((host, port), 5.0).close()
    except ConnectionRefusedError:
        return "no"
    except OSError:
        return ""
    return "yes"


def _own_address(head: str) -> str:
    """Return the address of this machine from which it reaches the head."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as way:
        way.connect((head, 9))  # sends nothing
        return str(way.getsockname()[0])


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("", 0))
        return int(free.getsockname()[1])


def _await(ready: Callable[[], bool], seconds: float) -> None:
    until = time.monotonic() + seconds
    while not ready() and time.monotonic() < until:
        time.sleep(POLL_SECONDS)


@contextlib.contextmanager
def _blocked_sigterm() -> Any:
    """Have what is started meanwhile inherit a mask under which SIGTERM does nothing."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})


def _adopt_orphans() -> None:
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def _ranks() -> list[Any]:
    """Return the processes of runs on this node, the one that forks them among them."""
    found = []
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if RANKS in process.cmdline() and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def _end_everything(notice: float) -> None:
    """Let ranks end, which checkpoint once their starter is gone; then kill what is left."""
    here = psutil.Process()
    until = time.monotonic() + notice
    for process in here.children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if RANKS not in process.cmdline():
                process.kill()
    while _ranks() and time.monotonic() < until:
        time.sleep(POLL_SECONDS / 5)
    until = time.monotonic() + LAST_SECONDS
    while (left := here.children(recursive=True)) and time.monotonic() < until:
        for process in left:
            with contextlib.suppress(psutil.Error):
                process.kill()
        psutil.wait_procs(left, timeout=0.5)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
