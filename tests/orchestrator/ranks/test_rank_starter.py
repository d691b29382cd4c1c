"""Rank processes as a supervisor asks for them: one server a node, and whom GPUs are given to."""

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest

from orchestrator.ranks import rank_starter
from orchestrator.ranks.held_rank import HeldRank
from orchestrator.ranks.rank_starter import RankStarter
from sweeps.errors import UserError
from workers.ranks.rank_process import Job

# A supervisor that is killed with its process group, as Ray does; it says who its rank is.
SUPERVISOR = """
import sys, time
from types import SimpleNamespace
from orchestrator.ranks import rank_starter
rank_starter.sys = SimpleNamespace(executable=sys.argv[1], path=sys.path)
number, connection = rank_starter.RankStarter("key").start()
print(number, flush=True)
time.sleep(100)
"""


@pytest.fixture
def started(light_server):
    """Return a function that starts a rank and gives it a body."""
    assert light_server
    held = []

    def started(starter, body, devices=(), alone=True, **details):
        rank = HeldRank(*starter.start(devices, alone))
        rank.begin(Job("", "", 1, body=f"tests.rank_bodies:{body}", details=details))
        held.append(rank)
        return rank

    yield started
    for rank in held:
        rank.kill()


def outcome(rank, seconds=20.0):
    until = time.monotonic() + seconds
    while rank.ended is None and time.monotonic() < until:
        rank.listen(0.1)
    return rank.ended


def server_of(number):
    return psutil.Process(number).ppid()


def is_alive(number):
    return psutil.pid_exists(number) and psutil.Process(number).status() != "zombie"


def wait_until(condition, seconds=20.0):
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.05)


def test_each_request_is_answered_with_a_process_of_its_own(started):
    starter = RankStarter("key")
    ranks = [started(starter, "tell_about_it") for _ in range(3)]
    told = [outcome(rank).status.strip() for rank in ranks]
    assert told == [str(rank.number) for rank in ranks]
    assert len(set(told)) == 3
    assert len({server_of(rank.number) for rank in ranks}) == 1


def test_a_process_carries_out_one_job_after_another(started):
    rank = started(RankStarter("key"), "tell_about_it")
    first = outcome(rank)
    rank.begin(Job("", "", 1, body="tests.rank_bodies:tell_about_it"))
    assert outcome(rank) == first
    assert is_alive(rank.number)


def test_two_who_start_the_server_at_once_end_with_one(started):
    starters = [RankStarter("key") for _ in range(2)]
    with ThreadPoolExecutor(2) as pool:
        ranks = list(pool.map(lambda one: started(one, "tell_about_it"), starters))
    assert len({server_of(rank.number) for rank in ranks}) == 1


def test_another_key_has_another_server(started):
    ranks = [started(RankStarter(key), "tell_about_it") for key in ("job 1 node", "job 2 node")]
    assert len({server_of(rank.number) for rank in ranks}) == 2


def test_the_server_outlives_the_process_group_of_who_started_it(started, light_server):
    command = [sys.executable, "-c", SUPERVISOR, str(light_server / "python")]
    supervisor = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, "TMPDIR": str(light_server), "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    orphan = int(supervisor.stdout.readline())
    server = server_of(orphan)
    os.killpg(supervisor.pid, signal.SIGKILL)
    supervisor.wait()
    wait_until(lambda: not is_alive(orphan))  # it had nothing to finish
    rank = started(RankStarter("key"), "tell_about_it")
    assert outcome(rank).status.strip() == str(rank.number)
    assert server_of(rank.number) == server


def test_a_server_that_is_killed_while_its_ranks_live_is_replaced_at_once(
    started, tmp_path, monkeypatch
):
    monkeypatch.setattr(rank_starter, "IMPORT_SECONDS", 12.0)
    gate = tmp_path / "gate"
    starter = RankStarter("key")
    first = started(starter, "wait_for_file", file=str(gate))
    server = server_of(first.number)
    os.kill(server, signal.SIGKILL)
    second = started(starter, "tell_about_it")
    assert outcome(second).status.strip() == str(second.number)
    assert server_of(second.number) != server
    gate.touch()
    assert outcome(first).status == "finished"


