"""Admission as a plain object: no Ray is started, nodes and the clock are the test's."""

import pickle

import pytest
from ray.tune.search import Searcher

from orchestrator.policy.next_start import Waiting
from orchestrator.policy.occupancy import Demand
from orchestrator.tuning import trials
from orchestrator.tuning.admission import LOSSES_WITHOUT_PROGRESS, Admission
from orchestrator.tuning.trials import Offer


class Cluster:
    """Nodes and a clock that a test sets."""

    def __init__(self, **nodes):
        self.now = 0.0
        self.present = nodes

    def nodes(self):
        return list(self.present.items())


class Reservations:
    """All that is asked for is there."""

    def __init__(self):
        self.held = {}
        self.forgotten = []

    def take(self, run_id, places):
        self.held[run_id] = places
        return tuple(f"slot {index} of {node}" for node, index in places)

    def give_back(self, run_id):
        self.held.pop(run_id)

    def forget(self, node):
        self.forgotten.append(node)

    def tidy(self):
        pass


class Hosts:
    """What trials were told, and the nodes that do not answer."""

    def __init__(self):
        self.assigned = []
        self.asked = []
        self.silent = set()

    def assign(self, *given):
        self.assigned.append(given)

    def doubt(self, nodes):
        self.asked += nodes

    def doubted(self, node):
        return node in self.silent


@pytest.fixture(autouse=True)
def processes_start_at_once(monkeypatch):
    monkeypatch.setattr(trials, "STARTING", 99)
    monkeypatch.setattr(trials, "SPARES", 0)


def admission(runs, cluster, reservations=None, hosts=None):
    """Offers of runs {id: (gpus, seconds)}, and the list that events go to."""
    events = []
    offers = [
        Offer(
            Waiting(run_id, Demand.of(gpus), seconds),
            {"run_id": run_id},
        )
        for run_id, (gpus, seconds) in runs.items()
    ]
    return Admission(
        offers,
        cluster.nodes,
        events.append,
        reservations or Reservations(),
        hosts or Hosts(),
        lambda: cluster.now,
    ), events


def offered(offers, trial):
    answer = offers.suggest(trial)
    if isinstance(answer, dict):
        return answer["run"]["run_id"] if answer["run"] else "spare"
    return answer


def end(offers, trial, status="finished"):
    """End the run of a trial, and then the trial."""
    offers.on_trial_result(trial, {"step": 0, "status": status})
    offers.on_trial_complete(trial)


def test_runs_are_offered_longest_first_and_only_into_free_slots():
    offers, events = admission({"a": (1, 3), "b": (1, 2), "c": (1, 1)}, Cluster(n=2))
    assert [offered(offers, t) for t in "123"] == ["a", "b", None]
    end(offers, "1")
    assert offered(offers, "3") == "c"
    end(offers, "2")
    assert offered(offers, "4") is None
    end(offers, "3", "failed")
    assert offers.suggest("4") == Searcher.FINISHED
    ended = [(e.run_id, e.report["status"]) for e in events if e.kind == "ended"]
    assert ended == [("a", "finished"), ("b", "finished"), ("c", "failed")]


def test_a_lost_run_is_offered_again_before_the_others():
    offers, events = admission({"a": (1, 3), "b": (1, 9), "c": (1, 5)}, Cluster(n=1))
    assert offered(offers, "1") == "b"
    offers.on_trial_complete("1", error=True)
    assert offered(offers, "2") == "b"
    assert [e.kind for e in events] == ["started", "lost", "started"]


def test_a_run_that_is_lost_without_getting_further_is_given_up():
    offers, events = admission({"a": (1, 3)}, Cluster(n=1))
    for trial in "123":
        assert offered(offers, trial) == "a"
        offers.on_trial_complete(trial, error=True)
    assert offers.suggest("4") == Searcher.FINISHED
    assert events[-1].report["status"] == "failed"
    assert f"{LOSSES_WITHOUT_PROGRESS} times without" in events[-1].report["error"]


def test_losses_of_a_run_that_gets_further_each_time_do_not_count():
    offers, _ = admission({"a": (1, 3)}, Cluster(n=1))
    for step in range(1, 12):
        assert offered(offers, str(step)) == "a"
        offers.on_trial_result(str(step), {"step": step, "steps": 20})
        offers.on_trial_complete(str(step), error=True)
    assert offered(offers, "last") == "a"


def test_a_preempted_run_is_offered_again_however_often():
    offers, events = admission({"a": (1, 3)}, Cluster(n=1))
    for trial in "123456":
        assert offered(offers, trial) == "a"
        offers.on_trial_result(trial, {"step": 1, "status": "preempted"})
        offers.on_trial_complete(trial, error=True)
        assert events[-1].kind == "preempted"
    assert offered(offers, "last") == "a"


