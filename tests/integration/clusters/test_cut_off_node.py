"""Sweeps on a Ray cluster of two machines in a network (``hosts``), of which one is cut off."""

import json
import os
import platform
import secrets
import signal
import subprocess
import sys
import tempfile
import time

import pytest
from hosts import missing, network, s3_at
from s3_server import BUCKET, CREDENTIALS

pytestmark = pytest.mark.skipif(missing() is not None, reason=str(missing()))
HEAD, FAR, SERVER = 1, 2, 3
PORT, NO_DASHBOARD = 6390, "--include-dashboard=false"
STORE = f"s3://{BUCKET}/x"
SWEEP = """
name: pair
models:
  a: {standin: gpt2, layers: 2, width: 32, vocabulary: 400, pretrain_steps: 3}
objectives:
  clm: {data: {builtin: python-docs}}
probe: {data: {builtin: python-docs}, rows: 32, sequence_length: 16, every: 100}
defaults: {steps: 600, batch_size: 4, sequence_length: 16, learning_rate: 1e-3,
  part_steps: 20, checkpoint_share: 1}
measurements: []
blocks:
  - name: all
    grid: {model: [a], objective: [clm], control: [standard], seed: [0, 1]}
"""
# A machine has the name, and the numbers of its processes, of its own; all of it ends with it.
MACHINE = ("unshare", "--uts", "--pid", "--fork", "--kill-child", "--mount-proc")
NAMED = 'hostname "$0"; "$@" & wait'
# Makes the bucket; waits until a run of the far machine has a checkpoint; tells of all runs.
ASK = f"""
import json, sys, time
from sweeps.store.store import Store
def made():
    import botocore.session
    client = botocore.session.get_session().create_client("s3")
    client.create_bucket(Bucket={BUCKET!r})
def attempts():
    store = Store.at({STORE!r})
    return {{run.run_id: [(one["node"], one["cause"]) for one in run.attempts()]
            for run in store.runs()}}
def begun():
    for run in Store.at({STORE!r}).runs():
        nodes = [one["node"] for one in run.attempts()]
        if nodes == ["far"] and run.checkpoint_steps():
            return run.run_id
    raise LookupError("no run of the far machine has a checkpoint")
until = time.monotonic() + 240
while True:
    try:
        print(json.dumps(globals()[sys.argv[1]]()))
        break
    except Exception:
        if time.monotonic() > until:
            raise
        time.sleep(0.3)
"""


class Machines:
    """A head and a far machine with a Ray, and a server of objects, in a network."""

    def __init__(self, net, folder, endpoint):
        self.net, self.folder = net, folder
        self.environment = {
            **os.environ,
            **CREDENTIALS,
            "AWS_ENDPOINT_URL": endpoint,
            "DEPTHSWEEP_CACHE": str(folder / "cache"),
            "DEPTHSWEEP_STALE_SECONDS": "4",
            "OMP_NUM_THREADS": "1",
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(folder / "token"),
            # By default Ray gives a node some 50 s.
            "RAY_health_check_period_ms": "1000",
            "RAY_health_check_timeout_ms": "3000",
            "RAY_health_check_failure_threshold": "3",
        }
        self.environment.pop("RAY_ADDRESS", None)
        self.environment.pop("RAY_AUTH_TOKEN", None)
        token = folder / "token"
        with open(os.open(token, os.O_WRONLY | os.O_CREAT, 0o600), "w") as file:
            file.write(secrets.token_hex(32))
        (folder / "pair.yaml").write_text(SWEEP)
        self._started = []

    def start(self, host, *words, said):
        with open(self.folder / said, "wb") as output:
            self._started.append(
                subprocess.Popen(
                    [*self.net.at(host), *words],
                    stdout=output,
                    stderr=output,
                    cwd=self.folder,
                    env=self.environment,
                    start_new_session=True,
                )
            )
        return self._started[-1]

    def said(self, name):
        return (self.folder / name).read_text()[-4000:]

    def ask(self, what):
        done = subprocess.run(
            [*self.net.at(HEAD), sys.executable, "-c", ASK, what],
            capture_output=True,
            text=True,
            env=self.environment,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def ray(self, host, scratch, *where):
        """Return the command of a machine's Ray."""
        address = self.net.address(host)
        return [
            *(sys.executable, "-m", "ray.scripts.scripts", "start", *where, "--block"),
            *(f"--node-ip-address={address}", f"--temp-dir={scratch}", "--num-cpus=1"),
            *("--object-store-memory=80000000", "--disable-usage-stats"),
        ]

    def depthsweep(self, *words, said):
        return self.start(HEAD, sys.executable, "-m", "orchestrator", *words, said=said)

    def digest(self, store):
        """Return the digest of the sweep in a store."""
        process = self.depthsweep("digest", "pair", "--store", store, said="digest")
        assert process.wait(120) == 0, self.said("digest")
        return self.said("digest").strip()

    def close(self):
        for process in reversed(self._started):
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)  # Ray ends what it has started
                try:
                    process.wait(30)
                except subprocess.TimeoutExpired:
                    os.killpg(process.pid, signal.SIGKILL)
                    process.wait()


@pytest.fixture
def machines(tmp_path):
    with (
        tempfile.TemporaryDirectory(prefix="rn", dir="/tmp") as scratch,  # sockets: short paths
        network(3) as net,
        s3_at(net, SERVER) as endpoint,
    ):
        there = Machines(net, tmp_path, endpoint)
        try:
            there.ask("made")
            head = there.ray(HEAD, f"{scratch}/h", "--head", f"--port={PORT}", NO_DASHBOARD)
            there.start(HEAD, *head, said="head")
            far = there.ray(FAR, f"{scratch}/f", f"--address={net.address(HEAD)}:{PORT}")
            there.start(FAR, *MACHINE, "bash", "-c", NAMED, "far", *far, said="far")
            yield there
        finally:
            there.close()


@pytest.mark.slow
def test_runs_of_a_node_that_is_cut_off_go_on_elsewhere_and_nothing_twice(machines):
    address = f"{machines.net.address(HEAD)}:{PORT}"
    driver = machines.depthsweep(
        *("run", "pair.yaml", "--address", address, "--store", STORE), said="driver"
    )
    lost = json.loads(machines.ask("begun"))
    assert driver.poll() is None, machines.said("driver")
    machines.net.cut(FAR)
    assert driver.wait(400) == 0, machines.said("driver")
    attempts = json.loads(machines.ask("attempts"))
    assert attempts[lost][0] == ["far", "lost"]
    assert attempts[lost][-1] == [platform.node(), "finished"]
    found = machines.digest(STORE)
    # What the far machine still has to say replaces nothing.
    machines.net.heal(FAR)
    time.sleep(20)
    assert machines.digest(STORE) == found
    assert json.loads(machines.ask("attempts")) == attempts
    local = machines.depthsweep("run", "pair.yaml", "--store", "alone", said="local")
    assert local.wait(400) == 0, machines.said("local")
    assert machines.digest("alone") == found
