"""What counts as a model's or a dataset's content, and that it is looked at again."""

import itertools
import json
import os
import shutil
from concurrent.futures import ThreadPoolExecutor

import pytest
from small_run import make_run

from sweeps.errors import UserError
from sweeps.sources import content
from sweeps.sources.content import (
    data_digest,
    folder_digest,
    held_to_its_digest,
    model_files,
    require_content,
    require_sources,
    sha256_of,
)
from sweeps.spec import BuiltinData, FileData, FolderModel, Objective


@pytest.fixture(autouse=True)
def node(tmp_path, monkeypatch):
    monkeypatch.setenv("DEPTHSWEEP_CACHE", str(tmp_path / "node"))
    monkeypatch.setattr(content, "REMEMBERED_BYTES", 0)
    monkeypatch.setattr(content, "SETTLED_SECONDS", -1.0)
    return tmp_path / "node" / "digests"


@pytest.fixture
def folder(tmp_path):
    place = tmp_path / "model"
    (place / "parts").mkdir(parents=True)
    for name in ("config.json", "a.safetensors", "merges.txt", "new_kind.of_file", "parts/x.py"):
        (place / name).write_text(f"content of {name}")
    return place


def test_any_file_counts_whatever_it_is_called_and_so_does_its_name(folder):
    before = folder_digest(folder, trusted=False)
    seen = {before}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            text = path.read_text()
            path.write_text(text[:-1] + "#")
            seen.add(folder_digest(folder, trusted=False))
            path.write_text(text)
    assert len(seen) == 6
    (folder / "merges.txt").rename(folder / "merge.txt")
    assert folder_digest(folder, trusted=False) not in seen


