"""Ray's node provider for the tests: each machine it starts is a raylet on loopback.

The autoscaler's monitor imports this file by name (`type: external`, `module:` of
tests/autoscaling_cluster.py), in a process of its own. What a machine has (CPUs, GPUs, labels) is
pretended, as its node type says.
"""

import json
import os
import signal
import subprocess
import sys
import threading
import uuid
from contextlib import suppress
from pathlib import Path

from ray.autoscaler.node_provider import NodeProvider
from ray.autoscaler.tags import (
    NODE_KIND_HEAD,
    STATUS_UP_TO_DATE,
    TAG_RAY_NODE_KIND,
    TAG_RAY_NODE_STATUS,
    TAG_RAY_USER_NODE_TYPE,
)

STOP_SECONDS = 10


class LoopbackProvider(NodeProvider):
    """``provider``: gcs_address, head_id, head_type and logs, a folder for what nodes print."""

    def __init__(self, provider_config, cluster_name):
        super().__init__(provider_config, cluster_name)
        self._lock = threading.RLock()
        self._machines = {}
        self._head_tags = {
            TAG_RAY_NODE_KIND: NODE_KIND_HEAD,
            TAG_RAY_USER_NODE_TYPE: provider_config["head_type"],
            TAG_RAY_NODE_STATUS: STATUS_UP_TO_DATE,
        }

    def non_terminated_nodes(self, tag_filters):
        with self._lock:
            there = [self.provider_config["head_id"]]
            # `ray start --block` ends when its raylet does, as a machine that was taken away.
            there += [name for name, (ray, _) in self._machines.items() if ray.poll() is None]
        return [name for name in there if tag_filters.items() <= self.node_tags(name).items()]

    def is_running(self, node_id):
        return node_id in self.non_terminated_nodes({})

    def is_terminated(self, node_id):
        return not self.is_running(node_id)

    def node_tags(self, node_id):
        if node_id == self.provider_config["head_id"]:
            return self._head_tags
        with self._lock:
            return self._machines[node_id][1]

    def set_node_tags(self, node_id, tags):
        self.node_tags(node_id).update(tags)

    def internal_ip(self, node_id):
        return node_id

    def external_ip(self, node_id):
        return node_id

    def create_node_with_resources_and_labels(self, node_config, tags, count, resources, labels):
        del node_config
        for _ in range(count):
            self._start(tags, dict(resources), dict(labels))

    def _start(self, tags, resources, labels):
        name = f"{tags[TAG_RAY_USER_NODE_TYPE]}-{uuid.uuid4().hex[:8]}"
        command = [
            *[sys.executable, "-m", "ray.scripts.scripts", "start", "--block"],
            *["--address", self.provider_config["gcs_address"], "--node-ip-address", "127.0.0.1"],
            *["--num-cpus", str(int(resources.pop("CPU", 0)))],
            *["--num-gpus", str(int(resources.pop("GPU", 0)))],
            *["--object-store-memory", "80000000"],
            *["--min-worker-port", "0", "--max-worker-port", "0"],
            *["--dashboard-agent-listen-port", "0", "--disable-usage-stats"],
        ]
        if "memory" in resources:
            command += ["--memory", str(int(resources.pop("memory")))]
        environment = {
            **os.environ,
            # How the autoscaler knows which of its machines a raylet is (ray_installer.py).
            "RAY_CLOUD_INSTANCE_ID": name,
            "RAY_NODE_TYPE_NAME": tags[TAG_RAY_USER_NODE_TYPE],
            "RAY_OVERRIDE_RESOURCES": json.dumps(resources),
            "RAY_OVERRIDE_LABELS": json.dumps(labels),
        }
        with open(Path(self.provider_config["logs"]) / f"{name}.txt", "w") as output:
            ray = subprocess.Popen(
                command, env=environment, stdout=output, stderr=output, start_new_session=True
            )
        with self._lock:
            self._machines[name] = (ray, {**tags, TAG_RAY_NODE_STATUS: STATUS_UP_TO_DATE})

    def terminate_node(self, node_id):
        with self._lock:
            ray, _ = self._machines[node_id]
        with suppress(ProcessLookupError):
            ray.send_signal(signal.SIGTERM)
        try:
            ray.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(ray.pid, signal.SIGKILL)
            ray.wait()
