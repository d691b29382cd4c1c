"""What is seen of a cluster, from what its nodes, its autoscaler and Ray's tables say. No Ray."""

from types import SimpleNamespace

import pytest

from orchestrator.connection.autoscaler import Growth, NodeShape
from orchestrator.ranks.node_probe import NodeFacts
from orchestrator.sizing.memory import GIB
from orchestrator.sizing.placement import Node
from orchestrator.tuning import cluster_view
from orchestrator.tuning.cluster_view import (
    FREED_SECONDS,
    MONITOR_SECONDS,
    OTHERS_SECONDS,
    POLL_SECONDS,
    OwnCluster,
    SharedCluster,
)
from sweeps.errors import UserError


class Probes:
    """Stands for the probes of nodes: what each has answered, and what was asked of them."""

    def __init__(self, *_):
        self.facts, self.followed, self.waited, self.doubted = {}, [], [], []

    def follow(self, nodes):
        self.followed.append(list(nodes))

    def wait(self, nodes):
        self.waited.append(list(nodes))

    def doubt(self, node, why):
        self.doubted.append((node, why))


class Cluster:
    """Stands for Ray: its nodes, its placement groups, an autoscaler and a clock."""

    def __init__(self):
        self.now, self.nodes, self.growth, self.groups = 0.0, [], None, []
        self.table, self.asked, self.given_back, self.looks = {}, [], [], 0
        self.on_sleep = lambda: None

    def sleep(self, seconds):
        self.now += seconds
        self.on_sleep()

    def placement_group(self, bundles, name):
        self.asked.append((bundles, name))
        return name

    def placement_group_table(self):
        self.looks += 1
        return dict(enumerate(self.table))


@pytest.fixture
def cluster(monkeypatch):
    there = Cluster()
    monkeypatch.setattr(cluster_view, "NodeProbes", Probes)
    monkeypatch.setattr(cluster_view, "growth", lambda: there.growth)
    monkeypatch.setattr(cluster_view, "nodes_by_type", lambda: {"big": 1})
    monkeypatch.setattr(cluster_view, "cluster_nodes", lambda: list(there.nodes))
    clock = SimpleNamespace(monotonic=lambda: there.now, sleep=there.sleep)
    monkeypatch.setattr(cluster_view, "time", clock)
    util = SimpleNamespace(
        placement_group=there.placement_group,
        placement_group_table=there.placement_group_table,
        remove_placement_group=there.given_back.append,
    )
    monkeypatch.setattr(cluster_view, "ray", SimpleNamespace(util=util))
    return there


def node(name, cpus=4, gpus=1, **fields):
    return Node(name, cpus, gpus, float(cpus), float(gpus), **fields)


SHAPE = NodeShape("big", 16, 8, 64 * 2**30, None, 80, 3)


def seen(view):
    return [(one.name, one.gpu_bytes) for one in view.nodes]


def test_of_ones_own_cluster_all_is_free_whoever_holds_it():
    held = Node("n", 8, 2, 1.0, 0.0)
    own = OwnCluster(lambda: [held], 24 * GIB)
    view = own.look()
    (one,) = view.nodes
    assert (one.free_cpus, one.free_gpus, one.gpu_bytes) == (8, 2, 24 * GIB)
    assert (view.wrong, list(view.to_come), view.waiting, own.group) == ({}, [], 0, "")


def test_nodes_are_those_that_answered_well_with_the_memory_of_their_gpus(cluster):
    cluster.nodes = [node("a"), node("b"), node("c"), node("head", 0, 0)]
    shared = SharedCluster("s3://b/x", "f00")
    shared._probes.facts = {"a": NodeFacts(None, 80 * GIB), "b": NodeFacts("no store", None)}
    view = shared.look()
    assert seen(view) == [("a", 80 * GIB)]
    assert view.wrong == {"b": "no store"}
    assert shared._probes.followed == [["a", "b", "c"]], (
        "nodes without CPU or GPU carry out nothing"
    )
    cluster.nodes = [node("c"), node("cpus", 4, 0)]
    shared.look()
    assert shared._probes.followed[1] == ["c", "cpus"]
    shared.doubt("c", "why")
    assert shared._probes.doubted == [("c", "why")]


def test_a_node_is_to_come_for_each_that_the_autoscaler_may_still_bring(cluster):
    shared = SharedCluster("s3://b/x", "f00")
    assert list(shared.look().to_come) == []
    cluster.growth = Growth((SHAPE,), most=9)
    shared = SharedCluster("s3://b/x", "f00")
    first, second = shared.look().to_come
    assert (first.name, second.name, first.group) == ("big 0", "big 1", "big")
    assert (first.cpus, first.gpus, first.memory) == (16, 8, 64 * 2**30)
    assert first.gpu_bytes == 80 * GIB


def pending(name, state="PENDING"):
    return {"name": name, "state": state}


def test_other_sweeps_that_wait_are_counted_once_each_and_looked_for_now_and_then(cluster):
    shared = SharedCluster("s3://b/x", "f00")
    other, third = (f"depthsweep-{letter * 8}-" for letter in "xy")
    cluster.table = [
        *(pending(f"{other}run-1"), pending(f"{other}run-2"), pending(f"{third}r", "RESCHEDULING")),
        *(pending(f"{shared.group}run-1"), pending("somebody's"), pending(f"{third}s", "CREATED")),
    ]
    assert shared.look().waiting == 2
    cluster.table = []
    cluster.now += OTHERS_SECONDS
    assert (shared.look().waiting, cluster.looks) == (2, 1)
    cluster.now += 0.1
    assert (shared.look().waiting, cluster.looks) == (0, 2)
    cluster.now += OTHERS_SECONDS
    assert (shared.look().waiting, cluster.looks) == (0, 2)


