"""A Ray cluster on loopback that grows and shrinks: a head without CPUs, and nodes as demand comes.

    with autoscaling_cluster({"two": {"max": 2, "CPU": 4, "GPU": 2}}) as cluster:
        subprocess.run([..., "--address", cluster.address], env=cluster.environment())

Everything runs as processes of this machine with a folder and ports of their own. Ray's own
AutoscalingCluster is not used: it runs `ray stop --force`, which ends every Ray of the machine, and
the configuration it starts from is not in Ray's wheel. All processes carry a mark in their
environment, by which they are ended whatever has happened to their parents.
"""

import os
import subprocess
import sys
import tempfile
import time
import uuid
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import yaml
from s3_server import await_port, free_port

MARK = "DEPTHSWEEP_TEST_CLUSTER"
HEAD_TYPE = "head"
IDLE_SECONDS = 6
# Ray adds these lists up without asking whether they are there.
COMMANDS = [
    *("initialization_commands", "setup_commands", "head_setup_commands", "worker_setup_commands"),
    *("head_start_ray_commands", "worker_start_ray_commands"),
]


class AutoscalingCluster:
    """What a test sees of it. ``version`` 2 or 1 is the autoscaler's; None starts none."""

    def __init__(self, types, folder, idle_seconds=IDLE_SECONDS, version=2):
        self.folder = Path(folder)
        self.port = free_port()
        self.address = f"127.0.0.1:{self.port}"
        self._mark = uuid.uuid4().hex
        self._version = version
        self._config = self.folder / "autoscaling.yaml"
        self._config.write_text(yaml.safe_dump(self._configuration(types, idle_seconds)))

    def _configuration(self, types, idle_seconds):
        def entry(least, most, resources, labels):
            there = {"resources": resources, "node_config": {}, "labels": labels}
            return {**there, "min_workers": least, "max_workers": most}

        nodes = {HEAD_TYPE: entry(0, 0, {"CPU": 0}, {})}
        for name, kind in types.items():
            resources = {key: kind[key] for key in kind if key not in ("min", "max", "labels")}
            labels = kind.get("labels", {})
            nodes[name] = entry(kind.get("min", 0), kind["max"], resources, labels)
        return {
            "cluster_name": "loopback",
            "max_workers": sum(kind["max"] for kind in types.values()),
            "idle_timeout_minutes": idle_seconds / 60,
            "provider": {
                "type": "external",
                "module": "loopback_provider.LoopbackProvider",
                "gcs_address": self.address,
                "head_id": "the-head",
                "head_type": HEAD_TYPE,
                "logs": str(self.folder),
                # No ssh: a machine comes with its raylet.
                "disable_node_updaters": True,
                "disable_launch_config_check": True,
            },
            "auth": {},
            **{key: [] for key in COMMANDS},
            "file_mounts": {},
            "cluster_synced_files": [],
            "available_node_types": nodes,
            "head_node_type": HEAD_TYPE,
        }

    def environment(self):
        """Return the environment of a process that uses the cluster (it is ended with it)."""
        # Ray refuses to pretend more GPUs than this leaves visible.
        own = {key: said for key, said in os.environ.items() if key != "CUDA_VISIBLE_DEVICES"}
        return {
            **own,
            "RAY_TMPDIR": str(self.folder),
            # `ray start` makes a token in the user's home otherwise.
            "RAY_AUTH_MODE": "disabled",
            "RAY_USAGE_STATS_ENABLED": "0",
            MARK: self._mark,
        }

    def start(self):
        """Start head and autoscaler; return when the head answers. No worker is there then."""
        here = Path(__file__).parent
        # For the monitor the provider, for the workers the code under test.
        paths = [str(here.parents[1]), str(here), *filter(None, [os.environ.get("PYTHONPATH")])]
        environment = {
            **self.environment(),
            "PYTHONPATH": os.pathsep.join(paths),
            "RAY_enable_autoscaler_v2": "1" if self._version == 2 else "0",
            "RAY_CLOUD_INSTANCE_ID": "the-head",
            "RAY_NODE_TYPE_NAME": HEAD_TYPE,
            "AUTOSCALER_UPDATE_INTERVAL_S": "1",
            "AUTOSCALER_METRIC_PORT": str(free_port()),
        }
        command = [
            *[sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block"],
            *["--port", str(self.port), "--node-ip-address", "127.0.0.1"],
            *["--num-cpus", "0", "--num-gpus", "0", "--object-store-memory", "80000000"],
            *["--temp-dir", str(self.folder), "--include-dashboard", "false"],
            *["--min-worker-port", "0", "--max-worker-port", "0"],
            *["--dashboard-agent-listen-port", "0", "--disable-usage-stats"],
        ]
        if self._version:
            command += ["--autoscaling-config", str(self._config)]
        with open(self.folder / "head.txt", "w") as output:
            head = subprocess.Popen(
                command, env=environment, stdout=output, stderr=output, start_new_session=True
            )
        await_port(self.port)
        until = time.monotonic() + 60
        while self._version and not self._has_autoscaler():
            assert head.poll() is None, (self.folder / "head.txt").read_text()
            assert time.monotonic() < until, "the autoscaler does not start"
            time.sleep(0.1)

    def _has_autoscaler(self):
        log = self.folder / "session_latest/logs/monitor.log"
        said = log.read_text() if log.exists() else ""
        return "Using Autoscaling Config" in said or "StandardAutoscaler: {" in said

    def machines(self):
        """Return {machine: node type} of the workers whose raylet is there; the head left out."""
        return {name: kind for name, (kind, _) in self._raylets().items()}

    def _raylets(self):
        found = {}
        for process in self.processes():
            with suppress(psutil.Error):
                if process.name() == "raylet":
                    kind = _variable(process.pid, "RAY_NODE_TYPE_NAME") or HEAD_TYPE
                    if kind != HEAD_TYPE:
                        found[self.machine_of(process.pid)] = (kind, process)
        return found

    def machine_of(self, pid):
        """Return the machine that a process of the cluster runs on, a rank's say."""
        return _variable(pid, "RAY_CLOUD_INSTANCE_ID")

    def kill(self, machine):
        """End a machine's raylet at once, as a preempted machine; its workers end with it."""
        self._raylets()[machine][1].kill()

    def stop(self):
        """End every process of the cluster and those started with its environment."""
        until = time.monotonic() + 30
        # What starts meanwhile is seen in the next round.
        while found := self.processes():
            for process in found:
                with suppress(psutil.Error):
                    process.kill()
            psutil.wait_procs(found, timeout=2)
            assert time.monotonic() < until, f"still there: {found}"

    def processes(self):
        """Return all processes of the cluster, and of those that use it, as psutil.Process."""
        found = [there for there in psutil.process_iter() if _variable(there.pid, MARK)]
        return [there for there in found if _variable(there.pid, MARK) == self._mark]


def _variable(pid, name):
    """Return a variable of the environment that a process was started with, or None.

    From the bytes: Ray's processes write their title over where it begins, and psutil reads no
    further than that.
    """
    try:
        block = Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return None
    for entry in block.split(b"\0"):
        key, _, value = entry.partition(b"=")
        if key == name.encode():
            return value.decode()
    return None


@contextmanager
def autoscaling_cluster(types, **settings):
    """Yield a cluster of node types {name: {"max": …, "CPU": …, "GPU": …, "labels": {…}}}."""
    # A short path: names of sockets have a limit of 107 bytes.
    with tempfile.TemporaryDirectory(prefix="ac", dir="/tmp", ignore_cleanup_errors=True) as folder:
        cluster = AutoscalingCluster(types, folder, **settings)
        try:
            cluster.start()
            yield cluster
        finally:
            cluster.stop()
