"""Slots as they are handed from run to run; Ray's calls are recorded, not made."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.tuning import reservations as module
from orchestrator.tuning.reservations import IDLE_SECONDS, Reservations

A0, A1, A2, B0 = ("a", 0), ("a", 1), ("a", 2), ("b", 0)


class Cluster:
    """A clock, and the groups that were made and removed."""

    def __init__(self):
        self.now = 100.0
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
    return Reservations({"CPU": 4, "GPU": 1}, lambda: cluster.now)


def told(slots):
    return [(slot.node, slot.group, slot.bundle) for slot in slots]


def test_a_run_gets_a_slot_a_rank_all_of_them_or_none(reservations, cluster):
    assert told(reservations.take("r", [A0, A1, B0])) == [("a", 1, 0), ("a", 1, 1), ("b", 1, 2)]
    assert cluster.made == [([{"CPU": 4, "GPU": 1}] * 3, ["a", "a", "b"])]


def test_slots_say_whether_they_have_a_gpu(cluster):
    (slot,) = Reservations({"CPU": 1, "GPU": 0}).take("r", [A0])
    assert (slot.gpu, cluster.made) == (False, [([{"CPU": 1}], ["a"])])
    assert Reservations({"CPU": 1, "GPU": 1}).take("r", [A0])[0].gpu


def test_runs_of_any_size_use_the_slots_that_are_there(reservations, cluster):
    reservations.take("pair", [A0, A1])
    reservations.give_back("pair")
    share = reservations.take("share", [A1])
    assert share == reservations.take("another share", [A1])
    assert told(reservations.take("one", [A0])) == [("a", 1, 0)]
    assert (len(cluster.made), cluster.removed) == (1, [])


def test_what_is_missing_is_asked_for_with_what_nobody_uses(reservations, cluster):
    """Two sweeps, each with half of what a gang needs, would wait for each other."""
    reservations.take("r", [A0])
    reservations.give_back("r")
    assert told(reservations.take("gang", [A0, A1])) == [("a", 2, 0), ("a", 2, 1)]
    assert cluster.removed == [1]


def test_a_group_that_is_used_beside_stays(reservations, cluster):
    reservations.take("pair", [A0, A1])
    reservations.give_back("pair")
    reservations.take("one", [A0])
    assert told(reservations.take("gang", [A1, A2])) == [("a", 1, 1), ("a", 2, 0)]
    assert cluster.removed == []


def test_what_nobody_uses_goes_back_to_the_cluster(reservations, cluster):
    reservations.take("r", [A0])
    reservations.take("s", [B0])
    reservations.give_back("r")
    reservations.tidy()
    assert cluster.removed == []
    cluster.now += IDLE_SECONDS + 0.1
    reservations.tidy()
    assert cluster.removed == [1]


def test_a_node_that_left_is_not_counted_on(reservations, cluster):
    reservations.take("gang", [A0, B0])
    reservations.forget("a")
    reservations.tidy()
    assert cluster.removed == []
    reservations.give_back("gang")
    reservations.tidy()
    assert cluster.removed == [1]
    assert told(reservations.take("r", [A0])) == [("a", 2, 0)]


def test_a_slot_asked_for_together_with_one_of_a_node_that_left_is_asked_for_anew(
    reservations, cluster
):
    """Ray counts a group that has lost one bundle as not there."""
    reservations.take("gang", [A0, B0])
    reservations.give_back("gang")
    reservations.take("s", [B0])
    reservations.forget("a")
    assert told(reservations.take("next on it", [B0])) == [("b", 2, 0)]
    reservations.tidy()
    assert cluster.removed == []
    reservations.give_back("s")
    reservations.tidy()
    assert cluster.removed == [1]


def test_closing_gives_everything_back(reservations, cluster):
    reservations.take("r", [A0])
    reservations.take("s", [A1, B0])
    reservations.give_back("r")
    reservations.close()
    assert sorted(cluster.removed) == [1, 2]


PLACES = [(node, index) for node in "ab" for index in range(3)]
TAKES = st.lists(st.sampled_from(PLACES), min_size=1, max_size=4, unique=True)


@given(st.lists(st.tuples(TAKES, st.integers(0, 3), st.booleans()), max_size=30))
def test_a_slot_that_is_in_use_is_never_removed_and_a_place_has_one_slot(steps):
    """Runs come in any order, hold whole slots, and end whenever; a node leaves now and then."""
    with pytest.MonkeyPatch.context() as patch:
        cluster = Cluster()
        patch.setattr(module.ray.util, "placement_group", cluster.placement_group)
        patch.setattr(module.ray.util, "remove_placement_group", cluster.removed.append)
        reservations = Reservations({"CPU": 1}, lambda: cluster.now)
        used = {}
        for number, (places, ends, leaves) in enumerate(steps):
            for run in list(used)[:ends]:
                del used[run]
                reservations.give_back(run)
            cluster.now += 6.0
            reservations.tidy()
            if any(place in slots for slots in used.values() for place in places):
                continue
            slots = reservations.take(number, places)
            used[number] = dict(zip(places, slots, strict=True))
            if leaves:
                reservations.forget("b")
                for slots in used.values():
                    for place in [place for place in slots if place[0] == "b"]:
                        del slots[place]
            held = [(s.group, s.bundle) for slots in used.values() for s in slots.values()]
            assert len(held) == len(set(held))
            assert not {group for group, _ in held} & set(cluster.removed)
