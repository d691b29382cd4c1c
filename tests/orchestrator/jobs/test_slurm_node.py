"""A node of a Slurm job, with a process that sleeps for its Ray: what it passes on, what it ends.

With Slurm and Ray themselves: ``tests/integration/clusters/test_slurm.py``.
"""

import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager, suppress

import psutil
import pytest

# In a process of its own: a node adopts and ends whatever is below it.
NODE = """
import subprocess, sys
from orchestrator.jobs import slurm_node

body = sys.argv.pop(1)

def ray(first, host, port, cpus, gpus, scratch):
    print("ray", flush=True)
    return subprocess.Popen([sys.executable, "-c", body])

slurm_node._start_ray = ray
slurm_node._nodes = lambda address: 1
slurm_node.START_SECONDS = 5.0
sys.exit(slurm_node.main(sys.argv[1:]))
"""
STAYS = "import time; time.sleep(600)"
# SIGTERM does nothing to it, as it was blocked when it was started.
SAYS_SO = """
import signal
blocked = signal.pthread_sigmask(signal.SIG_BLOCK, [])
import os, time
# In one piece: the driver writes to the same pipe.
os.write(1, b"blocked\\n" if signal.SIGTERM in blocked else b"open\\n")
time.sleep(600)
"""
DRIVER = """
import os, signal, subprocess, sys, time
def told(*_):
    print("told", flush=True)
    sys.exit({ends})
signal.signal(signal.SIGTERM, told)
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
os.write(1, ("drives " + os.environ["RAY_ADDRESS"] + "\\n").encode())
{does}
"""


@pytest.fixture
def node():
    """Return ``node(command, …)``, which starts one; it and what it started are ended."""
    started = []

    def start(command, ray=STAYS, nodes=1, rank=0, job=1):
        environment = {
            "SLURM_PROCID": str(rank),
            "SLURM_JOB_ID": str(job),
            "SLURM_LAUNCH_NODE_IPADDR": "127.0.0.1",
        }
        given = ["--nodes", str(nodes), "--cpus", "1", "--gpus", "0", "--notice", "5", "--"]
        words = [sys.executable, "-c", NODE, ray, *given, sys.executable, "-c", command]
        process = subprocess.Popen(
            words,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, **environment},
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()


@contextmanager
def a_head():
    """Listen as the Ray of a job's head does, and yield the job's number."""
    for job in range(os.getpid() % 10_000, 20_000):
        with suppress(OSError), socket.create_server(("127.0.0.1", 20_000 + job)):
            yield job
            return


def await_line(process, begins):
    for line in process.stdout:
        if line.startswith(begins):
            return line.strip()
    raise AssertionError(f"{begins} was not said")


def test_a_node_ends_as_its_driver_and_leaves_nothing_behind(node):
    process = node(DRIVER.format(ends=0, does="time.sleep(1); sys.exit(3)"), job=20_123)
    assert await_line(process, "drives") == "drives 127.0.0.1:20123"
    below = psutil.Process(process.pid).children(recursive=True)
    assert len(below) >= 3  # Ray's, the driver, and what it started in a session of its own
    assert process.wait(60) == 3
    psutil.wait_procs(below, timeout=10)
    assert not any(one.is_running() for one in below)


@pytest.mark.parametrize(
    ("ends", "becomes"),
    [(143, 143), (0, 0), (1, 143), (2, 2)],
    ids=["checkpointed", "was done", "broke under it", "a mistake of the user's"],
)
def test_a_notice_is_passed_on_once_and_the_job_is_to_go_on_unless_it_was_done(node, ends, becomes):
    process = node(DRIVER.format(ends=ends, does="time.sleep(600)"), ray=SAYS_SO)
    # Either may be the first.
    said = [await_line(process, ("blocked", "open", "drives")) for _ in range(2)]
    assert sorted(line.split()[0] for line in said) == ["blocked", "drives"]
    process.send_signal(signal.SIGTERM)
    said = process.communicate(timeout=60)[0]
    assert process.returncode == becomes
    assert said.count("told") == 1
    assert "Slurm gives notice; runs checkpoint" in said


def test_a_head_whose_nodes_do_not_come_says_how_many_did(node):
    process = node(DRIVER.format(ends=0, does=""), nodes=2)
    said = process.communicate(timeout=60)[0]
    assert process.returncode == 1
    assert "1 of 2 nodes have a Ray" in said
    assert "drives" not in said


def test_another_node_leaves_once_the_head_has(node):
    with a_head() as job:
        process = node("", rank=1, nodes=2, job=job)
        await_line(process, "ray")
        time.sleep(1)
        process.send_signal(signal.SIGTERM)  # a notice is the head's to answer
        time.sleep(1)
        assert process.poll() is None
    assert process.wait(60) == 0


def test_a_node_whose_own_ray_ends_says_so(node):
    with a_head() as job:
        process = node("", ray="raise SystemExit(7)", rank=1, nodes=2, job=job)
        said = process.communicate(timeout=60)[0]
    assert process.returncode == 1
    assert "has ended: 7" in said
