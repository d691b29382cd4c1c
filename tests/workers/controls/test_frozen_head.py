"""The head of a model whose output matrix is its embedding: what freezing it leaves out is said."""

from __future__ import annotations

import polars as pl
import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from sweeps.attempts.run_log import read_events
from sweeps.declaration.expand import read_sweep
from sweeps.spec import StandinModel
from sweeps.store.store import Store
from workers.models.standins import build_tokenizer
from workers.train import train

CPU = torch.device("cpu")
SWEEP = """
name: frozen
models: {{mine: {{folder: model, freeze: {freeze}}}}}
objectives: {{{objective}}}
probe: {{data: {{builtin: python-docs}}, rows: 16, sequence_length: 16}}
measurements: []
defaults: {{steps: 1, batch_size: 2, learning_rate: 1.0e-3, sequence_length: 12}}
blocks:
- name: all
  grid: {{model: [mine], objective: [{name}], control: [standard], seed: [0]}}
"""
CLM = "clm: {data: {builtin: python-docs}}"
PAIRS = "classification: {data: {file: rows.tsv}}"


@pytest.mark.parametrize(
    ("freeze", "tied", "objective", "said"),
    [
        ("[head]", True, CLM, True),
        ("[head]", False, CLM, False),
        ("[head, embedding]", True, CLM, False),
        ("[blocks 1]", True, CLM, False),
        # Of its own head, which is trained; the model's predicts nothing.
        ("[blocks 1, embedding]", True, PAIRS, False),
    ],
)
def test_a_head_that_is_trained_though_it_is_frozen_is_named(
    tmp_path, freeze, tied, objective, said
):
    source = StandinModel(standin="gpt2", vocabulary=300, pretraining="clm", digest="0" * 64)
    tokenizer = build_tokenizer(source)
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=len(tokenizer),
        n_positions=32,
        n_embd=16,
        n_layer=2,
        n_head=2,
        tie_word_embeddings=tied,
    )
    GPT2LMHeadModel(config).save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    (tmp_path / "rows.tsv").write_text("text\tlabel\n" + "one two\t0\nthree four\t1\n" * 4)
    path = tmp_path / "frozen.yaml"
    name = objective.partition(":")[0]
    path.write_text(SWEEP.format(freeze=freeze, objective=objective, name=name))
    (run,) = read_sweep(path).runs
    store = Store.at(str(tmp_path / "store"))
    store.identify()
    assert [one.status for one in train(run, store, CPU)][-1] == "finished"
    folder = store.run(run.run_id)
    events = [event for event in read_events(folder.log_path(1)) if "tied" in event["event"]]
    assert len(events) == said
    if said:
        assert events[0]["level"] == "warning"
        assert "unless embedding is frozen, too" in events[0]["event"]
        groups = set(pl.read_parquet(folder.parts("layers"))["group"])
        assert groups == {"embedding", "block"}
