"""What nodes say of themselves before they get a run; this Ray and its nodes are pretended."""

from types import SimpleNamespace

import pytest

from orchestrator.ranks import node_probe
from orchestrator.ranks.node_probe import PROBE_SECONDS, NodeFacts, NodeProbes


class PretendedRay:
    """Carries out tasks when a test says so; a reference is the node's name and a number."""

    exceptions = SimpleNamespace(RayError=RuntimeError)

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


def test_what_a_node_is_asked_reads_the_store_it_was_told(tmp_path):
    from sweeps.store.store import Store

    store = Store.at(str(tmp_path / "store"))
    store.root.mkdir()
    probe, identity = node_probe._probe(), store.identify()
    assert probe(str(store.root), identity)[0] is None
    assert "not the store" in probe(str(tmp_path / "other"), identity)[0]
