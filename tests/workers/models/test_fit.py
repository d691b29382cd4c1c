"""A run asks of its model what the model can do, or is refused before the first step."""

import pytest
import torch
from small_run import make_run
from transformers import (
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    BertConfig,
    DebertaV2Config,
    GPT2Config,
    LlamaConfig,
    MambaConfig,
    MPNetConfig,
    OPTConfig,
    RobertaConfig,
)

from sweeps.errors import UserError
from sweeps.sources.corpora import corpus_digest
from sweeps.spec import BuiltinData, ModelSpec, Objective
from workers.models.fit import longest_sequence, require_fit, require_known_tokens
from workers.models.pretrained import PretrainedModel, measure_facts
from workers.objectives.registry import build_objective

SMALL = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "vocab_size": 50}
WIDE = {**SMALL, "intermediate_size": 32, "max_position_embeddings": 20, "pad_token_id": 1}


@pytest.mark.parametrize(
    ("config", "auto"),
    [
        (BertConfig(**WIDE), AutoModelForMaskedLM),
        (RobertaConfig(**WIDE), AutoModelForMaskedLM),
        (MPNetConfig(**WIDE), AutoModelForMaskedLM),
        (
            GPT2Config(n_embd=16, n_layer=2, n_head=2, n_positions=20, vocab_size=50),
            AutoModelForCausalLM,
        ),
        (
            OPTConfig(
                **{**SMALL, "max_position_embeddings": 20},
                ffn_dim=32,
                word_embed_proj_dim=16,
                pad_token_id=1,
            ),
            AutoModelForCausalLM,
        ),
    ],
    ids=lambda value: getattr(value, "model_type", ""),
)
def test_the_longest_sequence_fits_and_one_token_more_does_not(config, auto):
    """The model itself is the oracle."""
    model = auto.from_config(config).eval()
    limit = longest_sequence(model)
    assert limit is not None
    ids = torch.full((1, limit + 1), 7)
    with torch.no_grad():
        model(input_ids=ids[:, :limit])
        with pytest.raises((IndexError, RuntimeError, ValueError)):
            model(input_ids=ids)


def test_a_recurrence_takes_any_length_and_rotary_positions_are_those_of_the_configuration():
    mamba = MambaConfig(hidden_size=16, num_hidden_layers=2, vocab_size=50, state_size=4)
    assert longest_sequence(AutoModelForCausalLM.from_config(mamba)) is None
    assert longest_sequence(AutoModelForCausalLM.from_config(LlamaConfig(**WIDE))) == 20


@pytest.fixture
def pretrained(make_language_model):
    def make(family):
        model, tokenizer = make_language_model(family)
        return PretrainedModel(model, tokenizer, measure_facts(model))

    return make


def mlm(source):
    data = BuiltinData(builtin="python-docs", digest=corpus_digest("python-docs"))
    source = source.model_copy(update={"standin": "bert", "pretraining": "mlm"})
    return make_run(
        model=ModelSpec(name="mine", source=source),
        objective=Objective(kind="mlm", data=data, mask_probability=0.15),
    )


@pytest.mark.parametrize("where", ["sequence_length", "probe"])
def test_sequences_beyond_the_positions_are_refused_with_the_numbers(pretrained, where):
    run = make_run()
    require_fit(run, pretrained("gpt2"))
    change = {"sequence_length": 257}
    if where == "probe":
        change = {"probe": run.probe.model_copy(update=change)}
    with pytest.raises(UserError, match=r"sequence_length 257 is beyond the 256 positions"):
        require_fit(run.model_copy(update=change), pretrained("gpt2"))


def test_masked_tokens_need_a_mask_token(pretrained, tokenizers):
    run = mlm(make_run().model.source)
    require_fit(run, pretrained("bert"))
    without = pretrained("bert")
    object.__setattr__(without, "tokenizer", tokenizers["clm"])
    with pytest.raises(UserError, match="model mine: its tokenizer has no mask token"):
        require_fit(run, without)


def test_a_token_without_a_row_in_the_embedding_is_named(pretrained):
    model = pretrained("gpt2")
    rows = model.language_model.get_input_embeddings().num_embeddings
    require_known_tokens("mine", model, rows - 1, needs_head=True)
    with pytest.raises(UserError, match=rf"has id {rows}, and the embedding {rows} rows"):
        require_known_tokens("mine", model, rows, needs_head=False)


def test_what_stands_before_a_head_is_no_head(tokenizers):
    """DeBERTa without ``legacy`` calls a square projection its output embeddings."""
    config = DebertaV2Config(**{**WIDE, "vocab_size": 90, "legacy": False})
    model = AutoModelForMaskedLM.from_config(config)
    assert model.get_output_embeddings().out_features == config.hidden_size
    found = PretrainedModel(model, tokenizers["mlm"], measure_facts(model))
    require_known_tokens("mine", found, 89, needs_head=True)
    with pytest.raises(UserError, match="has id 90, and the embedding 90 rows"):
        require_known_tokens("mine", found, 90, needs_head=True)


def test_an_embedding_whose_weights_lie_with_other_ranks_has_its_rows_all_the_same(pretrained):
    model = pretrained("gpt2")
    embedding = model.language_model.get_input_embeddings()
    rows = embedding.num_embeddings
    embedding.weight.data = torch.empty(0)  # as ZeRO-3 leaves it between two forwards
    require_known_tokens("mine", model, rows - 1, needs_head=False)
    with pytest.raises(UserError, match=f"has id {rows}"):
        require_known_tokens("mine", model, rows, needs_head=False)


def test_any_token_of_the_vocabulary_may_stand_in_for_a_masked_one(tokenizers):
    objective = build_objective(mlm(make_run().model.source).objective)
    tokenizer = tokenizers["mlm"]
    arrays = objective.tokenise(tokenizer, {"text": ["the value is returned"] * 20}, 8)
    assert arrays["input_ids"].max() < len(tokenizer) - 1
    assert objective.highest_token(arrays) == len(tokenizer) - 1
