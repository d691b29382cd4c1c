"""Runs of a decoder whose tokenizer begins texts, with its first token and without."""

import polars as pl
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from sweeps.declaration.expand import read_sweep
from sweeps.errors import UserError
from sweeps.spec import RunSpec
from sweeps.store.store import Store
from workers.loading import load_model
from workers.models.fit import require_fit
from workers.train import train

CPU = torch.device("cpu")
SWEEP = """
name: first
models: {mine: {folder: model}}
objectives:
  plain: {kind: clm, data: {file: texts.txt}}
  texts: {kind: clm, data: {file: texts.txt}, bos: text}
  sequences: {kind: clm, data: {file: texts.txt}, bos: sequence}
evaluation: {fraction: 0.25, batches: 2}
probe: {data: {builtin: python-docs}, rows: 16, sequence_length: 16}
measurements: []
defaults: {steps: 2, batch_size: 2, learning_rate: 1.0e-3, sequence_length: 12}
blocks:
- name: all
  grid: {model: [mine], objective: [plain, texts, sequences], control: [standard], seed: [0]}
"""


@pytest.fixture
def runs(tmp_path) -> dict[str, RunSpec]:
    """Runs by what they call their objective, of a model in a folder."""
    letters = {c: n for n, c in enumerate(["<s>", "</s>", "<unk>", *map(chr, range(97, 123))])}
    made = Tokenizer(models.WordLevel(letters, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=made, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=len(letters), n_positions=32, n_embd=16, n_layer=2, n_head=2)
    GPT2LMHeadModel(config).save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    texts = [chr(97 + k % 20) * 3 + chr(98 + k % 17) * (k % 5) for k in range(80)]
    (tmp_path / "texts.txt").write_text("\n".join(texts))
    (tmp_path / "first.yaml").write_text(SWEEP)
    return {run.objective.label: run for run in read_sweep(tmp_path / "first.yaml").runs}


def test_each_way_is_a_run_of_its_own_that_trains(tmp_path, runs):
    store = Store.at(str(tmp_path / "store"))
    store.identify()
    losses = {}
    for name, run in runs.items():
        assert [one.status for one in train(run, store, CPU)][-1] == "finished"
        folder = store.run(run.run_id)
        scored = pl.read_parquet(folder.parts("evaluations"))
        first = scored.filter(pl.col("step") == 0, pl.col("score") == "loss")["value"]
        losses[name] = (*pl.read_parquet(folder.parts("steps"))["loss"], *first)
    assert len({run.run_id for run in runs.values()}) == 3
    for place in zip(*losses.values(), strict=True):
        assert len(set(place)) == 3


def test_a_tokenizer_that_turns_out_to_have_none_is_refused_by_the_worker(tmp_path, runs):
    """One of a class of its own, which a plan does not ask."""
    pretrained = load_model(runs["texts"].model, tmp_path, needs_head=True)
    require_fit(runs["texts"], pretrained)
    pretrained.tokenizer.bos_token = None
    require_fit(runs["plain"], pretrained)
    with pytest.raises(UserError, match="mine: its tokenizer has no token that begins a text"):
        require_fit(runs["texts"], pretrained)
