"""What a sweep says at its end: which command tells why runs failed, at this store."""

import pytest
from planted_store import run_spec

from orchestrator.display.sweep_console import SweepConsole
from orchestrator.ledger.recovery import Action
from orchestrator.ledger.sweep_account import Plan, SweepResult
from sweeps.declaration.expand import Sweep
from sweeps.store.store import Store

RUN = run_spec("gpt2")
SWEEP = Sweep("toy", "", "name: toy\n", (RUN,))


@pytest.mark.parametrize(
    ("place", "option"), [("store", ""), ("my results", " --store './my results'")]
)
def test_failed_runs_are_followed_by_the_commands_that_say_why(
    tmp_path, monkeypatch, capsys, place, option
):
    monkeypatch.chdir(tmp_path)
    console = SweepConsole(as_json=False)
    console.planned(Plan(SWEEP, Store.at(place), [Action(RUN, "run", "new")]))
    console.ended(SweepResult("toy", 0, ended={RUN.run_id: "failed"}))
    said = capsys.readouterr().out
    assert f"`depthsweep status toy{option}`" in said
    assert f"`depthsweep logs ID{option}`" in said


def test_a_sweep_without_failures_says_nothing_of_them(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    console = SweepConsole(as_json=False)
    console.planned(Plan(SWEEP, Store.at("store"), []))
    console.ended(SweepResult("toy", 0, ended={RUN.run_id: "finished"}))
    assert "depthsweep logs" not in capsys.readouterr().out
