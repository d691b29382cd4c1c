"""What of the hub is on this machine: found where huggingface_hub keeps it, and looked at."""

import json

import numpy as np
import pytest
from huggingface_hub import constants
from safetensors.numpy import save_file

from sweeps.declaration.expand import read_sweep
from sweeps.errors import UserError
from sweeps.sources.hub_cache import cached_snapshot, hub_cache

REVISION = "5f" * 20


def test_the_cache_is_where_huggingface_hub_has_it(monkeypatch, tmp_path):
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert hub_cache() == tmp_path / ".cache" / "huggingface" / "hub"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "x"))
    assert hub_cache() == tmp_path / "x" / "huggingface" / "hub"
    monkeypatch.setenv("HF_HOME", "~/h")
    assert hub_cache() == tmp_path / "h" / "hub"
    monkeypatch.setenv("HF_HUB_CACHE", "$HOME/c")
    assert hub_cache() == tmp_path / "c"
    assert constants.HF_HUB_CACHE  # the name it has there, too


@pytest.fixture
def snapshot(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    place = tmp_path / "cache" / "models--lab--mixer" / "snapshots" / REVISION
    place.mkdir(parents=True)
    return place


def write(path, content):
    path.write_text(json.dumps(content))


SWEEP = """
name: s
models: {{m: {{hub: lab/mixer, revision: {revision}{more}}}}}
objectives:
  clm: {{data: {{builtin: python-docs}}}}
  mlm: {{data: {{builtin: python-docs}}}}
probe: {{data: {{builtin: python-docs}}, sequence_length: 12}}
defaults: {{steps: 4, batch_size: 4, learning_rate: 1.0e-3, sequence_length: 30}}
blocks:
- name: all
  grid: {{model: [m], objective: [pretraining], control: [standard], seed: [0]}}
"""


def read(tmp_path, more=""):
    file = tmp_path / "s.yaml"
    file.write_text(SWEEP.format(revision=REVISION, more=more))
    return read_sweep(file).runs


def test_nothing_is_known_of_what_is_not_here(snapshot, tmp_path):
    assert cached_snapshot("lab/mixer", REVISION) == snapshot
    assert cached_snapshot("lab/mixer", "0" * 40) is None
    with pytest.raises(UserError, match="say how it was pretrained"):
        read(tmp_path)
    assert len(read(tmp_path, ", pretraining: mlm")) == 1


def test_pretraining_is_told_by_a_configuration_that_is_here_and_decides_nothing_else(
    snapshot, tmp_path
):
    said = read(tmp_path, ", pretraining: mlm")[0].run_id
    write(snapshot / "config.json", {"model_type": "mpnet", "architectures": ["MPNetForMaskedLM"]})
    assert [run.run_id for run in read(tmp_path)] == [said]


@pytest.mark.parametrize(
    ("config", "files", "message"),
    [
        ({"model_type": "mpt", "max_seq_len": 20}, {}, "sequence_length 30 is beyond the 20"),
        ({"model_type": "mpt", "quantization_config": {"quant_method": "awq"}}, {}, r"\(awq\)"),
        ({"model_type": "vit"}, {}, "vit reads images or sound"),
        (
            {"model_type": "mpt", "vocab_size": 7},
            {"tokenizer.json": {"added_tokens": [{"id": 7, "content": "<new>"}]}},
            "token '<new>' with id 7, and the model 7 rows",
        ),
        (None, {"adapter_config.json": {}}, "an adapter .* and not the model"),
    ],
)
def test_what_files_that_are_here_say_is_refused_before_the_rest_is_fetched(
    snapshot, tmp_path, config, files, message
):
    for name, content in files.items():
        write(snapshot / name, content)
    if config is not None:
        write(snapshot / "config.json", config)
    with pytest.raises(UserError, match=message) as refused:
        read(tmp_path, ", pretraining: clm")
    assert len(str(refused.value).replace(str(tmp_path), "")) < 300
    assert "\n" not in str(refused.value)


def test_weights_that_are_here_in_part_are_no_reason_to_refuse(snapshot, tmp_path):
    write(snapshot / "config.json", {"model_type": "mpt"})
    write(snapshot / "model.safetensors.index.json", {"weight_map": {"w": "missing.safetensors"}})
    save_file({"w": np.ones(3, np.float32)}, snapshot / "other.safetensors")
    assert len(read(tmp_path, ", pretraining: clm")) == 1
