"""``plan NAME``: what would happen to each run of a sweep the store knows."""

import json

import pytest

from orchestrator.cli import cli
from sweeps.declaration.expand import read_sweep
from sweeps.errors import UserError
from sweeps.files.whole_files import write_json
from sweeps.store.store import Store

SWEEP = read_sweep("sweeps/library/demo.yaml")
IDS = [run.run_id for run in SWEEP.runs]


@pytest.fixture
def location(tmp_path):
    """2 finished, 1 diverged, 8 lost (7 with checkpoints), 13 new."""
    store = Store(tmp_path / "store")
    store.save_sweep(SWEEP)
    for run_id, status in zip(IDS, ("finished", "finished", "diverged"), strict=False):
        done = {"status": status, "step": 60, "parts": {}}
        write_json(store.run(run_id).path / "DONE.json", done)
    for k, run_id in enumerate(IDS[3:11]):
        folder = store.run(run_id)
        write_json(folder.attempt_path(1), {"cause": "lost"})
        if k:
            write_json(folder.checkpoint_path(10 * k) / "manifest.json", {})
    return str(store.root)


def plan(*arguments):
    return cli.main(["plan", *arguments], standalone_mode=False)


def test_actions_are_grouped_with_their_reasons_and_a_few_runs_named(location, capsys):
    plan("demo", "--store", location)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"demo: {len(IDS)} runs in {location}"
    assert [line.split("  ")[0] for line in lines[1:3]] == ["skip", "skip"]
    said = [" ".join(line.split()) for line in lines[1:]]
    assert said[0] == "skip 2 finished"
    assert said[1] == "skip 1 diverged"
    assert said[2] == "run 8 lost, continues from steps 0 to 70"
    assert said[4].startswith(f"{IDS[4]} from step 10 ")
    assert said[8] == "and 3 more; --json names every run"
    assert said[9] == f"run {len(IDS) - 11} new"
    assert max(map(len, lines[1:])) <= 80


def test_as_json_every_run_has_its_action_and_reason(location, capsys):
    plan("demo", "--store", location, "--json")
    rows = json.loads(capsys.readouterr().out)
    measured = [one.work_id for one in SWEEP.to_measure]
    assert [row["run_id"] for row in rows] == IDS + measured
    assert rows[-1] == {"run_id": measured[-1], "action": "measure", "reason": "new"}
    assert rows[0] == {"run_id": IDS[0], "action": "skip", "reason": "finished"}
    assert rows[4]["reason"] == "lost, continues from step 10"


def test_a_dry_resume_says_the_same(location, capsys):
    plan("demo", "--store", location)
    # Between the heading and what the sweep can decide.
    planned = capsys.readouterr().out.splitlines()[1:-1]
    arguments = ["resume", "demo", "--store", location, "--dry-run"]
    cli.main(arguments, standalone_mode=False)
    assert capsys.readouterr().out.splitlines() == planned


def test_a_file_is_a_file_and_anything_else_a_name(location):
    with pytest.raises(UserError, match=r"no such sweep file, .* store .*did you mean 'demo'"):
        plan("demmo", "--store", location)
    with pytest.raises(UserError, match=r"demo\.yaml"):
        plan("demo.yaml", "--store", location)
