"""Which Ray carries a sweep: an embedded one of this process, or a cluster that is already up."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import platform
import secrets
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

from orchestrator.connection.node_scratch import node_scratch
from orchestrator.connection.ray_environment import ray
from orchestrator.sizing.placement import Node
from sweeps.errors import UserError

OBJECT_STORE_BYTES = 200_000_000
# Ray starts a worker a CPU in advance, which trials do not take: theirs have settings of Tune's.
SETTINGS = {"prestart_worker_first_driver": False}
# A cluster that does not accept a connection for so long is not there; Ray itself tries minutes.
ANSWER_SECONDS = 5.0
# Where Ray looks for its token, and whether it asks for one.
TOKEN, TOKEN_PATH, AUTH_MODE = "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_AUTH_MODE"


@contextlib.contextmanager
def local_ray(cpus: int, gpus: int = 0) -> Iterator[None]:
    """Start an embedded Ray of this process's own and stop it at the end."""
    logging.getLogger("ray").setLevel(logging.ERROR)
    with own_token():
        ray.init(
            address="local",
            num_cpus=cpus,
            num_gpus=gpus,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
            object_store_memory=OBJECT_STORE_BYTES,
            _system_config=SETTINGS,
        )
        try:
            yield
        finally:
            ray.shutdown()


@contextlib.contextmanager
def own_token() -> Iterator[None]:
    """Have the Ray that is started meanwhile ask for a token in a file that nobody else may read.

    Ray itself leaves one in the home, mode 0644: with it whoever may log in could run code as this
    user. A token that the environment names, or that none is wanted, is kept to.
    """
    if (
        any(os.environ.get(name) for name in (TOKEN, TOKEN_PATH))
        or os.environ.get(AUTH_MODE, "token") != "token"
    ):
        yield
        return
    from ray._raylet import AuthenticationTokenLoader  # type: ignore[attr-defined]

    with node_scratch("token") as folder:
        path = folder / "token"
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(secrets.token_hex(32))
        os.environ[TOKEN_PATH] = str(path)
        # What a process has read before, of another Ray, it would keep to.
        AuthenticationTokenLoader.instance().reset_cache()
        try:
            yield
        finally:
            del os.environ[TOKEN_PATH]
            AuthenticationTokenLoader.instance().reset_cache()


def ray_is_here() -> bool:
    """Return whether this process is connected to a Ray already, by its own doing."""
    return bool(ray.is_initialized())


@contextlib.contextmanager
def connected_ray(address: str) -> Iterator[None]:
    """Join the cluster at ``address`` (``auto`` or HOST:PORT), leave it at the end.

    Raises UserError when there is none, or one of another Ray or Python version.
    """
    logging.getLogger("ray").setLevel(logging.ERROR)
    _require_answer(address)
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, ValueError) as error:
        raise _no_cluster(address, error) from error
    except RuntimeError as error:
        detail = " ".join(str(error).split())
        if "ersion mismatch" not in detail:
            raise UserError(f"--address {address}: Ray refused: {detail}") from error
        raise UserError(
            f"--address {address}: the cluster runs other versions than Ray {ray.__version__} and"
            f" Python {platform.python_version()} here; install the same on both ({detail})"
        ) from error
    try:
        yield
    finally:
        ray.shutdown()


def _require_answer(address: str) -> None:
    if address.startswith("ray://"):
        raise UserError(
            f"--address {address}: a sweep cannot be driven through Ray Client; run on a node of"
            " the cluster with --address auto"
        )
    from ray._private.services import canonicalize_bootstrap_address_or_die

    try:
        found = canonicalize_bootstrap_address_or_die(address)
        host, _, port = found.rpartition(":")
        socket.create_connection((host.strip("[]"), int(port)), ANSWER_SECONDS).close()
    except (OSError, ValueError) as error:
        raise _no_cluster(address, error) from error


def _no_cluster(address: str, error: Exception) -> UserError:
    detail = " ".join(str(error).split())
    return UserError(
        f"no Ray cluster answers at --address {address} ({detail}); start one with `ray start"
        " --head`, or leave --address and RAY_ADDRESS out to run on this machine"
    )


