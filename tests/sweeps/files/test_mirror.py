"""What readers of an object store work on: fetched once, brought up to date, never trusted."""

import pytest

from sweeps.files.mirror import Mirror
from sweeps.files.whole_files import write_json, write_text
from sweeps.store.store import Store
from sweeps.upkeep.audit import audit

PART = "part-000000-000003.parquet"


@pytest.fixture
def store(s3_url):
    store = Store.at(s3_url)
    write_json(store.run("abc").path / "run.json", {"spec": {}, "facts": {}})
    write_json(store.run("abc").path / "DONE.json", {"status": "finished"})
    write_text(store.run("abc").part_path("steps", 0, 3), "rows")
    write_text(store.run("abd").part_path("steps", 0, 3), "rows of a run that has not ended")
    write_text(store.run("abd").checkpoint_path(3) / "layer.safetensors", "tensors")
    return store


def files(mirror):
    return {
        str(path.relative_to(mirror.folder))
        for path in mirror.folder.rglob("*")
        if path.is_file() and not path.name.startswith(".")
    }


def fetched(monkeypatch, store):
    """Return the list that the keys of each fetch are added to."""
    keys = []
    get_many = store.root.files.get_many

    def watched(wanted):
        found = get_many(wanted)
        keys.extend(found)
        return found

    monkeypatch.setattr(store.root.files, "get_many", watched)
    return keys


def test_records_come_at_once_and_parts_when_asked_for(store, tmp_path):
    mirror = Mirror(store.root, tmp_path)
    mirror.refresh()
    records = {"runs/abc/run.json", "runs/abc/DONE.json", "runs/abd/steps/" + PART}
    assert files(mirror) == records
    mirror.bring([f"{mirror.folder}/runs/abc/steps/{PART}", f"{mirror.folder}/runs/none"])
    assert files(mirror) == records | {f"runs/abc/steps/{PART}"}


def test_only_what_changed_is_fetched_again_and_what_went_is_dropped(store, tmp_path, monkeypatch):
    Mirror(store.root, tmp_path).refresh()
    keys = fetched(monkeypatch, store)
    mirror = Mirror(store.root, tmp_path)
    mirror.refresh()
    assert keys == []
    write_json(store.run("abc").path / "run.json", {"spec": {"a": 1}, "facts": {}})
    store.run("abd").forget()
    mirror.refresh()
    assert keys == ["runs/abc/run.json"]
    assert files(mirror) == {"runs/abc/run.json", "runs/abc/DONE.json"}
    assert Store(mirror.folder).run("abc").record()["spec"] == {"a": 1}


def test_an_audit_does_not_trust_what_was_fetched_before(store, s3_url):
    """Harm to the copy is no harm to the store, and must not be mended there."""
    reading = store.reading()
    (reading.run("abc").path / "run.json").write_text("{")
    before = {finding.what for finding in audit(store)}
    assert "run.json cannot be read" not in before
    (store.run("abc").path / "DONE.json").unlink()
    write_text(store.run("abc").path / "run.json", "{")
    (finding,) = audit(Store.at(s3_url))
    assert finding.what == "run.json cannot be read"
    finding.mend()
    assert not (store.run("abc").path / "run.json").exists()
    assert list(audit(store)) == []
