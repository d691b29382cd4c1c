"""A folder has all weights of the model that its configuration makes, and no others: what it lacks
would be random, and what has no place would be dropped, both without an error."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModel,
    BertConfig,
    BertForMaskedLM,
    BertModel,
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoConfig,
    GPTNeoForCausalLM,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    LongT5Config,
    LongT5ForConditionalGeneration,
    M2M100Config,
    M2M100ForConditionalGeneration,
    MambaConfig,
    MambaForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
    MPNetConfig,
    MPNetForMaskedLM,
    MT5Config,
    MT5ForConditionalGeneration,
    OPTConfig,
    OPTForCausalLM,
    RobertaConfig,
    RobertaForMaskedLM,
    SwitchTransformersConfig,
    SwitchTransformersForConditionalGeneration,
    T5Config,
    T5ForConditionalGeneration,
)

from sweeps.errors import Impossible, UserError
from sweeps.sources.content import folder_digest
from tests.zoo.trial import saved
from workers.loading import load_model, require_loadable
from workers.models.own_weights import require_own_weights

SIZES = {
    "hidden_size": 32,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 64,
}
VOCABULARY = {"vocab_size": 400}
T5_SIZES = {"d_model": 32, "d_kv": 8, "d_ff": 32, "num_layers": 2, "num_heads": 2, **VOCABULARY}
OF_T5 = {
    "t5": (T5Config, T5ForConditionalGeneration),
    "mt5": (MT5Config, MT5ForConditionalGeneration),
    "longt5": (LongT5Config, LongT5ForConditionalGeneration),
    "switch": (SwitchTransformersConfig, SwitchTransformersForConditionalGeneration),
}
MADE = {
    "bert": (lambda: BertForMaskedLM(BertConfig(**SIZES, **VOCABULARY)), "mlm"),
    "minilm": (lambda: BertModel(BertConfig(**SIZES, **VOCABULARY)), "mlm"),
    "roberta": (lambda: RobertaForMaskedLM(RobertaConfig(**SIZES, **VOCABULARY)), "mlm"),
    "mpnet": (lambda: MPNetForMaskedLM(MPNetConfig(**SIZES, **VOCABULARY)), "mlm"),
    "gpt2": (
        lambda: GPT2LMHeadModel(
            GPT2Config(n_embd=32, n_layer=2, n_head=2, n_positions=64, **VOCABULARY)
        ),
        "clm",
    ),
    "gpt_neo": (
        lambda: GPTNeoForCausalLM(
            GPTNeoConfig(
                hidden_size=32,
                num_layers=2,
                num_heads=2,
                attention_types=[[["global"], 2]],
                max_position_embeddings=64,
                **VOCABULARY,
            )
        ),
        "clm",
    ),
    "pythia": (lambda: GPTNeoXForCausalLM(GPTNeoXConfig(**SIZES, **VOCABULARY)), "clm"),
    "llama": (lambda: LlamaForCausalLM(LlamaConfig(**SIZES, **VOCABULARY)), "clm"),
    "mixtral": (
        lambda: MixtralForCausalLM(
            MixtralConfig(num_local_experts=4, num_key_value_heads=2, **SIZES, **VOCABULARY)
        ),
        "clm",
    ),
    "mamba": (
        lambda: MambaForCausalLM(
            MambaConfig(hidden_size=32, num_hidden_layers=2, state_size=4, **VOCABULARY)
        ),
        "clm",
    ),
    "opt": (
        lambda: OPTForCausalLM(
            OPTConfig(
                hidden_size=32,
                ffn_dim=32,
                num_hidden_layers=2,
                num_attention_heads=2,
                max_position_embeddings=64,
                word_embed_proj_dim=16,
                **VOCABULARY,
            )
        ),
        "clm",
    ),
    "m2m_100": (
        lambda: M2M100ForConditionalGeneration(
            M2M100Config(
                d_model=32,
                encoder_layers=2,
                decoder_layers=2,
                encoder_attention_heads=2,
                decoder_attention_heads=2,
                encoder_ffn_dim=32,
                decoder_ffn_dim=32,
                max_position_embeddings=64,
                **VOCABULARY,
            )
        ),
        "span_corruption",
    ),
    **{
        name: (
            lambda classes=classes: classes[1](classes[0](decoder_start_token_id=0, **T5_SIZES)),
            "span_corruption",
        )
        for name, classes in OF_T5.items()
    },
}
# As published: what older code kept beside the weights, poolers, and heads of other tasks.
POSITIONS = torch.arange(64)[None]
MASK = torch.ones(1, 1, 64, 64)
BESIDE = {
    "bert": {
        "bert.embeddings.position_ids": POSITIONS,
        "bert.pooler.dense.weight": torch.ones(32, 32),
        "cls.seq_relationship.weight": torch.ones(2, 32),
    },
    "minilm": {"embeddings.position_ids": POSITIONS},
    "roberta": {
        "roberta.embeddings.position_ids": POSITIONS,
        "roberta.pooler.dense.bias": torch.ones(32),
    },
    "mpnet": {
        "mpnet.embeddings.position_ids": POSITIONS,
        "mpnet.pooler.dense.weight": torch.ones(32, 32),
    },
    "gpt2": {
        "transformer.h.0.attn.bias": MASK,
        "transformer.h.1.attn.masked_bias": torch.tensor(-1e9),
    },
    "gpt_neo": {
        "transformer.h.0.attn.attention.bias": MASK.byte(),
        "transformer.h.1.attn.attention.masked_bias": torch.tensor(-1e9),
    },
    "pythia": {
        "gpt_neox.layers.0.attention.bias": MASK.bool(),
        "gpt_neox.layers.0.attention.masked_bias": torch.tensor(-1e9),
        "gpt_neox.layers.1.attention.rotary_emb.inv_freq": torch.ones(4),
    },
    "llama": {"model.layers.1.self_attn.rotary_emb.inv_freq": torch.ones(8)},
    "mixtral": {"score.weight": torch.ones(2, 32)},
    "mamba": {"classifier.weight": torch.ones(2, 32)},
    "opt": {"model.decoder.version": torch.ones(1)},
    "m2m_100": {"model.encoder.embed_positions.weights": torch.ones(66, 32)},
    "t5": {
        "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight": torch.ones(32, 2)
    },
}  # fmt: skip
# What a config.json without it leaves no place for.
WITHOUT_PLACE = {
    "llama": "model.layers.0.self_attn.q_proj.bias",
    "mixtral": "model.layers.2.input_layernorm.weight",
    "gpt2": "transformer.h.1.attn.q_norm.weight",
    "gpt_neo": "transformer.h.1.attn.attention.q_proj.bias",
    "bert": "bert.embeddings.task_embeddings.weight",
    "t5": "encoder.block.1.layer.0.SelfAttention.q.bias",
    "mamba": "backbone.norm_f.bias",
    "minilm": "encoder.layer.0.attention.self.rotary.weight",
    "opt": "model.decoder.layers.0.fc3.weight",
}


@pytest.fixture
def folder(tmp_path):
    """Return the function that saves a model of a name, with its weights changed."""

    def make(name, change=len):  # which changes nothing
        torch.manual_seed(0)
        build, pretraining = MADE[name]
        place = tmp_path / name
        spec = saved(build().eval(), pretraining, place)
        path = place / "model.safetensors"
        tensors = load_file(path)
        change(tensors)
        save_file({key: one.contiguous() for key, one in tensors.items()}, path, {"format": "pt"})
        return declared(spec, place)

    return make


def declared(spec, place):
    digest = folder_digest(place, trusted=False)
    return spec.model_copy(update={"source": spec.source.model_copy(update={"digest": digest})})


def asked(spec, cache, *, needs_head):
    """Return what is said of a folder: the same before anything starts as in loading it."""
    before = refusal(lambda: require_loadable(spec, needs_head=needs_head))
    loading = refusal(lambda: load_model(spec, cache, needs_head=needs_head))
    assert before == loading
    return loading


def refusal(ask):
    try:
        ask()
    except UserError as error:
        return str(error)
    return None


@pytest.mark.parametrize("name", MADE)
def test_a_folder_as_it_was_saved_is_whole(folder, tmp_path, name):
    headed = name != "minilm"
    assert asked(folder(name), tmp_path, needs_head=False) is None
    if headed:
        assert asked(folder(name), tmp_path, needs_head=True) is None


@pytest.mark.parametrize("needs_head", [True, False], ids=["head", "no head"])
@pytest.mark.parametrize("name", OF_T5)
def test_a_missing_weight_is_refused_where_no_name_begins_with_the_models_prefix(
    folder, tmp_path, name, needs_head
):
    def lose(tensors):
        key = next(key for key in tensors if key.startswith("encoder.block.1.") and ".wi" in key)
        del tensors[key]

    said = asked(folder(name, lose), tmp_path, needs_head=needs_head)
    assert "its checkpoint lacks encoder.block.1." in said
    assert "config.json asks for" in said


@pytest.mark.parametrize("lost", ["shared.weight", "encoder.final_layer_norm.weight"])
def test_a_missing_weight_outside_the_blocks_is_refused_where_states_are_made_with_it(
    folder, tmp_path, lost
):
    said = asked(folder("t5", lambda tensors: tensors.pop(lost)), tmp_path, needs_head=False)
    assert "its checkpoint lacks" in said


def test_of_a_model_of_one_part_the_head_alone_may_be_missing_where_none_is_needed():
    model = MADE["t5"][0]()
    require_own_weights("mine", model, {"lm_head.weight"}, needs_head=False)
    with pytest.raises(Impossible, match=r"lacks lm_head\.weight; it was not pretrained for this"):
        require_own_weights("mine", model, {"lm_head.weight"}, needs_head=True)


def test_a_pooler_that_a_checkpoint_lacks_is_not_missed(folder, tmp_path):
    """Hidden states do not go through it."""
    spec = folder("mpnet")
    source = spec.source.model_copy(update={"pretraining": "clm"})  # of which it has no head
    bare = spec.model_copy(update={"source": source})
    assert AutoModel.from_pretrained(source.folder).pooler is not None
    assert asked(bare, tmp_path, needs_head=False) is None


@pytest.mark.parametrize("name", BESIDE)
def test_what_published_checkpoints_have_beside_weights_is_left_there(folder, tmp_path, name):
    spec = folder(name, lambda tensors: tensors.update(BESIDE[name]))
    assert asked(spec, tmp_path, needs_head=False) is None


@pytest.mark.parametrize("name", WITHOUT_PLACE)
def test_a_weight_that_the_configuration_has_no_place_for_is_refused(folder, tmp_path, name):
    key = WITHOUT_PLACE[name]
    spec = folder(name, lambda tensors: tensors.update({key: torch.ones(32, 4)}))
    said = asked(spec, tmp_path, needs_head=False)
    assert f"its weights have {key}, for which config.json has no place" in said.replace(
        "bert.encoder.", "encoder."
    )


@pytest.mark.parametrize(
    ("name", "setting"), [("llama", "num_hidden_layers"), ("t5", "num_layers")]
)
def test_of_two_blocks_none_is_left_out_for_a_configuration_of_one(folder, tmp_path, name, setting):
    spec = folder(name)
    path = tmp_path / name / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), setting: 1}))
    said = asked(declared(spec, path.parent), tmp_path, needs_head=True)
    assert "for which config.json has no place" in said
    assert " more, for which" in said
