"""Can every node of a cluster read and write the store? Asked before any run takes a GPU."""

from __future__ import annotations

import uuid
from collections.abc import Sequence

from orchestrator.connection.ray_environment import ray
from sweeps.errors import UserError
from sweeps.files.whole_files import write_text
from sweeps.store.store import Store

PROBE_SECONDS = 120.0


def complaint(location: str, sweep: str) -> str | None:
    """Return what is wrong with the store as this process sees it, or None.

    The sweep was recorded by the driver, so a node that does not see the record has another folder
    of the same name.
    """
    try:
        store = Store.at(location)
        folder = store.sweep_folder(sweep)
        if not (folder / "resolved.json").is_file():
            shared = "a path that every node shares, or a URL such as s3://bucket/prefix"
            return f"it is not the store that the driver sees; give {shared}"
        probe = folder / f".probe-{uuid.uuid4().hex}"
        write_text(probe, "can this node write?\n")
        probe.unlink()
    except (OSError, UserError) as error:
        return f"it cannot be written there: {' '.join(str(error).split())}"
    return None


def require_store_on(nodes: Sequence[str], location: str, sweep: str) -> None:
    """Raise UserError unless a task on each node (by node id) can use the store.

    Needs a connected Ray, and the sweep recorded in the store.
    """
    from ray.exceptions import GetTimeoutError, RayError
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    probe = ray.remote(num_cpus=0, max_retries=0)(complaint)
    asked = {
        node: probe.options(
            scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)
        ).remote(location, sweep)
        for node in nodes
    }
    for node, reference in asked.items():
        try:
            wrong = ray.get(reference, timeout=PROBE_SECONDS)
        except (RayError, GetTimeoutError) as error:
            detail = " ".join(str(error).split())[-300:]
            raise UserError(f"node {node[:12]} of the cluster runs no task: {detail}") from error
        if wrong:
            raise UserError(f"--store {location}: on node {node[:12]} of the cluster {wrong}")
