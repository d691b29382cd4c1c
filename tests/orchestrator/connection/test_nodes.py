"""Which Ray carries a sweep: what a user reads when a cluster is not as expected."""

import socket
import subprocess
import sys

import pytest

from orchestrator.connection.nodes import connected_ray
from orchestrator.sizing.placement import ClusterNode, place_on, slots_of
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


def test_a_cluster_is_as_large_as_its_gpus_or_without_any_its_cpus():
    nodes = [ClusterNode("head", 4, 0), ClusterNode("a", 32, 8), ClusterNode("b", 64, 4)]
    placement = place_on(nodes)
    assert (placement.slots, placement.gpus, placement.cpus) == (12, 1, 4)
    assert slots_of(nodes, placement) == [("a", 8), ("b", 4)]
    assert slots_of(nodes, placement, 9) == [("a", 8), ("b", 1)]
    cpus = place_on([ClusterNode("a", 3, 0), ClusterNode("b", 2, 0)])
    assert (cpus.slots, cpus.gpus, cpus.threads) == (5, 0, 1)
    with pytest.raises(UserError, match="neither a GPU nor a CPU"):
        place_on([ClusterNode("head", 0, 0)])
