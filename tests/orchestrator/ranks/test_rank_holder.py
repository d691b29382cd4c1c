"""What the holder of a bundle makes of it for its rank; Ray's answers are the test's."""

import contextlib
import time
from types import SimpleNamespace

import psutil
import pytest

from orchestrator.ranks import rank_holder
from orchestrator.ranks.rank_holder import RankHolder, Seat
from workers.ranks.rank_process import Broken, Job

NAMES = ["CUDA_VISIBLE_DEVICES", "LOCAL_RANK"]


@pytest.fixture
def holder(light_server, monkeypatch):
    """Return a function that makes the holder of a bundle with some GPUs."""
    assert light_server
    made = []

    def holder(*devices, **how):
        context = SimpleNamespace(
            get_accelerator_ids=lambda: {"GPU": list(devices)},
            get_node_id=lambda: "node",
            get_job_id=lambda: "job",
        )
        ray = SimpleNamespace(
            get_runtime_context=lambda: context,
            util=SimpleNamespace(get_node_ip_address=lambda: "10.0.0.7"),
        )
        monkeypatch.setattr(rank_holder, "ray", ray)
        made.append(RankHolder(**how))
        return made[-1]

    yield holder
    for one in made:
        one.end()


def job(body, names=(), environment=None, **details):
    details = {"names": list(names), **details}
    return Job("", "", 1, environment or {}, f"tests.rank_bodies:{body}", details)


def told(holder, *names, environment=None):
    """Return what the environment of a rank says."""
    ended = holder.run(job("tell_about_it", names, environment))
    return ended.status.split(" ")[1:]


def test_it_says_where_it_is(holder):
    assert holder("3", "5").where() == Seat("node", "10.0.0.7", ("3", "5"))


def test_a_rank_sees_the_gpu_of_its_bundle_and_counts_among_what_it_sees(holder, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2,3")
    assert told(holder("3"), *NAMES, environment={"LOCAL_RANK": "2"}) == ["3", "0"]


def test_a_rank_without_a_gpu_sees_none_and_counts_on_its_node(holder, monkeypatch):
    """As where a user hides the GPUs of a machine, and runs go to its CPUs."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    assert told(holder(), *NAMES, environment={"LOCAL_RANK": "2"}) == ["", "2"]


def test_where_cuda_refuses_after_a_fork_the_rank_is_started_from_nothing(holder):
    one = holder()
    assert one.run(job("refuse_a_fork")).status == "finished"
    assert one.run(job("refuse_a_fork")).status == "finished"


@pytest.mark.parametrize(("fresh", "same"), [(False, True), (True, False)])
def test_a_process_that_rests_serves_the_next_run_unless_that_asks_for_a_fresh_one(
    holder, fresh, same
):
    one = holder(fresh=fresh)
    found = []
    for _ in range(2):
        found.append(one.run(job("tell_about_it")))
        one.rest()
    assert (found[0] == found[1]) == same


def test_a_process_that_broke_does_not_serve_another_run(holder):
    one = holder(fresh=False)
    broken = one.run(job("fail", error="ValueError", text="so it was"))
    assert broken == Broken("error", "ValueError: so it was")
    number = one._rank.number
    one.rest()
    assert told(one) == []
    assert one._rank.number != number


def test_an_end_returns_once_the_process_is_gone_and_a_stop_before_a_start_is_nothing(
    holder, tmp_path
):
    one = holder()
    one.stop("preempted")
    one.begin(job("wait_for_file", file=str(tmp_path / "never")))
    until = time.monotonic() + 20
    while not one.latest.step:
        assert time.monotonic() < until
        assert one.listen(0.1) is None
    number = one._rank.number
    one.end()
    with contextlib.suppress(psutil.NoSuchProcess):  # reaped by its server, now or in a moment
        assert psutil.Process(number).status() == "zombie"
    one.end()
