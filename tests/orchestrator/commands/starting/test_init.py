"""``init``: a first sweep file that plans as it stands."""

import json
import os

import numpy as np
import pytest
from click.testing import CliRunner
from safetensors.numpy import save_file
from transformers import BartConfig, MT5Config, T5Config

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


def saved(folder, positions):
    """Make a folder that plans as a GPT-2 of so many positions, whose weights nobody loads."""
    os.mkdir(folder)
    config = {"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"], "vocab_size": 8}
    config |= {"n_embd": 4, "n_layer": 2, "n_head": 1, "n_positions": positions}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "tokenizer.json").write_text("{}")
    save_file({"wte.weight": np.zeros((8, 4), np.float32)}, folder / "model.safetensors")


@pytest.mark.parametrize(
    ("positions", "length", "probed"), [((40, 100), 40, 40), ((96, 512), 96, 64)]
)
def test_sequences_are_as_long_as_the_shortest_model_reads(here, positions, length, probed):
    saved(here / "one", positions[0])
    saved(here / "two", positions[1])
    init("--model", "./one", "--model", "./two", "--data", "builtin:python-docs")
    run = read_sweep(here / "study.yaml").runs[0]
    assert (run.sequence_length, run.probe.sequence_length) == (length, probed)


@pytest.mark.parametrize(
    ("config", "tokens"),
    [
        (T5Config, ["<extra_id_0>"]),
        (MT5Config, ["<extra_id_0>"]),
        (BartConfig, []),
    ],
)
def test_an_encoder_decoder_is_trained_on_what_it_was_pretrained_with(here, config, tokens):
    folder = here / "both"
    config(d_model=8, vocab_size=64).save_pretrained(folder)
    added = [{"id": number, "content": token} for number, token in enumerate(tokens)]
    (folder / "tokenizer.json").write_text(json.dumps({"added_tokens": added}))
    (folder / "tokenizer_config.json").write_text("{}" if tokens else '{"mask_token": "<mask>"}')
    save_file({"shared.weight": np.zeros((64, 8), np.float32)}, folder / "model.safetensors")
    init("--model", "./both", "--model", "gpt2", "--data", "builtin:python-docs")
    runs = read_sweep(here / "study.yaml").runs
    kinds = {(run.model.name, run.objective.kind) for run in runs}
    assert kinds == {("both", "span_corruption"), ("gpt2", "clm")}


@pytest.mark.parametrize("word", ["1e3", "true", "on", "123", "0x1f", "2026-11-26", "null"])
def test_names_that_yaml_would_take_for_something_else_are_names(here, word):
    saved(here / word, 64)
    init("--model", f"./{word}", "--model", "standin:gpt2", "--data", "builtin:python-docs")
    runs = read_sweep(here / "study.yaml").runs
    assert {run.model.name for run in runs} == {word, "tiny-gpt2"}
    init("--model", "standin:gpt2", "--data", "builtin:python-docs", "-o", f"{word}.yaml")
    assert read_sweep(here / f"{word}.yaml").name == word


def test_the_commands_that_are_printed_can_be_pasted(here):
    text = init("--model", "standin:gpt2", "--data", "builtin:python-docs", "-o", "my first.yaml")
    assert "depthsweep plan 'my first.yaml'" in text
    assert "depthsweep run 'my first.yaml'" in text
    assert "depthsweep plan 'my first.yaml'" in (here / "my first.yaml").read_text()


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


def test_what_it_writes_can_be_tried_in_few_steps(tmp_path, monkeypatch):
    """`--set steps=10` is what a first try is: no other setting stands against it."""
    monkeypatch.chdir(tmp_path)
    init("--model", "standin:gpt2", "--data", "builtin:python-docs", "-o", "mine.yaml")
    words = ["run", "mine.yaml", "--set", "steps=10", "--limit", "1", "--dry-run"]
    result = CliRunner().invoke(cli, words)
    assert result.exit_code == 0, result.output
    assert "1  new" in result.output
