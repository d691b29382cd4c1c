"""What an architecture is pretrained for, told from its configuration."""

import pytest
from transformers.models.auto import modeling_auto

from sweeps.errors import UserError
from sweeps.sources import architectures
from sweeps.sources.architectures import pretraining_of, require_head, require_text


def config(model_type, *classes, **more):
    return {"model_type": model_type, "architectures": list(classes), **more}


@pytest.mark.parametrize(
    ("said", "pretraining"),
    [
        (config("llama", "LlamaForSequenceClassification"), "clm"),
        (config("mpnet", "MPNetModel"), "mlm"),
        (config("deberta-v2", "DebertaV2ForTokenClassification"), "mlm"),
        (config("electra", "ElectraForPreTraining"), "mlm"),
        (config("qwen3", "Qwen3Model"), "clm"),
        (config("gemma3", "Gemma3ForConditionalGeneration"), "clm"),
        (config("qwen2_vl", "Qwen2VLForConditionalGeneration"), "clm"),
        (config("llava", "LlavaForConditionalGeneration"), "clm"),
        (config("t5", "T5ForConditionalGeneration", is_encoder_decoder=True), "span_corruption"),
        (config("bart", "BartModel", is_encoder_decoder=True), "span_corruption"),
        (config("marian", "MarianMTModel", is_encoder_decoder=True), "span_corruption"),
        # Which of its heads a type was saved with decides.
        (config("flaubert", "FlaubertWithLMHeadModel"), "mlm"),
        (config("xlm", "XLMWithLMHeadModel"), "mlm"),
        (config("xlm", "XLMWithLMHeadModel", causal=True), "clm"),
        (config("reformer", "ReformerModelWithLMHead", is_decoder=True), "clm"),
        (config("reformer", "ReformerForMaskedLM"), "mlm"),
        (config("xlm-roberta", "XLMRobertaForCausalLM", is_decoder=True), "clm"),
        # Of a type that transformers does not have, its words and its auto_map.
        (config("novel", "NovelForMaskedLM"), "mlm"),
        (config("novel", "NovelForCausalLM"), "clm"),
        (config("novel", "NovelForConditionalGeneration"), "clm"),
        (config("novel", is_encoder_decoder=True), "span_corruption"),
        (config("novel", "Own", auto_map={"AutoModelForMaskedLM": "own.Own"}), "mlm"),
        (config("novel", "NovelModel"), None),
        ({"model_type": "novel", "architectures": None}, None),
        # It reads an image and writes text: its encoder is of no text.
        (config("vision-encoder-decoder", is_encoder_decoder=True), None),
    ],
    ids=lambda value: str(value)[:60],
)
def test_pretraining_is_told_from_the_configuration(said, pretraining):
    assert pretraining_of(said) == pretraining


@pytest.mark.parametrize(
    "said",
    [
        config("vit", "ViTModel"),
        config("hubert", "HubertForCTC"),
        config("clip", "CLIPModel"),
        config("whisper", "WhisperForConditionalGeneration", is_encoder_decoder=True),
    ],
    ids=lambda said: said["model_type"],
)
def test_models_of_images_and_sound_are_refused_in_a_line(said):
    with pytest.raises(UserError, match=f"{said['model_type']} reads images or sound"):
        require_text(said)


@pytest.mark.parametrize("model_type", ["gemma3", "perceiver", "qwen3_vl_text", "t5", "novel"])
def test_what_reads_text_beside_images_is_not(model_type):
    require_text(config(model_type))


def test_a_head_that_no_class_has_is_told_with_those_there_are():
    with pytest.raises(UserError, match=r"m: .* no mpnet .* objective clm; it has that of mlm"):
        require_head("m", config("mpnet"), "clm")
    require_head("m", config("mpnet"), "mlm")
    require_head("m", config("novel"), "clm")
    require_head("m", config("qwen2_vl"), "clm")


def test_the_tables_are_those_of_the_transformers_that_is_installed():
    """Read as text they are what an import gives, so that no release is misread in silence."""
    for table in ("CAUSAL_LM", "MASKED_LM", "SEQ_TO_SEQ_CAUSAL_LM", "IMAGE_TEXT_TO_TEXT"):
        real = getattr(modeling_auto, f"MODEL_FOR_{table}_MAPPING_NAMES")
        read = architectures._tables()[table]
        assert read == {
            kind: {name} if isinstance(name, str) else set(name) for kind, name in real.items()
        }


def test_without_transformers_a_type_is_known_by_its_own_words(monkeypatch):
    monkeypatch.setattr(architectures, "_tables", dict)
    assert pretraining_of(config("llama", "LlamaForCausalLM")) == "clm"
    assert pretraining_of(config("t5", is_encoder_decoder=True)) == "span_corruption"
    assert pretraining_of(config("llama", "LlamaModel")) is None
    require_text(config("vit"))
