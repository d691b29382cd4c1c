"""A place that cannot keep what a store relies on is refused at the first command, in words."""

import errno
import os

import pytest

from sweeps.errors import UserError
from sweeps.files import folder_records
from sweeps.files.objects import ObjectFiles
from sweeps.files.records import versions
from sweeps.leases import capability
from sweeps.leases.capability import shortcoming
from sweeps.store.store import Store


@pytest.fixture(params=["folder", "s3"])
def store(request, tmp_path):
    folder = request.param == "folder"
    return Store.at(str(tmp_path) if folder else request.getfixturevalue("s3_url"))


def test_a_place_that_does_all_of_it_is_taken_and_keeps_one_record(store):
    store.identify()
    assert shortcoming(store.root) is None
    assert shortcoming(store.root) is None
    assert [path.name for path in (store.root / "probe").iterdir()] == [capability.COMMON]
    assert store.complaint(store.identify(), thorough=True) is None


def test_a_file_system_without_hard_links_is_named(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(folder_records.os, "link", refuse)
    with pytest.raises(UserError, match="makes no hard links: give a folder on a local disk, NFS"):
        Store.at(str(tmp_path / "store")).identify()


def test_a_file_system_that_renames_what_is_not_there_is_named(tmp_path, monkeypatch):
    Store.at(str(tmp_path)).identify()

    def rename(seen, new):
        del seen
        new.touch()
        return True

    monkeypatch.setattr(folder_records, "_rename", rename)
    assert "two processes may create or replace one file here" in shortcoming(tmp_path)
    assert os.listdir(tmp_path / "probe") == [capability.COMMON]


@pytest.mark.parametrize("ignored", ["create", "replace_if"])
def test_a_server_that_ignores_a_condition_is_named(s3_url, monkeypatch, ignored):
    Store.at(s3_url).identify()

    def put(files, key, data, *_):
        files.put(key, data)
        return files.tag(key)

    monkeypatch.setattr(ObjectFiles, ignored, put)
    with pytest.raises(UserError, match="the server ignores the conditions If-None-Match and If-M"):
        Store.at(s3_url).identify()


def test_a_place_that_replaces_and_denies_it_is_named(tmp_path, monkeypatch):
    real, versions_seen = capability.replace_if, []

    def denies(place, data, version, by):
        versions_seen.append(version)
        current = versions(place.parent)[place.name]
        new = real(place, data, current, by)
        return new if len(versions_seen) == 1 else None

    monkeypatch.setattr(capability, "replace_if", denies)
    assert "two processes may create or replace one file here" in shortcoming(tmp_path)
    assert versions_seen[0] == versions_seen[1], "the second names what is there no more"
