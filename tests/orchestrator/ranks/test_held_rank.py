"""How a supervisor tells a rank that works from one that died, fell silent or hangs."""

import os
import signal
import tempfile
import time
from pathlib import Path

import pytest

from orchestrator.ranks import held_rank
from orchestrator.ranks.held_rank import HeldRank, hangs_seconds
from orchestrator.ranks.rank_starter import RankStarter
from workers.ranks.rank_process import Broken, Job


@pytest.fixture
def held(light_server, monkeypatch):
    """Return a function that has a process of its own begin a body; pings are frequent."""
    assert light_server
    monkeypatch.setattr(held_rank, "PING_SECONDS", 0.1)
    ranks = []

    def held(body, **details):
        rank = HeldRank(*RankStarter("key").start())
        rank.begin(Job("", "", 1, body=f"tests.rank_bodies:{body}", details=details))
        ranks.append(rank)
        return rank

    yield held
    for rank in ranks:
        rank.close()
    assert list(Path(tempfile.gettempdir()).glob("depthsweep-stacks-*")) == []


def listen_until(rank, condition, seconds=20.0):
    until = time.monotonic() + seconds
    while not condition(rank):
        assert time.monotonic() < until
        rank.listen(0.1)
    return rank.ended


def has_ended(rank):
    return rank.ended is not None


def test_its_progress_is_known_and_a_stop_reaches_it(held, tmp_path):
    rank = held("write_why_it_stops", folder=str(tmp_path))
    listen_until(rank, lambda rank: rank.latest.step > 0)
    rank.stop("preempted")
    ended = listen_until(rank, has_ended)
    assert (ended.status, ended == rank.latest) == ("preempted", True)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
def test_one_that_dies_is_lost(held, tmp_path, number):
    rank = held("wait_for_file", file=str(tmp_path / "never"))
    listen_until(rank, lambda rank: rank.latest.step > 0)
    os.kill(rank.number, number)
    assert listen_until(rank, has_ended) == Broken("lost", f"process {rank.number} died")


def is_gone(number):
    try:
        return Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except FileNotFoundError:
        return True


def test_one_that_falls_silent_is_killed_and_lost(held, tmp_path, monkeypatch):
    monkeypatch.setattr(held_rank, "SILENCE_SECONDS", 0.8)
    rank = held("wait_for_file", file=str(tmp_path / "never"))
    listen_until(rank, lambda rank: rank.latest.step > 0)
    os.kill(rank.number, signal.SIGSTOP)
    ended = listen_until(rank, has_ended)
    assert ended.what == "lost"
    assert "did not answer" in ended.text
    until = time.monotonic() + 60
    while not is_gone(rank.number):
        assert time.monotonic() < until, "it was not killed"
        time.sleep(0.02)


def test_one_that_hangs_while_it_answers_is_lost_with_its_stacks(held, monkeypatch):
    monkeypatch.setenv("DEPTHSWEEP_HANGS_SECONDS", "0.5")
    monkeypatch.setattr(held_rank, "SILENCE_SECONDS", 20.0)
    ended = listen_until(held("hang"), has_ended)
    first, _, stacks = ended.text.partition("\n")
    assert (ended.what, "made no step for" in first) == ("lost", True)
    assert "wait_for_another_rank" in stacks


def test_where_its_stacks_go_is_gone_by_its_first_step_should_this_be_killed(held):
    rank = held("hang")
    listen_until(rank, lambda rank: rank.latest.step)
    assert list(Path(tempfile.gettempdir()).glob("depthsweep-stacks-*")) == []


def test_one_that_hangs_before_its_first_step_is_found_too(held, monkeypatch):
    monkeypatch.setenv("DEPTHSWEEP_HANGS_SECONDS", "0.5")
    assert listen_until(held("sleep", seconds=60), has_ended).what == "lost"


def test_before_the_first_step_there_is_an_hour_where_nothing_else_is_said(held, monkeypatch):
    monkeypatch.delenv("DEPTHSWEEP_HANGS_SECONDS", raising=False)
    monkeypatch.setattr(held_rank, "HANGS_SECONDS", 0.3)
    assert listen_until(held("sleep", seconds=1.5), has_ended).status == "finished"


def test_slow_work_that_says_that_it_gets_on_is_not_taken_for_hanging(held, monkeypatch):
    monkeypatch.setenv("DEPTHSWEEP_HANGS_SECONDS", "0.5")
    ended = listen_until(held("take_long_over_a_step", seconds=2.0), has_ended)
    assert (ended.step, ended.status) == (2, "finished")


def test_long_steps_may_take_ten_times_their_median(held, monkeypatch):
    monkeypatch.setenv("DEPTHSWEEP_HANGS_SECONDS", "0.3")
    monkeypatch.setattr(held_rank, "PING_SECONDS", 60.0)
    rank = held("hang")
    listen_until(rank, lambda rank: rank.latest.step == 1)
    rank._seconds.extend([0.2] * 9)
    rank._look_whether_it_hangs(1.9)
    assert rank.ended is None
    rank._look_whether_it_hangs(2.1)
    assert rank.ended.what == "lost"


@pytest.mark.parametrize(("said", "seconds"), [("7", 7.0), ("soon", 600.0)])
def test_the_limit_is_what_the_environment_says_where_that_is_a_number(monkeypatch, said, seconds):
    monkeypatch.setenv("DEPTHSWEEP_HANGS_SECONDS", said)
    assert hangs_seconds() == seconds