def test_losses_with_a_node_that_left_do_not_count_whenever_that_is_noticed():
    cluster = Cluster(n0=1)
    offers, events = admission({"a": (1, 3)}, cluster)
    for k in range(8):
        assert offered(offers, str(k)) == "a"
        # The process is missed first, the node a moment later.
        offers.on_trial_complete(str(k), error=True)
        cluster.present = {f"n{k + 1}": 1}
        cluster.now += 2
    assert offered(offers, "last") == "a"
    assert {e.kind for e in events} == {"started", "lost"}


def test_nothing_is_started_on_a_node_that_lost_a_run_and_does_not_answer(monkeypatch):
    """Ray says for a while that it is alive; a run given to it would be lost again and again."""
    monkeypatch.setattr(trials, "SPARES", 1)
    hosts = Hosts()
    offers, _ = admission({"a": (1, 9), "b": (1, 3)}, Cluster(n=1), hosts=hosts)
    assert offered(offers, "1") == "a"
    hosts.silent = {"n"}
    offers.on_trial_complete("1", error=True)
    assert hosts.asked == ["n"]
    assert offered(offers, "2") is None
    hosts.silent = set()
    assert offered(offers, "2") == "a"


def test_a_node_that_joins_is_used_and_one_that_leaves_is_not_any_more():
    cluster = Cluster(a=1)
    offers, _ = admission({str(k): (1, 9 - k) for k in range(5)}, cluster)
    assert [offered(offers, t) for t in "xy"] == ["0", None]
    cluster.present = {"a": 1, "b": 2}
    cluster.now = 1.5
    assert [offered(offers, t) for t in "yzw"] == ["1", "2", None]
    cluster.present = {"b": 2}
    cluster.now = 3.0
    assert offered(offers, "w") is None  # what ran on it holds nothing, and is still to be missed
    offers.on_trial_complete("x", error=True)
    assert offered(offers, "w") is None
    end(offers, "y")
    assert offered(offers, "w") == "0"


def test_a_gang_larger_than_a_node_is_not_asked_onto_one():
    offers, _ = admission({"wide": (3, 9), "pair": (2, 1)}, Cluster(a=2, b=2, c=2))
    slots = [offers.suggest(t)["run"]["slots"] for t in "12"]
    wide, pair = ([slot.split()[-1] for slot in one] for one in slots)
    assert len(set(wide)) == 2
    assert len(set(pair)) == 1
    assert len(wide + pair) == 5


def test_what_runs_take_corrects_what_may_overtake():
    """Estimates of ended runs were a tenth of what it took: a brief run would come too late."""
    cluster = Cluster(n=2)
    runs = {"first": (2, 50), "long": (1, 20), "wide": (2, 9), "brief": (1, 5)}
    offers, _ = admission(runs, cluster)
    assert [offered(offers, t) for t in "ab"] == ["first", None]
    cluster.now = 500.0
    end(offers, "a")
    assert offered(offers, "b") == "long"
    offers.on_trial_result("b", {"step": 0, "steps": 4})
    cluster.now = 510.0
    offers.on_trial_result("b", {"step": 1, "steps": 4})
    # It is expected to end in 30 seconds; brief takes 5 as estimated, 50 as things went.
    assert offered(offers, "c") is None


def test_36_small_runs_do_not_starve_a_whole_node_run_listed_fifth():
    runs = {f"{k:02}": (4 if k == 4 else 1, 10) for k in range(37)}
    cluster = Cluster(n=4)
    offers, _ = admission(runs, cluster)
    order, going = [], []
    for trial in range(200):
        answer = offered(offers, str(trial))
        if answer == Searcher.FINISHED:
            break
        if answer is None:
            cluster.now += 10
            end(offers, going.pop(0))
        else:
            order.append(answer)
            going.append(str(trial))
    assert sorted(order) == sorted(runs)
    assert order.index("04") + 1 <= 6


def test_a_run_has_the_slots_that_the_policy_chose_and_gives_them_back():
    reservations = Reservations()
    offers, _ = admission({"a": (2, 3)}, Cluster(n=2), reservations)
    assert offers.suggest("1")["run"]["slots"] == ("slot 0 of n", "slot 1 of n")
    assert reservations.held == {"a": [("n", 0), ("n", 1)]}
    end(offers, "1")
    assert reservations.held == {}


def test_a_trial_that_ends_before_its_run_has_begun_loses_nothing():
    offers, events = admission({"a": (1, 3)}, Cluster(n=1))
    assert offered(offers, "1") == "a"
    offers.on_trial_complete("1")
    assert offered(offers, "2") == "a"
    assert [e.kind for e in events] == ["started", "lost", "started"]


def test_no_more_processes_start_at_once_than_a_machine_bears(monkeypatch):
    monkeypatch.setattr(trials, "STARTING", 2)
    offers, _ = admission({str(k): (1, 9 - k) for k in range(4)}, Cluster(n=4))
    assert [offered(offers, t) for t in "abc"] == ["0", "1", None]
    offers.on_trial_result("a", {"step": 0})
    assert [offered(offers, t) for t in "cd"] == ["2", None]


