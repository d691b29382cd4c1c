"""What a model's own files say before it is loaded."""

import json

import numpy as np
import pytest
from safetensors.numpy import save_file

from sweeps.declaration.expand import read_sweep
from sweeps.declaration.sources import resolve_model
from sweeps.declaration.sweep_spec import ModelEntry
from sweeps.errors import UserError
from sweeps.sources.model_folder import lacks_mask_token, longest_sequence, positions_of
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
    ],
)
def test_a_folder_that_cannot_be_loaded_is_refused_while_the_sweep_is_read(folder, harm, said):
    assert resolve(folder).pretraining == "mlm"
    harm(folder)
    with pytest.raises(UserError, match=rf"model 'mine': .*{said}"):
        resolve(folder)


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
    ],
    ids=lambda value: value.get("model_type") if isinstance(value, dict) else str(value),
)
def test_positions_are_those_a_token_can_be_at(config, positions):
    assert positions_of(config) == positions


def test_the_mask_token_is_missed_only_where_the_files_are_all_there_is(folder):
    source = resolve(folder)
    assert lacks_mask_token(source)
    write(folder / "special_tokens_map.json", {"mask_token": "[MASK]"})
    assert not lacks_mask_token(source)
    (folder / "special_tokens_map.json").unlink()
    write(folder / "tokenizer_config.json", {"tokenizer_class": "BertTokenizer"})
    assert not lacks_mask_token(source)


@pytest.mark.parametrize("family", STANDIN_FAMILIES)
def test_a_stand_ins_positions_are_known_without_it(family):
    limit = longest_sequence(StandinModel(standin=family, pretraining="clm", digest="d"))
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
