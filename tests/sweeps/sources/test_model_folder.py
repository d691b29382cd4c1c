"""What a model's own files say before it is loaded."""

import json
import subprocess
import sys

import numpy as np
import pytest
from safetensors.numpy import save_file

from sweeps.declaration.entries.sweep_spec import ModelEntry
from sweeps.declaration.expand import read_sweep
from sweeps.declaration.sources import resolve_model
from sweeps.errors import UserError
from sweeps.sources.ability import ability_of
from sweeps.sources.model_folder import positions_of
from sweeps.sources.tokenizer_files import lacks_chat_template, lacks_mask_token
from sweeps.spec import STANDIN_FAMILIES, StandinModel


@pytest.fixture
def folder(tmp_path):
    place = tmp_path / "model"
    place.mkdir()
    write(place / "config.json", {"model_type": "bert", "max_position_embeddings": 40})
    write(place / "tokenizer_config.json", {"tokenizer_class": "TokenizersBackend"})
    write(place / "tokenizer.json", {})
    save_file({"w": np.ones((4, 4), np.float32)}, place / "model.safetensors")
    return place


def write(path, content):
    path.write_text(json.dumps(content))


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


def test_the_mask_token_is_missed_only_where_the_files_are_all_there_is(folder):
    assert lacks_mask_token(folder)
    write(folder / "special_tokens_map.json", {"mask_token": "[MASK]"})
    assert not lacks_mask_token(folder)
    (folder / "special_tokens_map.json").unlink()
    write(folder / "tokenizer_config.json", {"tokenizer_class": "BertTokenizer"})
    assert not lacks_mask_token(folder)


@pytest.mark.parametrize("family", STANDIN_FAMILIES)
def test_a_stand_ins_positions_are_known_without_it(family):
    limit = ability_of(StandinModel(standin=family, pretraining="clm", digest="d")).positions
    assert limit == {"mamba": None, "rwkv": None, "roberta": 255}.get(family, 256)


SWEEP = """
name: s
models: {{mine: {{folder: model}}}}
objectives: {{mlm: {{data: {{builtin: python-docs}}}}}}
probe: {{data: {{builtin: python-docs}}, sequence_length: {probe}}}
defaults: {{steps: 4, batch_size: 4, learning_rate: 1.0e-3}}
blocks:
- name: all
  grid: {{model: [mine], objective: [mlm], control: [standard], seed: [0],
    sequence_length: {train}}}
"""


@pytest.mark.parametrize(
    ("train", "probe", "said"),
    [
        (
            "[41, 16]",
            16,
            r"s\.yaml:\d+: sequence_length 41 is beyond the 40 positions of model",
        ),
        ("[16]", 41, r"s\.yaml:\d+: probe\.sequence_length 41 is beyond the 40 positions"),
        ("[16]", 16, r"s\.yaml:\d+: model mine: its tokenizer has no mask token"),
    ],
)
def test_what_a_model_cannot_do_is_refused_while_the_sweep_is_read(
    folder, tmp_path, train, probe, said
):
    assert folder.parent == tmp_path
    file = tmp_path / "s.yaml"
    file.write_text(SWEEP.format(train=train, probe=probe))
    with pytest.raises(UserError, match=said):
        read_sweep(file)


def weights(folder, *, rows, tensors, **config):
    """Make a folder of a checkpoint whose vocabulary has so many rows, in so many tensors."""
    shapes = {f"t{k}": np.ones((rows, 2) if k else (rows, 4), np.float32) for k in range(tensors)}
    save_file({**shapes, "block": np.ones((4, 4), np.float32)}, folder / "model.safetensors")
    write(folder / "config.json", {"vocab_size": rows, **config})


@pytest.mark.parametrize(
    ("config", "objective", "tensors", "headless"),
    [
        ({"model_type": "roberta", "architectures": ["RobertaModel"]}, "mlm", 1, "RobertaModel"),
        # As much with the head of another task, but not with one that was saved after all.
        (
            {"model_type": "roberta", "architectures": ["RobertaForTokenClassification"]},
            "mlm",
            1,
            "RobertaForTokenClassification",
        ),
        ({"model_type": "roberta", "architectures": ["RobertaModel"]}, "mlm", 2, None),
        ({"model_type": "roberta", "architectures": ["RobertaForMaskedLM"]}, "mlm", 1, None),
        ({"model_type": "roberta", "architectures": ["RobertaModel"]}, "contrastive", 1, None),
        # A causal model may predict with its embedding, unless it says that it does not.
        ({"model_type": "llama", "architectures": ["LlamaModel"]}, "clm", 1, None),
        (
            {
                "model_type": "llama",
                "architectures": ["LlamaModel"],
                "tie_word_embeddings": False,
            },
            "clm",
            1,
            "LlamaModel",
        ),
    ],
)
def test_a_head_that_was_not_saved_is_missed_where_it_is_asked_for(
    folder, config, objective, tensors, headless
):
    weights(folder, rows=70, tensors=tensors, **config)
    write(folder / "tokenizer_config.json", {"mask_token": "[MASK]"})
    ability = ability_of(resolve(folder))
    if headless is None:
        ability.require("mine", objective, {})
        return
    with pytest.raises(UserError, match=f"model mine: was saved as {headless}, without the head"):
        ability.require("mine", objective, {})


def test_spans_are_masked_by_sentinels_or_by_a_mask_token(folder):
    write(folder / "config.json", {"model_type": "t5", "is_encoder_decoder": True})
    assert resolve(folder).pretraining == "span_corruption"
    with pytest.raises(UserError, match="no mask token, which objective span_corruption needs"):
        ability_of(resolve(folder)).require("mine", "span_corruption", {})
    write(folder / "tokenizer.json", {"added_tokens": [{"id": 3, "content": "<extra_id_0>"}]})
    ability_of(resolve(folder)).require("mine", "span_corruption", {})


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("command", ["plan", "run"])
def test_plan_and_run_refuse_alike(tmp_path, command):
    file = tmp_path / "s.yaml"
    file.write_text(SWEEP.format(train="[41]", probe=16))
    answer = subprocess.run(
        [sys.executable, "-m", "orchestrator", command, file, "--store", tmp_path / "store"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.returncode == 2
    assert "sequence_length 41 is beyond the 40 positions of model mine" in answer.stderr
    assert answer.stderr.count("\n") == 1
    assert not (tmp_path / "store").exists()


def test_a_chat_template_is_seen_wherever_it_lies(folder):
    assert lacks_chat_template(folder)
    with pytest.raises(UserError, match=r"mine: its tokenizer has no chat template.*add chat_temp"):
        ability_of(resolve(folder)).require_template("mine")
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    ability_of(resolve(folder)).require_template("mine")
    (folder / "chat_template.jinja").unlink()
    write(folder / "tokenizer_config.json", {"chat_template": "{{ messages }}"})
    assert not lacks_chat_template(folder)


@pytest.mark.parametrize("objective", ["sft", "preference"])
def test_answers_ask_for_the_head_of_a_decoder(folder, objective):
    shape = {"n_positions": 40, "vocab_size": 9, "tie_word_embeddings": False}
    bare = {"model_type": "gpt2", "architectures": ["GPT2Model"], **shape}
    write(folder / "config.json", bare)
    save_file({"wte.weight": np.ones((9, 4), np.float32)}, folder / "model.safetensors")
    ability = ability_of(resolve(folder, pretraining="clm"))
    with pytest.raises(UserError, match=f"saved as GPT2Model, without the head.*{objective}"):
        ability.require("mine", objective, {})
    ability.require("mine", "regression", {})