def test_a_server_that_is_about_to_be_gone_is_asked_again(started, monkeypatch):
    """A killed one takes connections for a moment, and resets them."""
    refusals = [BrokenPipeError(), ConnectionResetError(), ConnectionResetError()]
    asked = RankStarter._asked

    def dying(self, request):
        if refusals:
            raise refusals.pop()
        return asked(self, request)

    monkeypatch.setattr(RankStarter, "_asked", dying)
    rank = started(RankStarter("key"), "tell_about_it")
    assert outcome(rank).status.strip() == str(rank.number)


def test_without_a_fork_the_process_is_started_from_nothing(started):
    starter = RankStarter("key")
    forked = outcome(started(starter, "refuse_a_fork"))
    assert (forked.what, "Cannot re-initialize CUDA" in forked.text) == ("fork", True)
    starter.forks = False
    assert outcome(started(starter, "refuse_a_fork")).status == "finished"


def test_who_still_holds_a_gpu_of_ones_own_is_waited_for_then_killed(started, monkeypatch):
    monkeypatch.setattr(rank_starter, "HOLD_SECONDS", 0.7)
    orphan = started(RankStarter("key"), "sleep", ["0"], seconds=60)
    os.kill(orphan.number, signal.SIGSTOP)  # it will say nothing any more
    orphan._connection.close()  # its supervisor is gone
    began = time.monotonic()
    rank = started(RankStarter("key"), "tell_about_it", ["0", "1"])
    assert time.monotonic() - began >= 0.7
    assert not is_alive(orphan.number)
    assert outcome(rank).status.strip() == str(rank.number)


@pytest.mark.parametrize("forks", [True, False])
def test_who_says_by_when_it_will_have_put_away_a_large_model_is_given_the_time(
    started, monkeypatch, tmp_path, forks
):
    monkeypatch.setattr(rank_starter, "HOLD_SECONDS", 1.0)
    starter = RankStarter("key")
    starter.forks = forks
    orphan = started(starter, "take_long_to_stop", ["0"], seconds=4, file=str(tmp_path / "away"))
    wait_until(lambda: (tmp_path / "away").exists())
    orphan._connection.close()
    wait_until(lambda: (tmp_path / "told").exists())
    rank = started(RankStarter("key"), "tell_about_it", ["0"])
    assert (tmp_path / "away").read_text() == "in time"
    assert outcome(rank).status.strip() == str(rank.number)


def test_who_ends_by_itself_meanwhile_is_not_killed(started, monkeypatch, tmp_path):
    monkeypatch.setattr(rank_starter, "HOLD_SECONDS", 30)
    orphan = started(RankStarter("key"), "write_why_it_stops", ["0"], folder=str(tmp_path))
    wait_until(lambda: (tmp_path / "pid").exists())
    orphan._connection.close()
    rank = started(RankStarter("key"), "tell_about_it", ["0"])
    assert (tmp_path / "why").read_text() == "preempted"
    assert outcome(rank).status.strip() == str(rank.number)


@pytest.mark.parametrize(("devices", "alone"), [(["1"], True), (["0"], False), ([], True)])
def test_other_gpus_and_shares_of_one_are_not_waited_for(started, tmp_path, devices, alone):
    gate = tmp_path / "gate"
    first = started(RankStarter("key"), "wait_for_file", ["0"], alone, file=str(gate))
    started(RankStarter("key"), "tell_about_it", devices, alone)
    assert is_alive(first.number)  # not until its end, nor until it was killed


def socket_folder(folder):
    return folder / f"depthsweep-{os.getuid()}"


def test_the_socket_lies_where_nobody_else_may_enter(started, light_server):
    started(RankStarter("key"), "tell_about_it")
    assert socket_folder(light_server).stat().st_mode & 0o777 == 0o700


def open_to_others(folder):
    folder.mkdir()
    folder.chmod(0o755)


def a_link(folder):
    elsewhere = folder.with_name("elsewhere")
    elsewhere.mkdir(mode=0o700)
    folder.symlink_to(elsewhere)


@pytest.mark.parametrize("made", [open_to_others, a_link, lambda folder: folder.touch(0o600)])
def test_a_place_for_it_that_others_may_have_made_is_refused(light_server, made):
    made(socket_folder(light_server))
    with pytest.raises(UserError, match="remove it, or set TMPDIR"):
        RankStarter("key")


def test_a_folder_of_another_user_is_refused(light_server, monkeypatch):
    mine = os.getuid()
    (light_server / f"depthsweep-{mine + 1}").mkdir(mode=0o700)
    monkeypatch.setattr(os, "getuid", lambda: mine + 1)
    with pytest.raises(UserError, match="not a folder of this user's alone"):
        RankStarter("key")