def test_processes_of_different_nodes_do_not_wait_for_each_other(monkeypatch):
    monkeypatch.setattr(trials, "STARTING", 1)
    offers, _ = admission({str(k): (1, 9 - k) for k in range(4)}, Cluster(a=1, b=1, c=1))
    assert [offered(offers, t) for t in "1234"] == ["0", "1", "2", None]


def test_it_can_be_saved_as_tune_does():
    offers, _ = admission({"a": (1, 3)}, Cluster(n=1))
    assert len(pickle.loads(pickle.dumps(offers))._offers) == 1


def test_where_shares_may_follow_trials_are_started_ahead_and_given_their_runs(monkeypatch):
    monkeypatch.setattr(trials, "SPARES", 2)
    hosts = Hosts()
    runs = {"whole": (1, 9), "a": (0.5, 3), "b": (0.5, 2)}
    offers, events = admission(runs, Cluster(n=1), hosts=hosts)
    assert offered(offers, "1") == "whole"
    assert offered(offers, "2") is None  # one process at a time
    offers.on_trial_result("1", {"step": 0})
    assert [offered(offers, t) for t in "23"] == ["spare", None]
    offers.on_trial_result("2", {"step": 0})
    assert offered(offers, "3") is None  # two shares fit, two trials there are
    end(offers, "1")
    assert offered(offers, "3") == "b"
    ((node, trial, run),) = hosts.assigned
    assert (node, trial, run["run_id"]) == ("n", "2", "a")
    offers.on_trial_result("2", {"step": 1, "steps": 2})
    assert events[-1].run_id == "a"
    end(offers, "2")
    assert events[-1].kind == "ended"


def test_a_trial_supervises_one_run_after_another():
    hosts = Hosts()
    offers, events = admission({"a": (1, 9), "b": (1, 3)}, Cluster(n=1), hosts=hosts)
    assert offered(offers, "1") == "a"
    offers.on_trial_result("1", {"step": 3, "status": "failed"})
    assert offered(offers, "2") is None
    ((node, trial, run),) = hosts.assigned
    assert (node, trial, run["run_id"]) == ("n", "1", "b")
    offers.on_trial_result("1", {"step": 3, "status": "finished"})
    kinds = [(e.run_id, e.kind) for e in events]
    assert kinds == [("a", "started"), ("a", "ended"), ("b", "started"), ("b", "ended")]
    assert offered(offers, "2") is None
    assert hosts.assigned[1:] == [("n", "1", {})]
    offers.on_trial_complete("1")
    assert offered(offers, "2") == Searcher.FINISHED


def test_a_run_that_is_lost_late_is_not_given_to_a_trial_that_was_dismissed():
    offers, _ = admission({"a": (1, 9), "b": (1, 3)}, Cluster(n=2))
    assert [offered(offers, t) for t in "12"] == ["a", "b"]
    offers.on_trial_result("2", {"step": 3, "status": "finished"})
    assert offered(offers, "3") is None  # the second is dismissed
    offers.on_trial_complete("1", error=True)
    assert offered(offers, "3") == "a"


def test_a_spare_trial_that_no_run_came_for_is_told_so_once(monkeypatch):
    monkeypatch.setattr(trials, "SPARES", 2)
    hosts = Hosts()
    runs = {"x": (1, 9), "y": (1, 8), "late": (0.5, 3)}
    offers, _ = admission(runs, Cluster(m=1, n=1), hosts=hosts)
    on = {answer["node"]: answer["trial"] for answer in map(offers.suggest, "12")}
    for trial in "12":
        offers.on_trial_result(trial, {"step": 0})
    spare = offers.suggest("3")
    assert spare["run"] is None
    elsewhere = "n" if spare["node"] == "m" else "m"
    end(offers, on[elsewhere])
    assert offered(offers, "4") == "late"
    assert [offered(offers, "5") for _ in range(2)] == [None, None]
    assert hosts.assigned == [(spare["node"], "3", {})]
    offers.on_trial_complete("3")
    end(offers, on[spare["node"]])
    end(offers, "4")
    assert offered(offers, "5") == Searcher.FINISHED


def test_a_spare_trial_whose_process_is_lost_is_replaced(monkeypatch):
    monkeypatch.setattr(trials, "SPARES", 2)
    offers, events = admission({"whole": (1, 9), "a": (0.5, 3)}, Cluster(n=1))
    offers.suggest("1")
    offers.on_trial_result("1", {"step": 0})
    for trial in "234":
        assert offered(offers, trial) == "spare"
        offers.on_trial_complete(trial, error=True)
    assert [e.kind for e in events] == ["started", "progress"]
