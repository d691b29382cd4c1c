"""Placement groups as they are handed from run to run; Ray's calls are recorded, not made."""

import pytest

from orchestrator import reservations as module
from orchestrator.reservations import IDLE_SECONDS, SETTLE_SECONDS, Reservations, Shape

ONE = Shape(("a",), 1, 1)
SHARE = Shape(("a",), 0.5, 0.5)
PAIR = Shape(("a", "b"), 1, 1)


class Cluster:
    """A clock, what is free, and the groups that were made and removed."""

    def __init__(self):
        self.now = 100.0
        self.free = {}
        self.made = []
        self.removed = []

    def placement_group(self, bundles, bundle_label_selector):
        self.made.append((bundles, [labels["ray.io/node-id"] for labels in bundle_label_selector]))
        return len(self.made)


@pytest.fixture
def cluster(monkeypatch):
    cluster = Cluster()
    monkeypatch.setattr(module.ray.util, "placement_group", cluster.placement_group)
    monkeypatch.setattr(module.ray.util, "remove_placement_group", cluster.removed.append)
    return cluster


@pytest.fixture
def reservations(cluster):
    return Reservations(lambda: cluster.now, lambda: cluster.free)


def test_a_run_holds_a_bundle_on_each_of_its_nodes(reservations, cluster):
    assert reservations.take("r", PAIR) == 1
    assert cluster.made == [([{"CPU": 1, "GPU": 1}] * 2, ["a", "b"])]
    assert reservations.take("s", Shape(("c",), 1, 0)) == 2
    assert cluster.made[1] == ([{"CPU": 1}], ["c"])


def test_the_next_run_of_the_same_shape_holds_the_same_group(reservations, cluster):
    first = reservations.take("r", ONE)
    assert reservations.take("s", ONE) != first
    reservations.give_back("r")
    assert reservations.take("t", ONE) == first
    assert cluster.removed == []


def test_another_shape_waits_until_what_was_given_back_is_free(reservations, cluster):
    first = reservations.take("r", ONE)
    reservations.give_back("r")
    cluster.free = {"a": {"CPU": 0.0, "GPU": 0.0}}
    assert reservations.take("s", SHARE) is None
    assert cluster.removed == [first]
    cluster.free = {"a": {"CPU": 0.5, "GPU": 0.5}}
    assert reservations.take("s", SHARE) == 2


def test_it_is_asked_for_in_the_end_whatever_others_have_taken(reservations, cluster):
    reservations.take("r", ONE)
    reservations.give_back("r")
    assert reservations.take("s", SHARE) is None
    cluster.now += SETTLE_SECONDS
    assert reservations.take("s", SHARE) == 2


def test_what_is_given_back_elsewhere_is_not_waited_for(reservations, cluster):
    other = reservations.take("r", Shape(("b",), 1, 1))
    reservations.give_back("r")
    assert reservations.take("s", ONE) is not None
    assert other not in cluster.removed


def test_a_group_that_lost_a_process_is_not_used_again(reservations, cluster):
    kept = reservations.take("q", ONE)
    lost = reservations.take("r", ONE)
    reservations.give_back("q")
    reservations.give_back("r", whole=False)
    assert cluster.removed == [lost]
    assert reservations.take("s", ONE) == kept


def test_what_nobody_uses_goes_back_to_the_cluster(reservations, cluster):
    group = reservations.take("r", ONE)
    reservations.give_back("r")
    reservations.tidy()
    assert cluster.removed == []
    cluster.now += IDLE_SECONDS + 0.1
    reservations.tidy()
    assert cluster.removed == [group]


def test_closing_gives_everything_back(reservations, cluster):
    held = {reservations.take("r", ONE), reservations.take("s", PAIR)}
    reservations.close()
    assert set(cluster.removed) == held
