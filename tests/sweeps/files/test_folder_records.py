"""What records in a folder leave beside them, and what of it is needed."""

import contextlib
import os

from sweeps.files.folder_records import create, left, replace_if, versions


def names(paths):
    return sorted(path.name for path in paths)


def test_what_a_crash_left_on_its_way_into_place_is_not_needed(tmp_path):
    create(tmp_path / "1.json", b"{}", "one")
    create(tmp_path / "DONE.json", b"{}")
    for name in (".1.json.ab12.tmp", ".DONE.json.77-cd.tmp"):
        (tmp_path / name).write_bytes(b"{}")
    assert names(left(tmp_path)) == [".1.json.ab12.tmp", ".DONE.json.77-cd.tmp"]


def test_the_seal_of_the_newest_record_is_needed_and_so_is_a_claimants(tmp_path, monkeypatch):
    create(tmp_path / "1.json", b"{}", "one")
    create(tmp_path / "2.json", b"{}", "two")
    before = versions(tmp_path)

    def dies(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "link", dies)
    monkeypatch.setattr("pathlib.Path.unlink", lambda *_, **__: None)  # nor does it clean up
    with contextlib.suppress(KeyboardInterrupt):
        create(tmp_path / "3.json", b"{}", "three")
    assert names(left(tmp_path)) == [before["1.json"]]


def test_nothing_is_left_of_records_that_have_ended(tmp_path):
    for number in (1, 2, 3):
        path = tmp_path / f"{number}.json"
        seen = create(path, b"{}", "me")
        seen = replace_if(path, None, seen, "me")
        assert replace_if(path, b'{"ended": 1}', seen, "me", last=True) == ""
    assert left(tmp_path) == []
    assert left(tmp_path / "none") == []


def test_whose_new_content_was_put_away_has_not_replaced_the_record(tmp_path, monkeypatch):
    path = tmp_path / "1.json"
    version = create(path, b"{}", "me")
    rename = os.rename

    def meanwhile(source, target):
        rename(source, target)
        for found in left(tmp_path):
            found.unlink()

    monkeypatch.setattr(os, "rename", meanwhile)
    assert replace_if(path, b'{"new": 1}', version, "me") is None
    assert path.read_bytes() == b"{}"
