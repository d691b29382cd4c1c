"""Folders of a store listed, copied and removed, over files and over objects alike."""

import hashlib
import os
import time

import pytest

from sweeps.files.records import put_new
from sweeps.files.trees import (
    Damaged,
    copy_file,
    files_below,
    folders_below,
    remove,
    untouched,
)
from sweeps.files.whole_files import write_text
from sweeps.store.store import Store


@pytest.fixture(params=["folder", "s3"])
def place(request, tmp_path):
    if request.param == "folder":
        return tmp_path / "place"
    return Store.at(request.getfixturevalue("s3_url")).root


def test_files_are_listed_by_name_with_their_bytes(place):
    assert files_below(place / "none") == {}
    write_text(place / "a" / "b" / "c", "four")
    write_text(place / "a" / ".hidden", "x")
    write_text(place / "d" / "e", "")
    assert {name: seen.bytes for name, seen in files_below(place / "a").items()} == {
        "b/c": 4,
        ".hidden": 1,
    }
    assert {name: sorted(files) for name, files in folders_below(place)} == {
        "a": [".hidden", "b/c"],
        "d": ["e"],
    }
    assert list(folders_below(place / "none")) == []


def test_a_copy_is_checked_and_put_whole(place, tmp_path):
    source = tmp_path / "source"
    source.write_bytes(b"content" * 1000)
    checksum = hashlib.sha256(source.read_bytes()).hexdigest()
    assert copy_file(source, place / "x" / "copy", checksum) == 7000
    assert (place / "x" / "copy").read_bytes() == source.read_bytes()
    with pytest.raises(Damaged, match="does not match its checksum"):
        copy_file(place / "x" / "copy", place / "x" / "other", "0" * 64)
    with pytest.raises(FileNotFoundError):
        copy_file(place / "x" / "none", place / "x" / "other")
    assert sorted(files_below(place / "x")) == ["copy"]


def test_a_new_file_replaces_none(place):
    assert put_new(place / "x" / "DONE.json", b"first")
    assert not put_new(place / "x" / "DONE.json", b"second")
    assert (place / "x" / "DONE.json").read_bytes() == b"first"
    assert sorted(files_below(place)) == ["x/DONE.json"]


def test_what_is_removed_is_gone_and_nothing_else(place):
    for name in ("a", "ab"):
        write_text(place / name / "b", "x")
    remove(place / "a")
    remove(place / "none")
    assert sorted(files_below(place)) == ["ab/b"]
    remove(place / "ab" / "b")
    assert sorted(files_below(place)) == []


def test_a_file_is_untouched_by_the_clock_of_its_own_server(tmp_path):
    path = tmp_path / "a" / "b"
    write_text(path, "x")
    assert not untouched(path, 5)
    old = time.time() - 10
    os.utime(path, (old, old))
    os.utime(path.parent, (old, old))
    assert untouched(path, 5)
    assert untouched(path.parent, 5)
    os.utime(path, (time.time(), old))
    assert not untouched(path, 5)
    assert not untouched(tmp_path / "none", 5)


def test_links_are_not_followed(tmp_path):
    write_text(tmp_path / "outside" / "file", "kept")
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "link").symlink_to(tmp_path / "outside")
    assert files_below(tmp_path / "a") == {}
    remove(tmp_path / "a" / "link")
    assert (tmp_path / "outside" / "file").exists()