def test_what_loading_never_opens_does_not_count_unless_code_is_trusted(folder):
    plain, trusted = (folder_digest(folder, trusted=code) for code in (False, True))
    for name in ("README.md", "LICENSE", "tf_model.h5", "model.onnx"):
        (folder / name).write_text("more")
    assert folder_digest(folder, trusted=False) == plain
    with_words = folder_digest(folder, trusted=True)
    assert with_words != trusted
    for name in (".git/HEAD", "__pycache__/x.pyc"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("more")
    assert folder_digest(folder, trusted=True) == with_words
    seen = {with_words}
    for name in ("checkpoint-20/optimizer.pt", ".gitattributes", ".hidden/code.py"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("more")
        seen.add(folder_digest(folder, trusted=True))
    assert len(seen) == 4, "code that came with a model may read anything beside it"
    assert folder_digest(folder, trusted=False) == plain
    (folder / "checkpoints").mkdir()
    (folder / "checkpoints/a.py").write_text("x = 1")
    assert folder_digest(folder, trusted=False) != plain


def test_links_are_followed_and_a_link_that_leads_back_is_left(folder, tmp_path):
    blob = tmp_path / "blob"
    blob.write_text("weights")
    (folder / "b.safetensors").symlink_to(blob)
    (folder / "loop").symlink_to(folder)
    assert folder / "b.safetensors" in model_files(folder, trusted=False)
    before = folder_digest(folder, trusted=False)
    blob.write_text("Weights")
    assert folder_digest(folder, trusted=False) != before


def test_a_link_that_comes_to_lead_elsewhere_is_another_folder(folder):
    for name in ("large", "small"):
        (folder / name).mkdir()
        (folder / name / "scale.json").write_text(name)
    link = folder / "variant"
    link.symlink_to("large")
    before = folder_digest(folder, trusted=True)
    link.unlink()
    link.symlink_to("small")
    assert folder_digest(folder, trusted=True) != before


def replaced_in_place(path):
    path.write_bytes(b"B" * 64)


def replaced_by_a_rename(path):
    other = path.with_suffix(".other")
    other.write_bytes(b"B" * 64)
    shutil.copystat(path, other)
    other.replace(path)


@pytest.mark.parametrize("replace", [replaced_in_place, replaced_by_a_rename])
def test_other_content_of_one_size_and_time_is_seen(tmp_path, replace):
    path = tmp_path / "data.txt"
    path.write_bytes(b"A" * 64)
    os.utime(path, (10**9, 10**9))
    before = data_digest([path])
    replace(path)
    os.utime(path, (10**9, 10**9))
    assert data_digest([path]) != before


def test_a_large_file_is_hashed_once_and_anew_when_it_is_asked_for(tmp_path, node):
    path = tmp_path / "weights"
    path.write_bytes(b"A" * 64)
    digest = sha256_of(path)
    (record,) = node.glob("*.json")
    said = json.loads(record.read_text())
    record.write_text(json.dumps({**said, "sha256": "0" * 64}))
    assert sha256_of(path) == "0" * 64
    assert sha256_of(path, anew=True) == digest


@pytest.mark.parametrize("harm", ["", "{", "[]", '{"signature": 3, "sha256": "x"}', "\x00\xff"])
def test_a_torn_record_is_as_none(tmp_path, node, harm):
    path = tmp_path / "weights"
    path.write_bytes(b"A" * 64)
    digest = sha256_of(path)
    (record,) = node.glob("*.json")
    record.write_text(harm)
    assert sha256_of(path) == digest
    assert json.loads(record.read_text())["sha256"] == digest


def test_a_node_without_a_cache_hashes_each_time(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("DEPTHSWEEP_CACHE", str(tmp_path / "file"))
    path = tmp_path / "weights"
    path.write_bytes(b"A" * 64)
    assert sha256_of(path) == sha256_of(path, anew=True)


def test_a_file_that_has_just_changed_is_not_remembered_yet(tmp_path, node, monkeypatch):
    monkeypatch.setattr(content, "SETTLED_SECONDS", 60.0)
    (tmp_path / "weights").write_bytes(b"A" * 64)
    sha256_of(tmp_path / "weights")
    assert not list(node.glob("*"))


def test_many_that_hash_one_file_agree_and_leave_one_record(tmp_path, node):
    path = tmp_path / "weights"
    path.write_bytes(b"A" * 10_000)
    with ThreadPoolExecutor(8) as pool:
        found = set(pool.map(lambda _: sha256_of(path), range(64)))
    assert len(found) == 1
    assert [json.loads(p.read_text())["sha256"] for p in node.iterdir()] == list(found)


def test_other_content_is_refused_with_both_digests_and_the_place(tmp_path):
    path = tmp_path / "rows.txt"
    path.write_text("one")
    data = FileData(file=str(path), digest=data_digest([path]))
    require_content(data, "dataset rows")
    path.write_text("two")
    with pytest.raises(UserError) as refused:
        require_content(data, "dataset rows")
    for word in (str(path), data.digest[:12], data_digest([path])[:12]):
        assert word in str(refused.value)
    path.unlink()
    with pytest.raises(UserError, match="is not there"):
        require_content(data, "dataset rows")


def test_a_corpus_of_another_python_is_refused():
    with pytest.raises(UserError, match="corpus python-docs"):
        require_content(BuiltinData(builtin="python-docs", digest="0" * 64), "probe")


def test_a_folder_that_changes_while_it_is_loaded_is_refused(folder):
    digest = folder_digest(folder, trusted=False)
    source = FolderModel(folder=str(folder), digest=digest, pretraining="clm")
    with held_to_its_digest(source, "model mine"):
        pass
    with (
        pytest.raises(UserError, match="model mine: was changed while it was loaded"),
        held_to_its_digest(source, "model mine"),
    ):
        (folder / "new.json").write_text("{}")


def test_of_many_runs_each_source_that_is_here_is_looked_at(tmp_path):
    path = tmp_path / "rows.txt"
    path.write_text("one")
    here = Objective(kind="clm", data=FileData(file=str(path), digest=data_digest([path])))
    away = Objective(kind="clm", data=FileData(file="/nowhere/rows.txt", digest="0" * 64))
    runs = [make_run(objective=objective, seed=k) for k, objective in enumerate((away, here, here))]
    require_sources(runs)
    path.write_text("two")
    with pytest.raises(UserError, match=r"dataset rows\.txt: .* has other content"):
        require_sources(runs)


def test_many_names_for_one_folder_are_walked_once(tmp_path):
    places = [tmp_path / f"{k:02d}" for k in range(24)]
    for place, below in itertools.pairwise(places):
        place.mkdir()
        for name in ("left", "right"):
            (place / name).symlink_to(below)
    places[-1].mkdir()
    (places[-1] / "config.json").write_text("{}")
    assert len(model_files(places[0], trusted=True)) == 1
    before = folder_digest(places[0], trusted=True)
    (places[-1] / "config.json").write_text("{ }")
    assert folder_digest(places[0], trusted=True) != before


def test_folders_may_be_nested_deeper_than_python_recurses(folder):
    place = folder
    for _ in range(400):
        place = place / "d"
    place.mkdir(parents=True)
    (place / "x.json").write_text("1")
    assert place / "x.json" in model_files(folder, trusted=False)
