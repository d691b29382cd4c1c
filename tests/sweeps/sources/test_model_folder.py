"""What a model's own files say before it is loaded."""

import numpy as np
import pytest
from safetensors.numpy import save_file
from shaped_folder import encoder_folder, write

from sweeps.declaration.entries.sweep_spec import ModelEntry
from sweeps.declaration.sources import resolve_model
from sweeps.errors import UserError
from sweeps.sources.model_folder import positions_of


@pytest.fixture
def folder(tmp_path):
    return encoder_folder(tmp_path / "model")


def resolve(folder, **entry):
    return resolve_model("mine", {"mine": ModelEntry(folder=str(folder), **entry)}, folder)


def cut(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-5])


def cut_in_the_header(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:20])


def pointer(folder):
    (folder / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid x\n")


def pointer_for_a_tokenizer(folder):
    (folder / "tokenizer.json").write_text("version https://git-lfs.github.com/spec/v1\noid x\n")


def quantized(folder):
    write(folder / "config.json", {"model_type": "bert", "quantization_config": {"bits": 4}})


def missing_shard(folder):
    index = {"weight_map": {"w": "model.safetensors", "v": "model-2.safetensors"}}
    write(folder / "model.safetensors.index.json", index)


def adapter(folder):
    write(folder / "adapter_config.json", {"base_model_name_or_path": "elsewhere"})


def no_json(folder):
    (folder / "config.json").write_text("{")


def only_an_adapter(folder):
    adapter(folder)
    (folder / "config.json").unlink()


def for_running_only(folder):
    (folder / "config.json").unlink()
    (folder / "model.q4.gguf").write_bytes(b"GGUF")


def whole_numbers(folder):
    weights = {"a.qweight": np.ones((9, 9), np.int8), "w": np.ones((99, 99), np.float32)}
    save_file(weights, folder / "model.safetensors")


def left_by_a_quantizer(folder):
    write(folder / "quantize_config.json", {"bits": 4})


def reads_images(folder):
    write(folder / "config.json", {"model_type": "vit"})


def more_tokens_than_rows(folder):
    write(folder / "config.json", {"model_type": "bert", "vocab_size": 50})
    write(folder / "added_tokens.json", {"<first>": 49, "<beyond>": 50})


def more_tokens_in_the_tokenizer(folder):
    write(folder / "config.json", {"model_type": "gemma3", "text_config": {"vocab_size": 50}})
    tokens = [{"id": 3, "content": "a"}, {"id": 64, "content": "<beyond>"}]
    write(folder / "tokenizer.json", {"added_tokens": tokens, "model": {"vocab": {}}})


def more_tokens_by_its_configuration(folder):
    write(folder / "config.json", {"model_type": "bert", "vocab_size": 50})
    write(folder / "tokenizer_config.json", {"added_tokens_decoder": {"50": {"content": "<b>"}}})


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (cut, r"model\.safetensors: has \d+ bytes of \d+: it is cut short"),
        (cut_in_the_header, r"model\.safetensors: is cut short"),
        (pointer, r"model\.safetensors: is a pointer of Git LFS"),
        (pointer_for_a_tokenizer, r"tokenizer\.json: is a pointer of Git LFS"),
        (quantized, "holds quantized weights"),
        (missing_shard, r"lacks model-2\.safetensors"),
        (adapter, r"adapter_config\.json"),
        (no_json, r"config\.json: not JSON"),
        (only_an_adapter, r"adapter_config\.json\) and not the model it is for"),
        (for_running_only, r"model\.q4\.gguf, which is for running a model only"),
        (whole_numbers, "holds quantized weights"),
        (left_by_a_quantizer, "holds quantized weights"),
        (reads_images, "vit reads images or sound"),
        (more_tokens_than_rows, "'<beyond>' with id 50, and the model 50 rows"),
        (more_tokens_in_the_tokenizer, "'<beyond>' with id 64, and the model 50 rows"),
        (more_tokens_by_its_configuration, "'<b>' with id 50"),
    ],
)
def test_a_folder_that_cannot_be_loaded_is_refused_while_the_sweep_is_read(folder, harm, said):
    assert resolve(folder).pretraining == "mlm"
    harm(folder)
    with pytest.raises(UserError, match=rf"model 'mine': .*{said}") as refused:
        resolve(folder)
    assert "\n" not in str(refused.value)
    assert len(str(refused.value).replace(str(folder), "")) < 260


