"""Which open attempts live: asked of this machine at once, of others by one watch for all."""

import pytest
from click.testing import CliRunner

from orchestrator.cli import cli
from orchestrator.ledger import recovery
from orchestrator.ledger.recovery import ledger
from sweeps.attempts import living as living_module
from sweeps.attempts.attempt import Attempt
from sweeps.files.whole_files import write_json
from sweeps.liveness.process import identity
from sweeps.store.store import Store

IDS = [f"{k:012x}" for k in range(30)]
ELSEWHERE = {"cause": None, "node": "elsewhere", "pid": 1, "boot": "another"}


@pytest.fixture(params=["folder", "s3"])
def store(request, tmp_path):
    folder = request.param == "folder"
    store = Store.at(str(tmp_path / "store") if folder else request.getfixturevalue("s3_url"))
    store.identify()
    return store


def test_all_that_is_open_in_a_store_is_watched_by_one_watch(store, monkeypatch):
    monkeypatch.setenv("DEPTHSWEEP_STALE_SECONDS", "2")
    for run_id in IDS:
        write_json(store.run(run_id).attempt_path(1), ELSEWHERE)
    measurement = store.work("propagation-0123456789ab")
    write_json(measurement.attempt_path(1), ELSEWHERE)
    watch, watches = recovery.alive_runs, []
    monkeypatch.setattr(recovery, "alive_runs", lambda runs: watch(watches.append(1) or runs))
    standing = ledger(store)
    states = {standing(work_id).state for work_id in [*IDS, measurement.run_id]}
    assert (states, len(watches)) == ({"lost"}, 1)


def test_what_runs_on_this_machine_is_known_without_watching(store, monkeypatch):
    monkeypatch.setattr(living_module.time, "sleep", lambda _: pytest.fail("it was watched"))
    gone = {**identity(), "process_started": 1, "cause": None}  # its number is another's by now
    write_json(store.run(IDS[0]).attempt_path(1), gone)
    with Attempt(store.run(IDS[1])):
        assert [ledger(store)(run_id).state for run_id in IDS[:2]] == ["lost", "running"]
    assert ledger(store)(IDS[1]).state == "cancelled"


def test_a_new_attempt_is_judged_anew(tmp_path, monkeypatch):
    store = Store(tmp_path)
    monkeypatch.setenv("DEPTHSWEEP_STALE_SECONDS", "1")
    write_json(store.run(IDS[0]).attempt_path(1), ELSEWHERE)
    standing = ledger(store)
    assert standing(IDS[0]).state == "lost"
    with Attempt(store.run(IDS[0])):
        assert standing(IDS[0]).state == "running"


def test_a_command_says_what_it_waits_for_and_a_library_does_not(store, monkeypatch, capsys):
    monkeypatch.setenv("DEPTHSWEEP_STALE_SECONDS", "1")
    monkeypatch.setattr(living_module, "NOTICE_SECONDS", 0.1)
    write_json(store.run(IDS[0]).attempt_path(1), ELSEWHERE)
    assert ledger(store)(IDS[0]).state == "lost"
    assert capsys.readouterr() == ("", "")
    said = CliRunner().invoke(cli, ["forget", IDS[0], "--store", store.location])
    assert said.exit_code == 0, said.output
    assert said.stderr == "watching an attempt's heartbeat, for 1 s at most\n"
    assert store.runs() == []


def test_a_run_that_lives_is_not_forgotten(store):
    with Attempt(store.run(IDS[0])) as mine:
        said = CliRunner().invoke(cli, ["forget", IDS[0], "--store", store.location])
        assert "is running (process" in str(said.exception)
        mine.require_ownership()
