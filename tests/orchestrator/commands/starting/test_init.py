"""``init``: a first sweep file that plans as it stands."""

import os

import pytest
from click.testing import CliRunner

from orchestrator.cli import cli
from sweeps.declaration.expand import read_sweep
from sweeps.errors import UserError


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ratings.csv").write_text("what was said,stars\nvery good,1\nbad,0\n")
    return tmp_path


def init(*words):
    result = CliRunner().invoke(cli, ["init", *words], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_stand_ins_on_a_builtin_corpus_are_compared_under_two_controls_at_three_seeds(here):
    words = ["--model", "standin:gpt2", "--model", "standin:gpt_neox"]
    text = init(*words, "--data", "builtin:python-docs", "-o", "sub study.yaml")
    runs = read_sweep(here / "sub study.yaml").runs
    assert {(run.model.name, run.objective.kind) for run in runs} == {
        ("tiny-gpt2", "clm"),
        ("tiny-gpt-neox", "clm"),
    }
    assert {run.control.kind for run in runs} == {"standard", "equal_step"}
    assert {run.seed for run in runs} == {0, 1, 2}
    assert "12 runs of sweep sub-study" in text


def test_a_file_of_ones_own_is_named_as_it_lies_seen_from_the_sweep(here):
    os.mkdir(here / "studies")
    columns = ["--column", "text=what was said", "--column", "label=stars"]
    words = ["--model", "gpt2", "--data", "ratings.csv", "--objective", "classification"]
    init(*words, *columns, "--labels", "2", "--name", "mine", "-o", "studies/first.yaml")
    run, *_ = read_sweep("studies/first.yaml").runs
    assert run.objective.data.columns == {"text": "what was said", "label": "stars"}
    assert run.probe.data.columns == {"text": "what was said"}
    assert run.objective.labels == 2
    init(*words, *columns, "-o", "beside.yaml")
    assert "file: ./ratings.csv" in (here / "beside.yaml").read_text()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--data", "ratings.csv"], "needs --model"),
        (["--model", "gpt3", "--data", "ratings.csv"], "did you mean 'gpt2'"),
        (["--model", "gpt2", "--data", "rating.csv"], "--data rating.csv: no file"),
        (["--model", "gpt2", "--data", "ratings.csv"], "has no column 'text'"),
        (["--model", "gpt2", "--data", "ratings.csv", "--objective", "clsification"], "did you"),
        (["--model", "gpt2", "--data", "ratings.csv", "--column", "txt=a"], "--column txt"),
    ],
)
def test_what_cannot_be_a_sweep_is_refused_and_leaves_no_file(here, words, told):
    with pytest.raises(UserError) as refused:
        init(*words)
    assert told in str(refused.value)
    assert not (here / "study.yaml").exists()


def test_a_file_that_is_there_is_not_written_over(here):
    (here / "study.yaml").write_text("mine")
    with pytest.raises(UserError, match="is there already"):
        init("--model", "gpt2", "--data", "builtin:python-docs")
    assert (here / "study.yaml").read_text() == "mine"
