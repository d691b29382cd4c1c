"""A real cluster on loopback, with a token: submit, attach, cancel, lose a node."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from sweeps.store.schema import TABLES
from sweeps.store.store import Store

DEPTHSWEEP = str(Path(sys.executable).with_name("depthsweep"))
SWEEP = """
name: trio
models:
  a: {standin: gpt2, layers: 2, width: 32, vocabulary: 400, pretrain_steps: 5}
objectives:
  clm: {data: {file: rows.jsonl}}
probe: {data: {builtin: python-docs}, rows: 32, sequence_length: 16, every: 150}
defaults: {steps: 450, batch_size: 4, sequence_length: 16, learning_rate: 1e-3,
  part_steps: 20, checkpoint_share: 1}
blocks:
  - name: all
    grid: {model: [a], objective: [clm], control: [standard], seed: [0, 1, 2]}
"""


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


@contextlib.contextmanager
def up(folder, nodes):
    """Yield the profile of a cluster that is up, with the environment in which it is known."""
    profile = folder / "local.yaml"
    profile.write_text(
        f"kind: local\nnodes: {nodes}\ncpus_per_node: 1\nport: {free_port()}\n"
        f"dashboard_port: {free_port()}\n"
    )
    environment = {**os.environ, "XDG_STATE_HOME": str(folder / "state")}
    environment.pop("RAY_ADDRESS", None)
    try:
        begun = call("cluster", "up", str(profile), cwd=folder, env=environment)
        assert begun.returncode == 0, begun.stderr
        yield profile, environment
    finally:
        down = call("cluster", "down", str(profile), cwd=folder, env=environment)
        assert down.returncode == 0, down.stderr
        state = str(folder / "state")
        # A server of ranks sees within a second or two that its node is no more.
        wait_for(lambda: not [p for p in psutil.process_iter() if state in _environment(p)], 20)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """Two nodes: as few as can lose one."""
    with up(tmp_path_factory.mktemp("c"), 2) as found:
        yield found


def _environment(process):
    try:
        return process.environ().get("RAY_AUTH_TOKEN_PATH", "")
    except psutil.Error:
        return ""


def call(*arguments, cwd, env):
    return subprocess.run(
        [DEPTHSWEEP, *arguments], capture_output=True, text=True, cwd=cwd, env=env, timeout=400
    )


def wait_for(found, seconds=200):
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        value = found()
        if value:
            return value
        time.sleep(0.1)
    raise AssertionError("it did not happen in time")


def written(folder, text=SWEEP):
    (folder / "trio.yaml").write_text(text, encoding="utf-8")
    words = ["depth", "layer", "gradient", "norm", "probe", "seed", "block", "model"]
    rows = [{"text": " ".join(words[i % 8 :] + words[: i % 5])} for i in range(400)]
    (folder / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")


def parts_of(store):
    """Return the bytes of every part of every run, by run, table and name."""
    return {
        (run.run_id, table, path.name.split(".")[0]): path.read_bytes()
        for run in Store(store).runs()
        for table in TABLES
        for path in run.parts(table)
    }


def states_of(sweep, store, **where):
    shown = call("status", sweep, "--store", str(store), "--json", **where)
    return [run["state"] for run in json.loads(shown.stdout)[sweep]]


def a_node_that_computes(store):
    """Return the raylet, other than the head's, of whose node a run is under way."""
    for run in Store(store).runs():
        newest = (run.attempts() or [{"cause": "none yet"}])[-1]
        if newest["cause"] is None and run.checkpoint_steps() and psutil.pid_exists(newest["pid"]):
            # Ranks are forked from a server in a session of its own: it knows whose node it is on.
            raylet = psutil.Process(int(psutil.Process(newest["pid"]).environ()["RAY_RAYLET_PID"]))
            if not any("--head" in word for word in raylet.parent().cmdline()):
                return raylet
    return None


def test_a_sweep_survives_a_lost_node_and_equals_one_machine(cluster, tmp_path):
    survives_a_lost_node(cluster, tmp_path, cancelled=False)


@pytest.mark.slow
def test_a_sweep_that_was_cancelled_does_so_too(tmp_path_factory, tmp_path):
    with up(tmp_path_factory.mktemp("c"), 2) as cluster:
        survives_a_lost_node(cluster, tmp_path, cancelled=True)


