"""Which nodes are in doubt; hosts are objects of the test, and Ray's calls are answered by it."""

import pytest
from ray.exceptions import ActorDiedError

from orchestrator.ranks import rank_hosts as module
from orchestrator.ranks.rank_hosts import DOUBT_SECONDS, RankHosts


class Host:
    """Answers what the test lays down: "nothing" yet, an error, or "here"."""

    def __init__(self):
        self.answer = "nothing"
        self.asked = 0
        self.ready = self

    def remote(self):
        self.asked += 1
        return self


@pytest.fixture
def clock(monkeypatch):
    clock = type("Clock", (), {"now": 0.0})()

    def get(host):
        if host.answer != "here":
            raise host.answer
        return host.answer

    def wait(hosts, timeout):
        assert timeout == 0
        done = [host for host in hosts if host.answer != "nothing"]
        return done, [host for host in hosts if host not in done]

    monkeypatch.setattr(module.ray, "get", get)
    monkeypatch.setattr(module.ray, "wait", wait)
    monkeypatch.setattr(module.time, "monotonic", lambda: clock.now)
    return clock


@pytest.fixture
def hosts(clock):  # noqa: ARG001, answers in Ray's place
    hosts = RankHosts()
    hosts._hosts = {"a": Host(), "b": Host()}
    return hosts


def test_a_node_is_in_doubt_from_a_loss_to_its_answer(hosts):
    hosts.doubt(["a"])
    assert (hosts.doubted("a"), hosts.doubted("b")) == (True, False)
    hosts._hosts["a"].answer = "here"
    assert not hosts.doubted("a")
    hosts._hosts["a"].answer = "nothing"
    assert not hosts.doubted("a")


def test_one_whose_host_has_died_is_asked_again(hosts):
    hosts.doubt(["a"])
    hosts._hosts["a"].answer = ActorDiedError()
    assert hosts.doubted("a")
    assert hosts._hosts["a"].asked == 2
    hosts._hosts["a"].answer = "here"
    assert not hosts.doubted("a")


def test_a_node_that_has_left_or_is_silent_for_long_is_not_in_doubt(hosts, clock):
    hosts.doubt(["a", "b", "unknown"])
    del hosts._hosts["a"]
    assert (hosts.doubted("a"), hosts.doubted("unknown")) == (False, False)
    clock.now = DOUBT_SECONDS - 1
    hosts.doubt(["b"])  # a further loss there
    assert hosts.doubted("b")
    clock.now = DOUBT_SECONDS
    assert not hosts.doubted("b")
