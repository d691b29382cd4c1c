"""What nodes say of themselves before they get a run; this Ray and its nodes are pretended."""

import time
from types import SimpleNamespace

import pytest

from orchestrator.ranks import node_probe, rank_holder, rank_starter
from orchestrator.ranks.node_probe import PROBE_SECONDS, NodeFacts, NodeProbes
from orchestrator.ranks.rank_starter import RankStarter
from sweeps.errors import UserError
from sweeps.store.store import Store


class TaskError(RuntimeError):
    """What a task has raised, as Ray has it: with pages of where."""

    def __init__(self, cause):
        super().__init__("ray::probe() (pid=1, ip=10.0.0.1)\n  File ...")
        self.cause = cause


class PretendedRay:
    """Carries out tasks when a test says so; a reference is the node's name and a number."""

    exceptions = SimpleNamespace(RayError=RuntimeError, RayTaskError=TaskError)

    def __init__(self):
        self.answers, self.asked = {}, []

    def remote(self, **_):
        def options(scheduling_strategy):
            node = scheduling_strategy.node_id

            def remote(*store):
                self.asked.append((node, *store))
                return node

            return SimpleNamespace(remote=remote)

        return lambda _: SimpleNamespace(options=options)

    def wait(self, references, timeout):
        assert timeout == 0, "nobody waits for a node"
        return [one for one in references if one in self.answers], []

    def get(self, reference):
        if isinstance(self.answers[reference], Exception):
            raise self.answers[reference]
        return self.answers[reference]


@pytest.fixture
def ray(monkeypatch):
    pretended = PretendedRay()
    monkeypatch.setattr(node_probe, "ray", pretended)
    return pretended


A, B = "a" * 56, "b" * 56


def test_each_node_is_asked_once_and_nobody_waits_for_it(ray):
    probes = NodeProbes("s3://runs", "id")
    assert probes.follow([A, B]) == []
    assert probes.follow([A, B]) == []
    assert ray.asked == [(A, "s3://runs", "id"), (B, "s3://runs", "id")]
    ray.answers[B] = (None, 80e9)
    assert probes.follow([A, B]) == [B]
    assert probes.facts == {B: NodeFacts(None, 80e9)}


def test_a_node_that_leaves_is_forgotten_and_asked_again_when_it_comes_back(ray):
    probes = NodeProbes("s3://runs", "id")
    ray.answers[A] = ("it has another store", None)
    probes.follow([A])
    probes.follow([])
    assert probes.facts == {}
    ray.answers[A] = (None, None)
    assert probes.follow([A]) == [A]
    assert probes.facts[A].wrong is None


def test_a_node_that_runs_no_task_is_wrong(ray, monkeypatch):
    probes = NodeProbes("s3://runs", "id")
    ray.answers[A] = RuntimeError("the worker died")
    probes.follow([A, B])
    assert probes.facts[A].wrong == "it runs no task: the worker died"
    later = node_probe.time.monotonic() + PROBE_SECONDS + 1
    monkeypatch.setattr(node_probe.time, "monotonic", lambda: later)
    assert set(probes.follow([A, B])) == {A, B}, "and what was wrong is asked again in a while"
    assert probes.facts[B].wrong == "it runs no task"


@pytest.mark.parametrize(
    ("raised", "said"),
    [
        (
            UserError("--store gs://x: its client is\nnot installed"),
            "--store gs://x: its client is not installed",
        ),
        (ValueError("odd"), "ValueError('odd')"),
    ],
)
def test_a_node_whose_answer_is_an_error_says_that_and_not_where(ray, raised, said):
    probes = NodeProbes("gs://x", "id")
    ray.answers[A] = TaskError(raised)
    probes.follow([A])
    assert probes.facts[A].wrong == said


@pytest.fixture
def node(monkeypatch, light_server):
    """The folder of a node's rank server; this process is on it."""
    monkeypatch.setattr(rank_holder, "key_of_this_node", lambda: "job node")
    return light_server


@pytest.mark.usefixtures("node")
def test_what_a_node_is_asked_reads_the_store_it_was_told(tmp_path):
    store = Store.at(str(tmp_path / "store"))
    store.root.mkdir()
    probe, identity = node_probe._probe(), store.identify()
    assert probe(str(store.root), identity)[0] is None
    assert "not the store" in probe(str(tmp_path / "other"), identity)[0]


@pytest.mark.usefixtures("node")
def test_a_node_that_was_asked_has_its_rank_server_ready(tmp_path, monkeypatch):
    node_probe._probe()(str(tmp_path), "id")
    monkeypatch.setattr(rank_starter, "_start_server", lambda _: pytest.fail("there is one"))
    number, connection = RankStarter("job node").start()
    connection.close()
    assert number


def test_a_node_without_what_runs_import_is_wrong_and_says_what(tmp_path, node):
    python = node / "python"
    python.write_text(python.read_text().replace("IMPORTED = ()", "IMPORTED = ('nowhere',)", 1))
    wrong, _ = node_probe._probe()(str(tmp_path), "id")
    assert "cannot import what runs need" in wrong
    assert "No module named 'nowhere'" in wrong


def test_what_a_node_lacked_may_be_there_the_next_time(node, monkeypatch):
    python = node / "python"
    sound = python.read_text()
    (node / "ends.py").write_text("raise SystemExit('first line' + chr(10) + 'x' * 9999)")
    monkeypatch.syspath_prepend(node)
    python.write_text(sound.replace("IMPORTED = ()", "IMPORTED = ('ends',)", 1))
    starter = RankStarter("job node")
    with pytest.raises(ImportError, match=r"^SystemExit: first line x+$") as wrong:
        starter.start()
    assert len(str(wrong.value)) < 1000
    python.write_text(sound)
    number, connection = started_in_a_while(starter)
    connection.close()
    assert number


def started_in_a_while(starter, seconds=30.0):
    until = time.monotonic() + seconds
    while True:
        try:
            return starter.start()
        except ImportError:
            assert time.monotonic() < until
            time.sleep(0.5)


def test_a_node_that_cannot_start_ranks_is_wrong(tmp_path, node, monkeypatch):
    (node / "python").write_text("#!/bin/sh\nexit 1\n")
    monkeypatch.setattr(rank_starter, "IMPORT_SECONDS", 0.0)
    wrong, _ = node_probe._probe()(str(tmp_path), "id")
    assert "cannot start the processes of runs" in wrong
