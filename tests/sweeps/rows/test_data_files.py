"""Which files a path means."""

from __future__ import annotations

from pathlib import Path

import pytest

from sweeps.errors import UserError
from sweeps.rows.data_files import data_files
from sweeps.rows.local_rows import read_rows


def names(path: Path, split: str | None = None) -> list[str]:
    return [file.name for file in data_files(path, split)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "many"
    place.mkdir()
    for name in ("b.jsonl", "a.jsonl", "c.jsonl.gz", ".hidden.jsonl", "README.md", "_SUCCESS"):
        (place / name).write_text('{"text": "x"}\n')
    return place


def test_a_folder_is_its_data_files_by_name(folder: Path) -> None:
    assert names(folder) == ["a.jsonl", "b.jsonl", "c.jsonl.gz"]


def test_a_pattern_is_one_only_where_no_file_is_called_so(folder: Path) -> None:
    assert names(folder / "[ab].jsonl") == ["a.jsonl", "b.jsonl"]
    (folder / "[ab].jsonl").write_text("")
    assert names(folder / "[ab].jsonl") == ["[ab].jsonl"]


@pytest.mark.parametrize(
    ("name", "said"),
    [("none-*.jsonl", "no such file"), ("none.jsonl", "no such file"), ("empty", "no data file")],
)
def test_nothing_is_a_mistake(folder: Path, name: str, said: str) -> None:
    (folder / "empty").mkdir()
    with pytest.raises(UserError, match=said):
        data_files(folder / name, None)


def test_files_of_unlike_formats_are_no_dataset(folder: Path) -> None:
    (folder / "d.csv").write_text("text\n")
    with pytest.raises(UserError, match=r"unlike formats"):
        data_files(folder, None)


def test_a_split_is_of_a_saved_dataset(folder: Path) -> None:
    with pytest.raises(UserError, match="`split` names a part"):
        data_files(folder, "train")


def test_what_datasets_saves_is_read_in_its_order(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    texts = [f"text {k}" for k in range(23)]
    table = datasets.Dataset.from_dict({"text": texts})
    table.save_to_disk(str(tmp_path / "one"), num_shards=3)
    files = data_files(tmp_path / "one", None)
    assert len(files) == 3
    assert read_rows(files, {"text": "text"}).cells["text"] == texts
    files[1].unlink()
    with pytest.raises(UserError, match=f"lacks {files[1].name}"):
        data_files(tmp_path / "one", None)


def test_of_several_splits_one_is_to_be_named(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    splits = {
        name: datasets.Dataset.from_dict({"text": [name]}) for name in ("train", "validation")
    }
    datasets.DatasetDict(splits).save_to_disk(str(tmp_path / "both"))
    with pytest.raises(UserError, match="splits train, validation; say which"):
        data_files(tmp_path / "both", None)
    with pytest.raises(UserError, match="no split 'valid'"):
        data_files(tmp_path / "both", "valid")
    files = data_files(tmp_path / "both", "validation")
    assert read_rows(files, {"text": "text"}).cells["text"] == ["validation"]
