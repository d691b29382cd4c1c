"""What a model can be asked for, by its own files, while a sweep is read."""

import subprocess
import sys

import numpy as np
import pytest
from safetensors.numpy import save_file
from shaped_folder import encoder_folder, write

from sweeps.declaration.entries.sweep_spec import ModelEntry
from sweeps.declaration.expand import read_sweep
from sweeps.declaration.sources import resolve_model
from sweeps.errors import UserError
from sweeps.sources.ability import ability_of
from sweeps.sources.tokenizer_files import lacks_chat_template, lacks_token
from sweeps.spec import STANDIN_FAMILIES, StandinModel


@pytest.fixture
def folder(tmp_path):
    return encoder_folder(tmp_path / "model")


def resolve(folder, **entry):
    return resolve_model("mine", {"mine": ModelEntry(folder=str(folder), **entry)}, folder)


def test_the_mask_token_is_missed_only_where_the_files_are_all_there_is(folder):
    assert lacks_token(folder, "mask_token")
    write(folder / "special_tokens_map.json", {"mask_token": "[MASK]"})
    assert not lacks_token(folder, "mask_token")
    (folder / "special_tokens_map.json").unlink()
    write(folder / "tokenizer_config.json", {"tokenizer_class": "BertTokenizer"})
    assert not lacks_token(folder, "mask_token")


CLM = """
name: s
models: {{mine: {{folder: model, pretraining: clm}}}}
objectives: {{{objective}: {{bos: {bos}, data: {{builtin: python-docs}}}}}}
probe: {{data: {{builtin: python-docs}}, sequence_length: 16}}
defaults: {{steps: 4, batch_size: 4, learning_rate: 1.0e-3, sequence_length: 16}}
blocks:
- name: all
  grid: {{model: [mine], objective: [{objective}], control: [standard], seed: [0]}}
"""


def test_a_first_token_is_refused_of_a_tokenizer_that_has_none(folder, tmp_path):
    write(folder / "config.json", {"model_type": "gpt2", "n_positions": 40})
    file = tmp_path / "s.yaml"
    for bos in ("text", "sequence"):
        file.write_text(CLM.format(objective="clm", bos=bos))
        with pytest.raises(
            UserError, match=r"s\.yaml:\d+: model mine: its tokenizer has no token t"
        ):
            read_sweep(file)
    file.write_text(CLM.format(objective="clm", bos="null"))
    silent = read_sweep(file).runs[0]
    assert "bos" not in silent.identity()["objective"]
    write(folder / "tokenizer_config.json", {"bos_token": "<s>"})
    file.write_text(CLM.format(objective="clm", bos="text"))
    assert read_sweep(file).runs[0].objective.bos == "text"
    file.write_text(CLM.format(objective="regression", bos="text"))
    with pytest.raises(UserError, match="bos does nothing with objective regression"):
        read_sweep(file)


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