def cluster_nodes() -> list[Node]:
    """Return the live nodes of the connected cluster, with what nobody holds of them now."""
    from ray._private.state import available_resources_per_node

    free = available_resources_per_node()
    return [
        Node(
            name=node["NodeID"],
            cpus=int(node["Resources"].get("CPU", 0)),
            gpus=int(node["Resources"].get("GPU", 0)),
            free_cpus=free.get(node["NodeID"], {}).get("CPU", 0.0),
            free_gpus=free.get(node["NodeID"], {}).get("GPU", 0.0),
            memory=node["Resources"].get("memory", 0.0),
            group=node.get("Labels", {}).get("ray.io/node-group", ""),
        )
        for node in ray.nodes()
        if node["Alive"]
    ]


class RayDied(RuntimeError):
    """The Ray that this process started is not there any more."""


def own_nodes() -> list[Node]:
    """Return the node of ``local_ray``; raises RayDied where it is gone, since none will come."""
    nodes = cluster_nodes()
    if not nodes:
        raise RayDied(
            "the raylet of this machine's Ray is gone (killed, or out of memory?): what has been"
            " done is kept, and the same command goes on from there"
        )
    return nodes


def gone_where_it_is() -> Callable[[], bool]:
    """Return what says whether the Ray that this process is connected to is not there any more,
    without asking it."""
    host, _, port = ray.get_runtime_context().gcs_address.rpartition(":")

    def gone() -> bool:
        try:
            socket.create_connection((host.strip("[]"), int(port)), ANSWER_SECONDS).close()
        except ConnectionRefusedError:
            return True
        except OSError:
            return False
        return False

    return gone


def gpu_count() -> int:
    """GPUs of this machine that this process may use, without importing torch."""
    from ray._private.accelerators import NvidiaGPUAcceleratorManager

    try:
        there = int(NvidiaGPUAcceleratorManager.get_current_node_num_accelerators())
    except (OSError, RuntimeError) as error:
        raise UserError(f"the GPUs of this machine cannot be counted: {error}") from error
    return min(there, visible_gpus(os.environ.get("CUDA_VISIBLE_DEVICES"), there))


def visible_gpus(said: str | None, there: int) -> int:
    """Return how many of the GPUs ``there`` are the value of CUDA_VISIBLE_DEVICES leaves visible.

    As CUDA reads it: names count up to the first that is none (-1, a number there is no GPU of, one
    that was said before); an empty value hides all.
    """
    if said is None:
        return there
    seen: list[str] = []
    for name in (part.strip() for part in said.split(",")):
        number = int(name) if name.lstrip("-").isdecimal() else None
        beyond = number is not None and not 0 <= number < there
        if beyond or not name or name in seen or name == "NoDevFiles":
            break
        seen.append(name)
    return len(seen)


def cpu_count() -> int:
    """CPUs of this machine that this process may use: by its affinity and its cgroup's quota."""
    affinity = getattr(os, "sched_getaffinity", None)
    usable = len(affinity(0)) if affinity else os.cpu_count() or 1
    quotas = [quota for quota in _cpu_quotas(Path("/sys/fs/cgroup")) if quota is not None]
    return max(1, min([usable, *map(math.ceil, quotas)]))


def _cpu_quotas(root: Path) -> Iterator[float | None]:
    """Yield the CPUs that this process's cgroup and those above it are limited to."""
    try:
        lines = Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, name = line.split(":", 2)
        above = root if not controllers else root / controllers
        if controllers and "cpu" not in controllers.split(","):
            continue
        inner = above / name.lstrip("/")
        for folder in (inner, *inner.parents):
            yield cpu_quota(folder)
            if folder == above:
                break


def cpu_quota(cgroup: Path) -> float | None:
    """Return the CPUs that a cgroup, of version 2 or 1, may use; None where it is not limited."""
    try:
        if (cgroup / "cpu.max").is_file():
            quota, period = (cgroup / "cpu.max").read_text(encoding="utf-8").split()
        else:
            quota = (cgroup / "cpu.cfs_quota_us").read_text(encoding="utf-8").strip()
            period = (cgroup / "cpu.cfs_period_us").read_text(encoding="utf-8")
        return None if quota in ("max", "-1") else int(quota) / int(period)
    except (OSError, ValueError, ZeroDivisionError):
        return None


def gpu_bytes() -> float | None:
    """Memory of the smallest GPU here, or None where the driver's tool does not say."""
    asked = ["nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits"]
    try:
        found = subprocess.run(asked, capture_output=True, text=True, check=True, timeout=30)
        return min(float(line) for line in found.stdout.split()) * 2**20
    except (OSError, subprocess.SubprocessError, ValueError):
        return None
