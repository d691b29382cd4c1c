"""A loss of next tokens is one of a model that has not seen them."""

import json

import pytest
import torch
from small_run import make_run
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    BertConfig,
    BertForMaskedLM,
    GPT2Config,
    LlamaConfig,
    MambaConfig,
    PreTrainedTokenizerFast,
    XLNetConfig,
)

from sweeps.errors import Impossible
from sweeps.sources.content import folder_digest
from sweeps.spec import FolderModel, ModelSpec
from workers.footprint.__main__ import answer
from workers.loading import load_model
from workers.models.causality import require_causal, require_causal_design

SMALL = {"vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 2}
BERT = BertConfig(**SMALL, num_attention_heads=2, intermediate_size=48)
DECODER = BertConfig(**SMALL, num_attention_heads=2, intermediate_size=48, is_decoder=True)
XLNET = XLNetConfig(vocab_size=64, d_model=32, n_layer=2, n_head=2, d_inner=48)
GPT2 = GPT2Config(vocab_size=64, n_embd=32, n_layer=2, n_head=2)


@pytest.mark.parametrize(
    ("config", "sees"),
    [(BERT, True), (XLNET, True), (DECODER, False), (GPT2, False), (MambaConfig(**SMALL), False)],
    ids=["bert", "xlnet", "bert as decoder", "gpt2", "mamba"],
)
def test_a_model_that_sees_what_it_is_to_predict_is_told_from_one_that_does_not(config, sees):
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config)
    if not sees:
        require_causal("tiny", model)
        return
    with pytest.raises(Impossible, match=r"^model tiny: .* sees the tokens .*is_decoder: true"):
        require_causal("tiny", model)


def test_a_design_is_judged_by_a_small_model_of_it_and_a_large_one_by_its_weights_alone():
    before = BertConfig()
    with pytest.raises(Impossible, match="sees the tokens"):
        require_causal_design("bert", AutoModelForCausalLM, before, trusted=False)
    assert before.to_dict() == BertConfig().to_dict()
    for config in (BertConfig(is_decoder=True), GPT2Config(), LlamaConfig(hidden_size=8192)):
        require_causal_design("model", AutoModelForCausalLM, config, trusted=False)


def test_the_callers_random_numbers_are_left_alone():
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    require_causal_design("gpt2", AutoModelForCausalLM, GPT2, trusted=False)
    assert torch.equal(torch.rand(2), expected)


@pytest.fixture
def folder(tmp_path):
    vocabulary = {f"w{k}": k for k in range(60)} | {"[UNK]": 60, "[PAD]": 61}
    made = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=made, unk_token="[UNK]", pad_token="[PAD]")
    torch.manual_seed(0)
    BertForMaskedLM(BERT).save_pretrained(tmp_path / "bert")
    tokenizer.save_pretrained(tmp_path / "bert")
    return tmp_path / "bert"


def test_such_a_folder_is_refused_by_a_plan_and_by_a_worker_where_next_tokens_are_asked_of_it(
    folder, tmp_path
):
    digest = folder_digest(folder, trusted=False)
    source = FolderModel(folder=str(folder), digest=digest, pretraining="clm")
    model = ModelSpec(name="tiny", source=source)
    run = make_run(model=model, sequence_length=12)
    assert run.objective.kind == "clm"
    refused = answer(json.dumps({"run": run.model_dump_json()}))["refused"]
    assert refused.startswith("model tiny: BertLMHeadModel sees the tokens")
    assert len(refused.replace(str(folder), "")) < 300
    with pytest.raises(Impossible, match="sees the tokens"):
        load_model(model, tmp_path / "cache", needs_head=True)
    # What is asked of its states alone may look both ways.
    assert load_model(model, tmp_path / "cache", needs_head=False).facts.layers == 2
