"""Gangs of every shape on two nodes with pretended GPUs, and how they end: a real Ray of two
raylets, with trials as Tune would start them."""

import json
import logging
import os
import signal
import socket
import tempfile
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest
import ray
from ray.cluster_utils import Cluster
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from orchestrator.ranks import gang
from orchestrator.ranks.gang import free_port
from orchestrator.tuning import trainable
from orchestrator.tuning.request import Request
from sweeps.errors import UserError

# Of each node: two GPUs, two CPUs.
EACH = {"num_cpus": 2, "num_gpus": 2, "object_store_memory": 80_000_000}
NAMES = [
    *("CUDA_VISIBLE_DEVICES", "LOCAL_RANK", "RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
]


@ray.remote
class Trial:
    """The process of a trial."""

    def __init__(self, request):
        trainable.REPORT_SECONDS, gang.DEATH_SECONDS, gang.ANSWER_SECONDS = 0.2, 2.0, 3.0
        self._trial = object.__new__(trainable.RunTrainable)
        self._trial.setup(request.config({}))

    def process(self):
        return os.getpid()

    def reports(self, ports=""):
        """Go on to the run's end."""
        os.environ["DEPTHSWEEP_PORTS"] = ports or "20000-29999"
        found = []
        while not (found and found[-1]["status"]):
            found.append(self._trial.step())
        return found

    def go_on_with(self, request, ports=""):
        self._trial.reset_config(request.config({}))
        return self.reports(ports)

    def end(self):
        self._trial.cleanup()


@pytest.fixture(scope="module")
def cluster():
    patch = pytest.MonkeyPatch()
    with tempfile.TemporaryDirectory(prefix="rg", dir="/tmp") as folder:
        patch.setenv("RAY_TMPDIR", folder)
        # Ray refuses to pretend more GPUs than this leaves visible.
        patch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        cluster = Cluster(initialize_head=True, head_node_args={**EACH, "include_dashboard": False})
        cluster.add_node(**EACH)
        cluster.wait_for_nodes()
        ray.init(address=cluster.address, log_to_driver=False, logging_level=logging.ERROR)
        yield cluster
        ray.shutdown()
        cluster.shutdown()
        patch.undo()


def request_of(body, folder, holds=None, details=None, **fields):
    return Request(
        "r" * 12,
        "",
        str(folder / "store"),
        holds or {"CPU": 1.0},
        body=f"tests.rank_bodies:{body}",
        details={"folder": str(folder), **(details or {})},
        **fields,
    )


@contextmanager
def started(request):
    """Yield a trial, as Tune starts one, and end it."""
    group = request.resources()()
    trial = Trial.options(
        num_cpus=request.holds.get("CPU", 0),
        num_gpus=request.holds.get("GPU", 0),
        scheduling_strategy=PlacementGroupSchedulingStrategy(group, 0, True),
    ).remote(request)
    yield trial
    with suppress(ray.exceptions.RayError):
        ray.get(trial.end.remote(), timeout=60)
    ray.kill(trial)
    ray.util.remove_placement_group(group)


@pytest.fixture(scope="module")
def triple(cluster):
    """A trial of three ranks, whose processes begin anew with each run."""
    assert cluster
    with started(request_of("sleep", Path("/nowhere"), ranks=3, spread=True, fresh=True)) as trial:
        yield trial


@pytest.fixture
def carried_out(triple, tmp_path):
    """Return a function that has three ranks carry out a body; it returns the last report."""

    def carried_out(body, ports="", **details):
        request = request_of(body, tmp_path, details=details, ranks=3, spread=True, fresh=True)
        return ray.get(triple.go_on_with.remote(request, ports), timeout=60)[-1]

    return carried_out


def said(tmp_path):
    """Return what each rank said, in their order."""
    paths = sorted(tmp_path.glob("[0-9].json"), key=lambda path: int(path.stem))
    return [json.loads(path.read_text()) for path in paths]


SHAPES = {
    "one": ({"GPU": 1.0, "CPU": 1.0}, {}, [1]),
    "a share": ({"GPU": 0.25, "CPU": 0.25}, {}, [1]),
    "two on a node": ({"GPU": 1.0, "CPU": 1.0}, {"ranks": 2}, [2]),
    # All CPUs of a node beside one GPU leave no room for the second rank.
    "two on two nodes": ({"GPU": 1.0, "CPU": 2.0}, {"ranks": 2, "spread": True}, [1, 1]),
    "four on two nodes": ({"GPU": 1.0, "CPU": 1.0}, {"ranks": 4, "spread": True}, [2, 2]),
}


# Two ranks that share a node and two nodes are in the last one, a rank alone in the second.
@pytest.mark.parametrize(
    "shape",
    [
        pytest.param(
            name, marks=() if name in ("a share", "four on two nodes") else pytest.mark.slow
        )
        for name in SHAPES
    ],
)
def test_every_rank_finds_its_own_device_among_those_it_sees(cluster, tmp_path, shape):
    assert cluster
    holds, fields, nodes = SHAPES[shape]
    request = request_of("say_where_it_is", tmp_path, holds, {"names": NAMES}, **fields)
    with started(request) as trial:
        reports = ray.get(trial.reports.remote(), timeout=100)
    assert reports[-1]["status"] == "finished", reports[-1]
    ranks, seats = said(tmp_path), reports[0]["seats"]
    assert [rank["RANK"] for rank in ranks] == [str(number) for number in range(sum(nodes))]
    assert {rank["WORLD_SIZE"] for rank in ranks} == {str(sum(nodes))}
    assert [rank["CUDA_VISIBLE_DEVICES"] for rank in ranks] == [gpus for _, gpus in seats]
    assert {rank["LOCAL_RANK"] for rank in ranks} == {"0"}
    assert len(set(map(tuple, seats))) == len(seats)  # ranks of a node hold different GPUs
    where = [node for node, _ in seats]
    assert sorted(where.count(node) for node in set(where)) == nodes
    assert len({(rank["MASTER_ADDR"], rank["MASTER_PORT"]) for rank in ranks}) == 1
    assert bool(ranks[0]["MASTER_PORT"]) == (len(ranks) > 1)


def test_ranks_on_cpus_are_counted_on_their_node_and_see_no_gpu(carried_out, tmp_path):
    assert carried_out("say_where_it_is", names=NAMES)["status"] == "finished"
    ranks = said(tmp_path)
    assert sorted(rank["LOCAL_RANK"] for rank in ranks) == ["0", "0", "1"]
    assert {rank["CUDA_VISIBLE_DEVICES"] for rank in ranks} == {""}


def test_a_gangs_next_run_is_in_fresh_processes_of_every_rank(carried_out, tmp_path):
    """DeepSpeed keeps the model of the one before, and torch the group that its ranks had."""
    pids = []
    for _ in range(2):
        assert carried_out("say_where_it_is", names=NAMES)["status"] == "finished"
        pids += [rank["pid"] for rank in said(tmp_path)]
    assert len(set(pids)) == len(pids) == 6


@pytest.mark.parametrize(
    ("dies", "follows"),
    [("0", "1"), pytest.param("1", "0", marks=pytest.mark.slow), ("2", "0")],
)
def test_a_rank_that_dies_ends_the_run_as_lost_and_is_named(carried_out, dies, follows):
    report = carried_out("one_fails", dies=dies, raises="", follows=follows)
    assert (report["status"], report["what"], report["done"]) == ("again", "lost", False)
    assert report["error"].startswith(f"rank {dies} of 3: process ")


@pytest.mark.parametrize(
    ("raises", "follows"),
    [
        ("0", ""),
        ("1", "0"),
        pytest.param("2", "1", marks=pytest.mark.slow),
        pytest.param("0", "1", marks=pytest.mark.slow),
    ],
)
def test_a_rank_that_raises_ends_the_run_with_its_own_error(carried_out, tmp_path, raises, follows):
    report = carried_out("one_fails", dies="", raises=raises, follows=follows)
    assert (report["what"], report["error"]) == ("error", "ValueError: its own fault")
    left = [int(path.read_text()) for path in tmp_path.glob("pid-*")]
    assert len(left) == 3
    assert not any(is_there(process) for process in left)


def test_a_holder_that_does_not_answer_is_not_waited_for_and_not_used_again(
    triple, carried_out, tmp_path
):
    """As one on a node that is cut off, it ends nothing and says nothing."""
    details = {"dies": "", "raises": "", "follows": ""}
    request = request_of("one_fails", tmp_path, details=details, ranks=3, spread=True, fresh=True)
    reports = triple.go_on_with.remote(request)
    ranks = [await_number(tmp_path / f"pid-{rank}") for rank in range(3)]
    silent = holders_here()[0]
    silent.suspend()
    try:
        os.kill(ranks[0], signal.SIGKILL)
        # Not after the minute that one which answers may take.
        report = ray.get(reports, timeout=40)[-1]
        assert (report["what"], report["error"][:11]) == ("lost", "rank 0 of 3")
        assert [is_there(rank) for rank in ranks].count(True) <= 1
    finally:
        silent.resume()
    assert carried_out("say_where_it_is", names=NAMES)["status"] == "finished"
    assert not any(is_there(rank) for rank in ranks)


def holders_here():
    """Return the processes of this cluster that hold a rank other than the first."""
    found = []
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            if process.cmdline()[0].startswith("ray::RankHolder"):
                found.append(process)
    return found


def await_number(path):
    """Return the number in a file once it is there."""
    until = time.monotonic() + 60
    while not (path.exists() and path.read_text()):
        assert time.monotonic() < until
        time.sleep(0.05)
    return int(path.read_text())


def is_there(process):
    with suppress(psutil.NoSuchProcess):
        return psutil.Process(process).status() != psutil.STATUS_ZOMBIE
    return False


def test_a_taken_port_is_tried_again_with_another_one_of_the_range(carried_out, tmp_path):
    assert carried_out("refuse_its_first_port", "23100-23900", taken=2)["status"] == "finished"
    tried = (tmp_path / "ports-0").read_text().split()
    assert len(tried) == 3
    assert all(23100 <= int(port) <= 23900 for port in tried)


def test_a_range_of_ports_that_is_none_is_the_users_mistake(carried_out):
    report = carried_out("sleep", "a few", seconds=0)
    assert (report["status"], report["what"]) == ("again", "mistake")
    assert "DEPTHSWEEP_PORTS=a few: give a range such as 20000-29999" in report["error"]


def test_where_no_port_is_free_the_run_says_of_which_range(carried_out):
    with socket.socket() as taken:
        taken.bind(("", 0))
        taken.listen()
        port = taken.getsockname()[1]
        report = carried_out("sleep", f"{port}-{port}", seconds=0)
    assert report["what"] == "port"
    assert f"no port of {port}-{port} is free" in report["error"]


def test_the_ranks_of_a_killed_trial_checkpoint_and_end(cluster, tmp_path):
    assert cluster
    with started(request_of("write_why_it_stops", tmp_path)) as trial:
        supervisor = ray.get(trial.process.remote(), timeout=60)
        trial.reports.remote()
        rank = await_number(tmp_path / "pid")
        os.kill(supervisor, signal.SIGKILL)
        until = time.monotonic() + 60
        while is_there(rank):
            assert time.monotonic() < until
            time.sleep(0.05)
    assert (tmp_path / "why").read_text() == "preempted"


def test_one_run_after_another_has_the_same_process_unless_it_asks_for_a_fresh_one(
    cluster, tmp_path
):
    assert cluster
    kept, fresh = (request_of("tell_about_it", tmp_path, fresh=fresh) for fresh in (False, True))
    with started(kept) as trial:
        seen = [ray.get(trial.reports.remote(), timeout=60)[-1]["status"]]
        seen.append(ray.get(trial.go_on_with.remote(kept), timeout=60)[-1]["status"])
    assert seen[0] == seen[1]
    with started(fresh) as trial:
        seen.append(ray.get(trial.reports.remote(), timeout=60)[-1]["status"])
        seen.append(ray.get(trial.go_on_with.remote(fresh), timeout=60)[-1]["status"])
    assert len(set(seen)) == 3


@pytest.mark.parametrize("nonsense", ["", "7", "9-3", "0-5", "5-70000", "a-b", "1-2-3"])
def test_a_range_of_ports_that_is_none_is_refused(monkeypatch, nonsense):
    monkeypatch.setenv("DEPTHSWEEP_PORTS", nonsense)
    with pytest.raises(UserError, match="give a range such as"):
        free_port()


def test_ports_are_of_the_range_and_free(monkeypatch):
    monkeypatch.setenv("DEPTHSWEEP_PORTS", "23000-23050")
    with socket.socket() as free:
        free.bind(("", free_port()))
        assert 23000 <= free.getsockname()[1] <= 23050