def test_two_sweeps_have_groups_of_their_own(cluster):
    one, other = (SharedCluster("s3://b/x", "f00").group for _ in range(2))
    assert one != other
    assert len(one) == len(other)
    assert cluster.asked == []


def test_a_group_is_leaving_until_its_nodes_had_time_to_say_that_it_is_removed(cluster):
    cluster.growth = Growth((SHAPE,), most=9)
    shared = SharedCluster("s3://b/x", "f00", most_gpus=2)
    cluster.table = [pending("a", "CREATED"), pending("b", "REMOVED"), pending("c", "CREATED")]
    assert shared.leaving([]) == set()
    assert shared.leaving(["a", "b"]) == {"a", "b"}
    cluster.now += FREED_SECONDS
    assert shared.leaving(["a", "b"]) == {"a"}
    cluster.table = [pending("a", "REMOVED")]
    assert shared.leaving(["a"]) == {"a"}
    cluster.now += FREED_SECONDS
    assert shared.leaving(["a"]) == set()


def test_no_place_is_waited_for_where_no_node_comes_or_as_many_as_may(cluster):
    cluster.table = [pending("a", "CREATED")]
    assert SharedCluster("s3://b/x", "f00", most_gpus=2).leaving(["a"]) == set()
    cluster.growth = Growth((SHAPE,), most=9)
    assert SharedCluster("s3://b/x", "f00").leaving(["a"]) == set()
    assert cluster.looks == 0


# ------------------------------------------------------------------------------ the first look
def test_the_first_look_waits_for_what_every_node_says(cluster):
    cluster.nodes = [node("a"), node("head", 0, 0)]
    shared = SharedCluster("s3://b/x", "f00")
    shared._probes.facts = {"a": NodeFacts(None, None)}
    said = []
    assert seen(shared.first_look(said.append)) == [("a", None)]
    assert (shared._probes.waited, said, cluster.asked) == ([["a"]], [], [])


def test_where_no_node_can_carry_out_runs_that_is_refused_with_the_reason(cluster):
    cluster.nodes = [node("0123456789abcdef")]
    shared = SharedCluster("s3://b/x", "f00")
    shared._probes.facts = {"0123456789abcdef": NodeFacts("it cannot write to the store", None)}
    with pytest.raises(UserError, match="carry out runs; 0123456789ab: it cannot write"):
        shared.first_look(lambda _: None)


@pytest.mark.parametrize(("gpus", "what"), [(8, "GPU"), (0, "CPU")])
def test_a_first_node_is_asked_for_until_it_is_there_and_given_back(cluster, gpus, what):
    cluster.growth = Growth((NodeShape("big", 16, gpus, 2**30, None, None, 3),), most=9)
    shared, said = SharedCluster("s3://b/x", "f00"), []
    cluster.on_sleep = lambda: cluster.nodes.append(node("a")) if cluster.now >= 30 else None
    shared.first_look(said.append)
    assert said == [f"waiting: the cluster has no {what} yet; a node was asked for"]
    name = f"{shared.group}first-node"
    assert cluster.asked == [([{"GPU": 1.0, "CPU": 1.0} if gpus else {"CPU": 1.0}], name)]
    assert cluster.given_back == [name]
    assert cluster.now == 30
    assert shared._probes.waited == [["a"]]


def test_an_autoscaler_that_is_late_is_waited_for_a_while(cluster):
    shared, said = SharedCluster("s3://b/x", "f00"), []

    def happens():
        if cluster.now >= 5:
            cluster.growth = Growth((SHAPE,), most=9)
        if cluster.now >= 40:
            cluster.nodes = [node("a")]

    cluster.on_sleep = happens
    shared.first_look(said.append)
    assert len(said) == 1
    assert len(shared.look().to_come) == 2


def test_without_nodes_and_what_brings_them_it_is_refused_or_waited_for_by_wish(cluster):
    with pytest.raises(UserError, match="neither a GPU nor a CPU, and nothing that brings nodes"):
        SharedCluster("s3://b/x", "f00").first_look(lambda _: None)
    assert MONITOR_SECONDS <= cluster.now < MONITOR_SECONDS + 2 * POLL_SECONDS
    assert cluster.asked == []
    cluster.on_sleep = lambda: cluster.nodes.append(node("a")) if cluster.now >= 60 else None
    SharedCluster("s3://b/x", "f00", most_gpus=4).first_look(lambda _: None)
    assert [bundles for bundles, _ in cluster.asked] == [[{"GPU": 1.0, "CPU": 1.0}]]


def test_what_was_asked_for_is_given_back_where_the_wait_is_broken_off(cluster):
    cluster.growth = Growth((SHAPE,), most=9)
    shared = SharedCluster("s3://b/x", "f00")

    def broken_off():
        raise KeyboardInterrupt

    cluster.on_sleep = broken_off
    with pytest.raises(KeyboardInterrupt):
        shared.first_look(lambda _: None)
    assert cluster.given_back == [f"{shared.group}first-node"]
