"""What cannot be loaded, or not be used as it is meant: told in a line, with cause and remedy."""

import pytest
import torch
from safetensors import SafetensorError
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    LlamaModel,
    MPNetConfig,
    MPNetModel,
    T5Config,
    T5ForConditionalGeneration,
    ViTConfig,
    ViTModel,
    XLMConfig,
    XLMWithLMHeadModel,
)

from sweeps.errors import Impossible, UserError
from tests.zoo.trial import saved, tokenizer
from workers.loading import load_model
from workers.models.pretrained import examine

SHAPE = {
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 64,
}


def llama(kind=LlamaModel):
    torch.manual_seed(0)
    return kind(LlamaConfig(vocab_size=len(tokenizer()), num_key_value_heads=2, **SHAPE))


def refused(spec, cache, **options):
    with pytest.raises(UserError) as caught:
        load_model(spec, cache, **{"needs_head": True, **options})
    said = str(caught.value)
    assert "\n" not in said
    assert len(said.replace(str(cache), "")) < 300
    return said


@pytest.mark.parametrize(
    ("raised", "remedy"),
    [
        (ImportError("Loading a GPTQ quantized model requires optimum\n(`pip install optimum`)"),
         "install what it asks for"),
        (RuntimeError("size mismatch " + "for model.layers.0.mlp.gate_proj.weight " * 60),
         "try AutoModel.from_pretrained"),
        (SafetensorError("Error while deserializing header: incomplete metadata"),
         "copy the weights again"),
        (ValueError("Unrecognized configuration class. Model type should be one of"
                    + " GPT2Config," * 400), "try AutoModel.from_pretrained"),
        (KeyError("q"), "try AutoModel.from_pretrained"),
    ],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
def test_whatever_loading_raises_is_told_in_a_line(tmp_path, monkeypatch, raised, remedy):
    spec = saved(llama(), "clm", tmp_path / "model")

    def broken(*_, **__):
        raise raised

    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", broken)
    said = refused(spec, tmp_path)
    assert said.startswith("model tiny: cannot be loaded from ")
    assert type(raised).__name__ in said
    assert remedy in said


def test_running_out_of_memory_is_no_fault_of_the_folder(tmp_path, monkeypatch):
    spec = saved(llama(), "clm", tmp_path / "model")

    def broken(*_, **__):
        raise torch.OutOfMemoryError

    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", broken)
    with pytest.raises(torch.OutOfMemoryError):
        load_model(spec, tmp_path, needs_head=True)


def test_a_model_without_a_head_for_the_objective_is_refused_and_told_which_it_has(tmp_path):
    config = T5Config(vocab_size=len(tokenizer()), d_model=32, d_kv=8, d_ff=32, num_layers=2)
    spec = saved(T5ForConditionalGeneration(config), "clm", tmp_path / "model")
    said = refused(spec, tmp_path)
    assert "t5 has no head for objective clm" in said
    assert "it has one for span_corruption" in said


@pytest.mark.parametrize("pretraining", ["clm", "mlm"])
@pytest.mark.parametrize("kind", ["llama", "mpnet"])
def test_a_bare_backbone_is_loaded_where_no_head_is_needed(tmp_path, kind, pretraining):
    mpnet = MPNetModel(MPNetConfig(vocab_size=len(tokenizer()), **SHAPE))
    spec = saved(llama() if kind == "llama" else mpnet, pretraining, tmp_path / "model")
    loaded = load_model(spec, tmp_path, needs_head=False)
    assert (loaded.facts.layers, loaded.output_width) == (3, 32)
    with pytest.raises(UserError, match=r"no head for objective|not pretrained for this objective"):
        load_model(spec, tmp_path, needs_head=True)


def test_a_model_that_does_not_read_text_is_refused_in_a_short_line(tmp_path):
    config = {k: v for k, v in SHAPE.items() if k != "max_position_embeddings"}
    model = ViTModel(ViTConfig(image_size=32, patch_size=16, **config))
    spec = saved(model, "mlm", tmp_path / "model")
    assert "vit has no head for objective mlm" in refused(spec, tmp_path)
    said = refused(spec, tmp_path, needs_head=False)
    assert "ViTModel cannot be run on the tokens of text alone" in said


def test_blocks_in_parts_are_refused_and_named():
    model = XLMWithLMHeadModel(
        XLMConfig(vocab_size=64, emb_dim=32, n_layers=3, n_heads=2, max_position_embeddings=32)
    )
    with pytest.raises(
        Impossible, match=r"blocks in parts \(attentions, layer_norm1, ffns"
    ) as said:
        examine(model)
    assert len(str(said.value)) < 250


def test_a_model_that_fills_up_what_it_reads_is_seen_with_as_many_tokens():
    from transformers import LongformerConfig, LongformerForMaskedLM

    model = LongformerForMaskedLM(
        LongformerConfig(
            vocab_size=64, attention_window=32, pad_token_id=1, **{**SHAPE, "num_hidden_layers": 2}
        )
    ).eval()
    (stack,) = examine(model).stacks
    assert (stack.calls, stack.width, stack.axes) == ((0, 1), 32, (0, 1))
