import re

import pytest
import torch
from transformers import (
    BertConfig,
    BertForMaskedLM,
    CodeGenConfig,
    CodeGenForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    MambaConfig,
    MambaForCausalLM,
    OPTConfig,
    OPTForCausalLM,
    RobertaConfig,
    RobertaForMaskedLM,
    RwkvConfig,
    RwkvForCausalLM,
)

from sweeps.sources.catalog import CATALOG, FAMILIES


def test_the_study_has_fifteen_models_of_four_kinds():
    assert len(CATALOG) == 15
    kinds = {FAMILIES[model.family].kind for model in CATALOG.values()}
    assert kinds == {"encoder", "decoder", "ssm", "rnn"}
    assert all(re.fullmatch("[0-9a-f]{40}", model.revision) for model in CATALOG.values())


def architecture(model):
    """The published architecture, from the catalogue's shape and the family's conventions."""
    v, d, n = model.vocabulary, model.width, model.layers
    heads = {768: 12, 1024: 16, 2048: 32 if model.family == "opt" else 16, 4096: 32}[d]
    wide = {
        "vocab_size": v,
        "hidden_size": d,
        "num_hidden_layers": n,
        "num_attention_heads": heads,
    }
    narrow = {"vocab_size": v, "n_embd": d, "n_layer": n, "n_head": heads}
    if model.family == "bert":
        return BertForMaskedLM(BertConfig(**wide, intermediate_size=4 * d))
    if model.family == "roberta":
        config = RobertaConfig(
            **wide, intermediate_size=4 * d, max_position_embeddings=514, type_vocab_size=1
        )
        return RobertaForMaskedLM(config)
    if model.family == "gpt2":
        return GPT2LMHeadModel(GPT2Config(**narrow))
    if model.family == "opt":
        post_norm = model.hub.endswith("350m")
        config = OPTConfig(
            **wide,
            ffn_dim=4 * d,
            word_embed_proj_dim=512 if post_norm else d,
            do_layer_norm_before=not post_norm,
        )
        return OPTForCausalLM(config)
    if model.family == "gpt_neox":
        return GPTNeoXForCausalLM(GPTNeoXConfig(**wide, intermediate_size=4 * d))
    if model.family == "codegen":
        return CodeGenForCausalLM(CodeGenConfig(**narrow, tie_word_embeddings=False))
    if model.family == "mamba":
        return MambaForCausalLM(MambaConfig(vocab_size=v, hidden_size=d, num_hidden_layers=n))
    config = RwkvConfig(vocab_size=v, hidden_size=d, num_hidden_layers=n)
    return RwkvForCausalLM(config)


@pytest.mark.parametrize("name", CATALOG)
def test_parameter_counts_are_those_of_the_architecture(name):
    with torch.device("meta"):
        model = architecture(CATALOG[name])
    assert sum(p.numel() for p in model.parameters()) == CATALOG[name].parameters
