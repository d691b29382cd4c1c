"""Which Ray carries a sweep: what a user reads when a cluster is not as expected."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator.connection import nodes
from orchestrator.connection.nodes import (
    AUTH_MODE,
    TOKEN,
    TOKEN_PATH,
    connected_ray,
    cpu_count,
    cpu_quota,
    gpu_count,
    own_token,
)
from sweeps.errors import UserError


def closed_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("127.0.0.1:{port}", "no Ray cluster answers at --address 127.0.0.1:"),
        ("http://127.0.0.1:{port}", "no Ray cluster answers"),
        ("ray://127.0.0.1:{port}", "cannot be driven through Ray Client"),
    ],
)
def test_no_cluster_there_is_one_line(address, said):
    address = address.format(port=closed_port())
    with pytest.raises(UserError, match=said) as refused, connected_ray(address):
        pass
    assert "\n" not in str(refused.value)


def test_other_versions_are_named(monkeypatch):
    from orchestrator.connection import nodes as connection

    def refuse(**_):
        raise RuntimeError("Version mismatch: The cluster was started with:\n    Ray: 2.1.0")

    monkeypatch.setattr(connection.ray, "init", refuse)
    monkeypatch.setattr(connection, "_require_answer", lambda _: None)
    with (
        pytest.raises(UserError, match=r"other versions than Ray .* Ray: 2\.1\.0"),
        connected_ray("a:1"),
    ):
        pass


def test_a_dead_address_in_the_environment_ends_with_exit_code_2(tmp_path):
    code = "from orchestrator.cli import main; main()"
    depthsweep = [sys.executable, "-c", code, "run", "sweeps/library/demo.yaml"]
    ended = subprocess.run(
        [*depthsweep, "--store", str(tmp_path / "store")],
        env={"PATH": "", "RAY_ADDRESS": f"127.0.0.1:{closed_port()}"},
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 2, ended.stderr
    assert ended.stderr.count("\n") == 1
    assert "RAY_ADDRESS" in ended.stderr


@pytest.mark.parametrize(
    ("said", "there", "visible"),
    [
        (None, 4, 4),
        ("", 4, 0),
        ("0,1", 4, 2),
        (" 3 , 1 ", 4, 2),
        ("-1", 4, 0),
        ("NoDevFiles", 4, 0),
        ("0,-1,1", 4, 1),
        ("1,7,2", 4, 1),
        ("2,2", 4, 1),
        ("GPU-8932f937,GPU-0f3c", 4, 2),
        ("MIG-8932f937", 4, 1),
        ("0", 0, 0),
    ],
)
def test_gpus_are_counted_as_cuda_shows_them(monkeypatch, said, there, visible):
    from ray._private.accelerators import NvidiaGPUAcceleratorManager

    monkeypatch.setattr(
        NvidiaGPUAcceleratorManager, "get_current_node_num_accelerators", lambda: there
    )
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if said is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", said)
    assert gpu_count() == visible


def test_cpus_are_those_of_the_affinity_and_the_quota(monkeypatch, tmp_path):
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(6)))
    monkeypatch.setattr(nodes, "_cpu_quotas", lambda _: iter([None, 2.5, 8.0]))
    assert cpu_count() == 3
    monkeypatch.setattr(nodes, "_cpu_quotas", lambda _: iter([None]))
    assert cpu_count() == 6
    (tmp_path / "cpu.max").write_text("150000 100000\n")
    assert cpu_quota(tmp_path) == 1.5
    (tmp_path / "cpu.max").write_text("max 100000\n")
    assert cpu_quota(tmp_path) is None
    (tmp_path / "cpu.max").unlink()
    (tmp_path / "cpu.cfs_quota_us").write_text("-1\n")
    (tmp_path / "cpu.cfs_period_us").write_text("100000\n")
    assert cpu_quota(tmp_path) is None
    assert cpu_quota(tmp_path / "none") is None


def test_an_own_ray_asks_for_a_token_that_nobody_else_can_read(monkeypatch):
    for name in (TOKEN, TOKEN_PATH, AUTH_MODE):
        monkeypatch.delenv(name, raising=False)
    with own_token():
        path = Path(os.environ[TOKEN_PATH])
        assert path.stat().st_mode & 0o777 == 0o600
        assert path.parent.stat().st_mode & 0o777 == 0o700
        assert len(path.read_text()) >= 32
    assert not path.exists()
    assert TOKEN_PATH not in os.environ


@pytest.mark.parametrize(
    ("name", "value"), [(TOKEN, "given"), (TOKEN_PATH, "/given"), (AUTH_MODE, "disabled")]
)
def test_a_token_that_the_environment_names_is_kept_to(monkeypatch, name, value):
    for each in (TOKEN, TOKEN_PATH, AUTH_MODE):
        monkeypatch.delenv(each, raising=False)
    monkeypatch.setenv(name, value)
    before = dict(os.environ)
    with own_token():
        assert dict(os.environ) == before