def test_whole_numbers_beside_weights_are_no_quantization(folder):
    weights = {
        "w.weight": np.ones((3, 3), np.float16),
        "position_ids": np.ones((1, 30), np.int64),
        "attn.bias": np.ones((1, 1, 64, 64), np.uint8),
        "weight_shape": np.ones(2, np.int64),
    }
    save_file(weights, folder / "model.safetensors")
    assert resolve(folder).pretraining == "mlm"


def test_a_sentence_transformer_is_the_language_model_within_it(folder, tmp_path):
    outer = tmp_path / "sentence"
    outer.mkdir()
    folder.rename(outer / "0_Transformer")
    modules = [{"path": "0_Transformer", "type": "Transformer"}, {"path": "1_Pooling"}]
    write(outer / "modules.json", modules)
    inside = resolve(outer)
    assert inside.folder == str(outer / "0_Transformer")
    assert inside.digest == resolve(outer / "0_Transformer").digest
    write(outer / "modules.json", [{"path": "elsewhere"}])
    with pytest.raises(UserError, match=r"has no config\.json"):
        resolve(outer)


def test_code_of_another_repository_is_refused_where_code_is_trusted(folder):
    auto = {"AutoModelForMaskedLM": "someone/repo--modeling.Model"}
    write(folder / "config.json", {"model_type": "bert", "auto_map": auto})
    resolve(folder)
    with pytest.raises(UserError, match=r"another repository \(someone/repo--modeling"):
        resolve(folder, trust_remote_code=True)


@pytest.mark.parametrize(
    "name", ["spiece.model", "vocab.txt", "sentencepiece.bpe.model", "tokenization_mine.py"]
)
def test_a_tokenizer_is_known_by_whatever_file_it_has(folder, name):
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer_config.json").unlink()
    with pytest.raises(UserError, match="no tokenizer"):
        resolve(folder)
    (folder / name).write_text("x")
    resolve(folder)


def test_a_home_folder_may_be_written_as_a_tilde(folder, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    here = resolve_model("m", {"m": ModelEntry(folder="~/model")}, tmp_path / "elsewhere")
    assert here.folder == str(folder)
    with pytest.raises(UserError, match="~nobody-of-this-name"):
        resolve_model("m", {"m": ModelEntry(folder="~nobody-of-this-name/m")}, tmp_path)


@pytest.mark.parametrize(
    ("config", "positions"),
    [
        ({"model_type": "gpt2", "n_positions": 12, "n_ctx": 12}, 12),
        ({"model_type": "llama", "max_position_embeddings": 2048, "pad_token_id": 7}, 2048),
        ({"model_type": "roberta", "max_position_embeddings": 514, "pad_token_id": 1}, 512),
        ({"model_type": "opt", "max_position_embeddings": 2048, "pad_token_id": 1}, 2048),
        ({"model_type": "t5", "n_positions": 512, "relative_attention_num_buckets": 32}, None),
        (
            {
                "model_type": "mpnet",
                "max_position_embeddings": 514,
                "pad_token_id": 1,
                "relative_attention_num_buckets": 32,
            },
            512,
        ),
        (
            {
                "model_type": "deberta-v2",
                "max_position_embeddings": 512,
                "position_biased_input": False,
            },
            None,
        ),
        ({"model_type": "bloom", "seq_length": 2048}, None),
        ({"model_type": "falcon", "max_position_embeddings": 2048, "alibi": True}, None),
        ({"model_type": "mamba", "state_size": 16}, None),
        ({"model_type": "rwkv", "context_length": 1024}, None),
        ({"model_type": "xlnet", "d_model": 64}, None),
        ({"model_type": "x", "max_position_embeddings": -1}, None),
        ({"model_type": "gemma3", "text_config": {"max_position_embeddings": 99}}, 99),
        ({"model_type": "mpt", "max_seq_len": 64, "attn_config": {"alibi": True}}, None),
        ({"model_type": "mpt", "max_seq_len": 64, "attn_config": {"alibi": False}}, 64),
        (
            {
                "model_type": "led",
                "max_encoder_position_embeddings": 90,
                "max_decoder_position_embeddings": 30,
            },
            30,
        ),
        (
            {
                "model_type": "encoder-decoder",
                "encoder": {"vocab_size": 9, "max_position_embeddings": 70},
                "decoder": {"vocab_size": 9, "max_position_embeddings": 50},
            },
            50,
        ),
    ],
    ids=lambda value: value.get("model_type") if isinstance(value, dict) else str(value),
)
def test_positions_are_those_a_token_can_be_at(config, positions):
    assert positions_of(config) == positions
