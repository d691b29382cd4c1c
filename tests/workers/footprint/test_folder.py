"""A model folder that a run would refuse is refused before anything starts, and so is a probe's
file that is too short for it."""

import json

import pytest
from shaped_folder import llama_config, llama_tensors, shaped_folder, write_holes
from small_run import make_run

from sweeps.sources.content import data_digest, folder_digest
from sweeps.spec import FileData, FolderModel, ModelSpec, Probe
from workers.footprint.__main__ import answer
from workers.footprint.word_tokenizer import WORD

CONFIG = llama_config(2, 256, 1000, 512)


@pytest.fixture
def folder(tmp_path):
    shaped_folder(tmp_path / "model", CONFIG)
    return tmp_path / "model"


def asked(folder, **changes):
    """Return what is answered about a run of a folder."""
    digest = folder_digest(folder, trusted=False)
    source = FolderModel(folder=str(folder), digest=digest, pretraining="clm")
    run = make_run(model=ModelSpec(name="sized", source=source), **changes)
    return answer(json.dumps({"run": run.model_dump_json(), "only": "usable"}))


def lose_a_weight(folder):
    shapes = llama_tensors(CONFIG)
    del shapes["model.layers.1.mlp.up_proj.weight"]
    write_holes(folder / "model.safetensors", shapes)


def add_a_weight(folder):
    shapes = {**llama_tensors(CONFIG), "model.layers.0.self_attn.q_proj.bias": [256]}
    write_holes(folder / "model.safetensors", shapes)


def say(**settings):
    return lambda folder: (folder / "config.json").write_text(json.dumps({**CONFIG, **settings}))


def cut_the_tokenizer(folder):
    (folder / "tokenizer.json").write_text("{")


def enlarge_the_vocabulary(folder):
    path = folder / "tokenizer.json"
    tokenizer = json.loads(path.read_text())
    tokenizer["model"]["vocab"]["beyond"] = 1000
    path.write_text(json.dumps(tokenizer))


REFUSED = {
    "its checkpoint lacks model.layers.1.mlp.up_proj.weight": lose_a_weight,
    "its weights have model.layers.0.self_attn.q_proj.bias, for which": add_a_weight,
    "(1000, 256), and config.json makes it (1000, 512), and 20 more": say(hidden_size=512),
    "its weights have model.layers.1.input_layernorm.weight and 8 more": say(num_hidden_layers=1),
    "ZeroDivisionError": say(num_attention_heads=0),
    "Field 'hidden_size' expected int, got str (value: '256'); correct": say(hidden_size="256"),
    "transformers knows no hidden_act 'nonsense'; give another": say(hidden_act="nonsense"),
    "transformers knows no rope_parameters.rope_type 'nonsense'; give another": say(
        rope_parameters={"rope_type": "nonsense"}
    ),
    "attention by flash_attention_2, not installed here; remove `_attn_implementation`": say(
        attn_implementation="flash_attention_2"
    ),
    "cannot be loaded from": cut_the_tokenizer,
    "token 'beyond' has id 1000, and the embedding 1000 rows": enlarge_the_vocabulary,
}


def test_a_folder_whose_weights_are_those_of_its_configuration_is_usable(folder):
    assert asked(folder) == {"usable": True}


@pytest.mark.parametrize("said", REFUSED)
def test_a_folder_that_a_run_would_refuse_is_refused_in_one_line(folder, said):
    REFUSED[said](folder)
    refused = asked(folder)["refused"]
    assert refused.startswith("model sized: ")
    assert said in refused
    assert len(refused.replace(str(folder), "")) < 300


@pytest.mark.parametrize(("words", "enough"), [(400, False), (4000, True)])
def test_a_probe_s_file_is_refused_that_gives_too_few_rows(folder, tmp_path, words, enough):
    """Rows of 64 sequences of 16 tokens need more than a thousand words."""
    text = tmp_path / "probe.txt"
    text.write_text("\n".join([" ".join([WORD] * 10)] * (words // 10)))
    data = FileData(file=str(text), digest=data_digest([text]))
    found = asked(folder, probe=Probe(data=data, sequence_length=16, rows=64, every=2, seed=0))
    if enough:
        assert found == {"usable": True}
    else:
        assert "probe: probe.txt gives" in found["refused"]
        assert "64 are needed for a width of 256" in found["refused"]