def survives_a_lost_node(cluster, tmp_path, cancelled):
    profile, env = cluster
    written(tmp_path)
    store = tmp_path / "store"
    submit = ["submit", "trio.yaml", "--cluster", str(profile), "--store", "store"]
    first = call(*submit, "--json", cwd=tmp_path, env=env)
    assert first.returncode == 0, first.stderr
    told = json.loads(first.stdout)
    assert (told["attempt"], told["attached"]) == (1, False)

    second = call(*submit, "--json", cwd=tmp_path, env=env)
    assert second.returncode == 0, second.stderr
    assert json.loads(second.stdout) == {**told, "attached": True}
    if cancelled:
        status = call("status", "trio", "--store", "store", cwd=tmp_path, env=env).stdout
        assert "cluster: 2 nodes, 2 CPUs, 0 GPUs" in status
        cancel(told, store, tmp_path, env)

    command = [DEPTHSWEEP, *submit, "--json"]
    second = subprocess.Popen(command, cwd=tmp_path, env=env, stdout=subprocess.PIPE, text=True)
    os.kill(wait_for(lambda: a_node_that_computes(store)).pid, signal.SIGKILL)
    assert json.loads(second.communicate(timeout=200)[0])["attempt"] == 1 + cancelled
    assert call("logs", "trio", "-f", "--store", "store", cwd=tmp_path, env=env).returncode == 0
    said = call("logs", "trio", "--store", "store", cwd=tmp_path, env=env).stdout
    assert states_of("trio", store, cwd=tmp_path, env=env) == ["finished"] * 3
    # After the cancel, or, where the run had ended by then, after the loss of the node.
    assert "continues from step" in said or "resumed from checkpoints of step" in said
    assert "lost" in said

    alone = call("run", "trio.yaml", "--store", "alone", cwd=tmp_path, env=env)
    assert alone.returncode == 0, alone.stderr
    assert parts_of(store) == parts_of(tmp_path / "alone")


def cancel(told, store, folder, env):
    """Tell a sweep to stop as soon as one run has begun: by the time the command is there, none may
    have ended that has a checkpoint to go on from."""
    wait_for(lambda: list(store.glob("runs/*/attempts/1.json")))
    stopped = call("cancel", "trio", "--store", "store", cwd=folder, env=env)
    assert stopped.returncode == 0, stopped.stderr
    assert f"{told['submission_id']} stopped" in stopped.stdout
    causes = [attempt["cause"] for run in Store(store).runs() for attempt in run.attempts()]
    assert "cancelled" in causes
    assert None not in causes
    status = call("status", "trio", "--store", "store", cwd=folder, env=env).stdout
    assert f"job {told['submission_id']}: stopped" in status


def test_what_the_cluster_refuses_is_one_line(cluster, tmp_path):
    profile, env = cluster
    written(tmp_path)
    wrong = tmp_path / "token"
    wrong.write_text("0" * 64)
    wrong.chmod(0o600)
    port = next(li for li in profile.read_text().splitlines() if li.startswith("dashboard"))
    for name, address, token, said in (
        ("dead", f"http://127.0.0.1:{free_port()}", wrong, "no Ray cluster answers at"),
        ("wrong", f"http://127.0.0.1:{port.split()[1]}", wrong, "refuses the token of"),
    ):
        static = tmp_path / f"{name}.yaml"
        static.write_text(
            f"kind: static\nhead: localhost\njobs_address: {address}\ntoken_file: {token}\n"
        )
        one_line(
            call(
                "submit",
                "trio.yaml",
                "--cluster",
                str(static),
                "--store",
                "s",
                cwd=tmp_path,
                env=env,
            ),
            said,
        )
    refused = call(
        "submit",
        "trio.yaml",
        "--cluster",
        str(profile),
        "--store",
        "/proc/store",
        cwd=tmp_path,
        env=env,
    )
    one_line(refused, "/proc/store: cannot be written")


def one_line(shown, said):
    assert shown.returncode == 2
    assert said in shown.stderr
    lines = [line for line in shown.stderr.splitlines() if line.startswith("depthsweep: ")]
    assert len(lines) == 1
    assert "Traceback" not in shown.stderr


@pytest.mark.slow
def test_the_demo_survives_a_lost_node_and_equals_one_machine(tmp_path_factory, tmp_path):
    demo = str(Path("sweeps/library/demo.yaml").absolute())
    store = tmp_path / "store"
    with up(tmp_path_factory.mktemp("c"), 3) as (profile, env):
        words = ["submit", demo, "--cluster", str(profile), "--store", str(store)]
        submitted = call(*words, cwd=tmp_path, env=env)
        assert submitted.returncode == 0, submitted.stderr
        raylet = wait_for(lambda: a_node_that_computes(store), 900)
        os.kill(raylet.pid, signal.SIGKILL)
        follow = [DEPTHSWEEP, "logs", "demo", "-f", "--store", str(store)]
        subprocess.run(follow, cwd=tmp_path, env=env, timeout=3000, check=True, capture_output=True)
        assert set(states_of("demo", store, cwd=tmp_path, env=env)) == {"finished"}
    alone = [DEPTHSWEEP, "run", demo, "--store", str(tmp_path / "alone")]
    subprocess.run(alone, cwd=tmp_path, timeout=3000, check=True, capture_output=True)
    assert parts_of(store) == parts_of(tmp_path / "alone")
