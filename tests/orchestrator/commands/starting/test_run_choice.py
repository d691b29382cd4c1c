"""``run`` of a part of a sweep: what is meant, what is left for later, and what is only said."""

import json

import pytest
from click.testing import CliRunner

from orchestrator.cli import cli
from orchestrator.ledger.recovery import decide, ledger_of
from orchestrator.studies import chosen_runs
from orchestrator.sweep_run import plan_sweep
from sweeps.declaration.expand import read_sweep
from sweeps.errors import UserError
from sweeps.store.store import Store


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return Store.at("store")


def planned(store, only, limit=None):
    sweep = read_sweep("demo")
    return plan_sweep(sweep, store, chosen_runs(sweep, store, only, limit))


def test_only_the_runs_for_which_all_conditions_hold_are_left_to_run(place):
    plan = planned(place, "model=tiny-gpt2,model=tiny-bert,seed=1,control!=standard")
    meant = {(run.model.name, run.control.kind, run.seed) for run in plan.to_run}
    assert meant == {("tiny-gpt2", "equal_step", 1), ("tiny-bert", "equal_step", 1)}
    assert len(plan.actions) == len(read_sweep("demo").runs)
    assert {one.run.model.name for one in plan.to_measure} == {"tiny-gpt2", "tiny-bert"}


def test_a_limit_takes_the_first_that_are_left_in_the_order_of_the_file(place):
    plan = planned(place, "seed=2", limit=3)
    expected = [run for run in read_sweep("demo").runs if run.seed == 2][:3]
    assert plan.to_run == expected
    assert {one.run.model.name for one in plan.to_measure} == {run.model.name for run in expected}


def test_without_conditions_nothing_changes(place):
    sweep = read_sweep("demo")
    plan = planned(place, None)
    assert plan.actions == decide(sweep.runs, ledger_of(place, sweep))
    assert plan.to_measure == sweep.to_measure


@pytest.mark.parametrize(
    ("only", "told"),
    [
        ("modle=tiny-gpt2", "did you mean 'model'"),
        ("model=gpt2", "no run has that; did you mean 'tiny-gpt2'"),
        ("model=tiny-gpt2,objective=mlm", "no run of demo is all of that"),
        ("seed", "write name=value"),
    ],
)
def test_conditions_that_no_run_meets_are_refused(place, only, told):
    with pytest.raises(UserError, match="--only") as refused:
        planned(place, only)
    assert told in str(refused.value)


@pytest.mark.usefixtures("place")
def test_a_dry_run_says_what_would_happen_and_leaves_no_file(tmp_path):
    words = ["run", "demo", "--dry-run", "--only", "seed=0", "--limit", "1", "--json"]
    result = CliRunner().invoke(cli, words)
    assert result.exit_code == 0, result.output
    said = json.loads(result.stdout)
    assert [one["action"] for one in said].count("run") == 1
    assert list(tmp_path.iterdir()) == []
