"""The host of a node's rank processes as a plain object: real processes, no Ray."""

import asyncio
import os
import signal
import socket

import pytest

from orchestrator.ranks import rank_host as module
from orchestrator.ranks.rank_host import RankHost
from sweeps.errors import UserError
from sweeps.store.attempt import Superseded
from workers.progress import Progress
from workers.ranks.rank_process import Job


def job(body, **details):
    return Job("", "", 1, body=f"tests.rank_bodies:{body}", details=details)


def hosted(scenario):
    """Carry out ``scenario(host)``, then leave none of the host's processes."""

    async def carried_out():
        host = RankHost()
        try:
            return await asyncio.wait_for(scenario(host), 60)
        finally:
            for process in [*host._busy.values(), *host._idle]:
                process.kill()
            host._starter.close()

    return asyncio.run(carried_out())


async def running(host, run_id, rank=0):
    """Wait until a rank has got somewhere."""
    while (await host.latest(run_id, rank)).step < 2:
        await asyncio.sleep(0.02)


async def struck(host, by, fresh):
    """Send a signal to the process of a run that is under way; return how the run ends."""
    end = asyncio.ensure_future(host.run("a", 0, job("wait_for_file", file="/none"), fresh))
    await running(host, "a")
    os.kill(host._busy["a", 0].number, by)
    return await end


def test_a_process_carries_out_run_after_run_and_a_fresh_one_only_one():
    async def scenario(host):
        found = {}
        for name, fresh in (("a", False), ("b", False), ("c", True), ("d", True), ("e", False)):
            end = await host.run(name, 0, job("tell_about_it"), fresh)
            await host.end(name)
            found[name] = int(end.status)
        return found

    found = hosted(scenario)
    assert found["a"] == found["b"] == found["e"]
    assert len({found["a"], found["c"], found["d"]}) == 3


def test_a_process_has_the_environment_of_its_job():
    async def scenario(host):
        told = Job("", "", 1, {"RANK": "3"}, "tests.rank_bodies:tell_about_it", {"names": ["RANK"]})
        return await host.run("a", 3, told, True)

    assert hosted(scenario).status.split()[1] == "3"


def test_a_fresh_process_is_gone_once_its_run_is_ended():
    async def scenario(host):
        end = await host.run("a", 0, job("tell_about_it"), True)
        await host.end("a")
        return int(end.status)

    with pytest.raises(ProcessLookupError):
        os.kill(hosted(scenario), 0)


def test_a_run_says_how_far_it_is_and_stops_when_told():
    async def scenario(host):
        end = asyncio.ensure_future(host.run("a", 0, job("wait_for_file", file="/none"), False))
        await running(host, "a")
        await host.stop("a", "preempted")
        return await end

    end = hosted(scenario)
    assert (end.status, end.step > 1) == ("preempted", True)


def test_sigterm_to_a_process_stops_its_run():
    end = hosted(lambda host: struck(host, signal.SIGTERM, False))
    assert end.status == "preempted"


@pytest.mark.parametrize(
    ("error", "what", "text"),
    [
        (UserError("no such\ncolumn"), "mistake", "UserError: no such column"),
        (Superseded("by 2"), "superseded", "Superseded: by 2"),
        (ValueError("x"), "error", "ValueError: x"),
    ],
)
def test_an_error_comes_back_by_its_kind(error, what, text):
    async def scenario(host):
        return await host.run("a", 0, job("fail", error=error), False)

    end = hosted(scenario)
    assert (end.what, end.text) == (what, text)


def test_a_run_without_a_result_is_an_error():
    async def scenario(host):
        return await host.run("a", 0, job("never_say_anything"), False)

    assert "without a result" in hosted(scenario).text


def test_a_killed_process_is_a_loss():
    end = hosted(lambda host: struck(host, signal.SIGKILL, True))
    assert (end.what, "died" in end.text) == ("lost", True)


def test_a_stopped_process_is_a_loss_after_a_silence(monkeypatch):
    monkeypatch.setattr(module, "PING_SECONDS", 0.05)
    monkeypatch.setattr(module, "SILENCE_SECONDS", 0.5)

    async def scenario(host):
        await host.run("warm", 0, job("tell_about_it"), False)
        return await struck(host, signal.SIGSTOP, False)

    end = hosted(scenario)
    assert (end.what, "did not answer" in end.text) == ("lost", True)


def test_a_new_trial_of_a_run_ends_what_the_old_one_left():
    async def scenario(host):
        old = asyncio.ensure_future(host.run("a", 0, job("wait_for_file", file="/none"), True))
        await running(host, "a")
        new = await host.run("a", 0, job("tell_about_it"), True)
        return await old, new

    old, new = hosted(scenario)
    assert (old.what, isinstance(new, Progress)) == ("lost", True)


def test_ranks_of_a_run_are_processes_side_by_side(tmp_path):
    async def scenario(host):
        file = tmp_path / "go"
        ranks = [host.run("a", rank, job("wait_for_file", file=str(file)), True) for rank in (0, 1)]
        both = asyncio.gather(*ranks)
        await running(host, "a", 0)
        await running(host, "a", 1)
        file.touch()
        return await both

    assert [end.status for end in hosted(scenario)] == ["finished"] * 2


def test_a_server_that_died_is_replaced():
    async def scenario(host):
        await host.run("a", 0, job("tell_about_it"), True)
        await host.end("a")
        host._starter.close()
        return await host.run("b", 0, job("tell_about_it"), True)

    assert hosted(scenario).status.isdigit()


def test_where_cuda_refuses_a_fork_processes_are_started_alone():
    async def scenario(host):
        ends = [await host.run(name, 0, job("refuse_a_fork"), True) for name in "ab"]
        return ends, host._starter.forks

    ends, forks = hosted(scenario)
    assert ([end.status for end in ends], forks) == (["finished"] * 2, False)


def test_a_process_whose_host_is_gone_stops_with_a_checkpoint_and_ends():
    async def scenario(host):
        end = asyncio.ensure_future(host.run("a", 0, job("wait_for_file", file="/none"), False))
        await running(host, "a")
        process = host._busy["a", 0]
        # What the kernel does to the connections of a host that was killed.
        with socket.socket(fileno=os.dup(process.connection.fileno())) as ours:
            ours.shutdown(socket.SHUT_RDWR)
        await process.gone.wait()
        return await end

    assert hosted(scenario).what == "lost"


def test_a_waiting_trial_is_given_its_run_whichever_comes_first():
    async def scenario(host):
        early = asyncio.ensure_future(host.assignment("t", 5.0))
        await asyncio.sleep(0.05)
        await host.assign("t", {"run_id": "a"})
        await host.assign("u", {"run_id": "b"})
        return await early, await host.assignment("u", 5.0), await host.assignment("v", 0.05)

    assert hosted(scenario) == ({"run_id": "a"}, {"run_id": "b"}, None)
