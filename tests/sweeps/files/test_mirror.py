"""What readers of an object store work on: fetched once, brought up to date, never trusted."""

import pytest

from sweeps.files.listing import FEW
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


def test_what_is_asked_for_comes_and_nothing_else(store, tmp_path):
    write_text(store.root / "index" / "closed-1.jsonl", "{}")
    write_text(store.sweep_folder("s") / "spec.yaml", "name: s")
    mirror = Mirror(store.root, tmp_path)
    mirror.refresh()
    beside = {"index/closed-1.jsonl", "sweeps/s/spec.yaml"}
    assert files(mirror) == beside
    mirror.look(["runs/abc", "runs/none"])
    records = {"runs/abc/run.json", "runs/abc/DONE.json"}
    assert files(mirror) == beside | records
    mirror.bring([f"{mirror.folder}/runs/abc/steps/{PART}", f"{mirror.folder}/runs/none/steps/x"])
    assert files(mirror) == beside | records | {f"runs/abc/steps/{PART}"}


def test_parts_of_runs_that_have_not_ended_come_when_they_are_asked_for(store, tmp_path):
    mirror = Mirror(store.root, tmp_path)
    mirror.refresh()
    mirror.look(None)
    assert files(mirror) == {"runs/abc/run.json", "runs/abc/DONE.json"}
    mirror.look(["runs/abd"], parts=True)
    assert files(mirror) == {"runs/abc/run.json", "runs/abc/DONE.json", f"runs/abd/steps/{PART}"}


def test_only_what_changed_is_fetched_again_and_what_went_is_dropped(store, tmp_path, monkeypatch):
    def looked():
        mirror = Mirror(store.root, tmp_path)
        mirror.refresh()
        mirror.look(None, parts=True)
        return mirror

    looked()
    keys = fetched(monkeypatch, store)
    looked()
    assert keys == []
    write_json(store.run("abc").path / "run.json", {"spec": {"a": 1}, "facts": {}})
    store.run("abd").forget()
    mirror = looked()
    assert keys == ["runs/abc/run.json"]
    assert files(mirror) == {
        *(f"runs/abc/{name}" for name in ("run.json", "DONE.json", f"steps/{PART}"))
    }
    assert Store(mirror.folder).run("abc").record()["spec"] == {"a": 1}


def test_what_is_left_out_is_not_fetched_and_may_be_old(store, tmp_path):
    mirror = Mirror(store.root, tmp_path)
    mirror.refresh()
    mirror.look(None, but={"runs/abc"})
    assert files(mirror) == set()
    assert mirror.names("runs") == ["abc", "abd"]


def test_many_runs_are_listed_together_and_few_one_by_one(store, tmp_path, monkeypatch):
    listed = []
    listing = type(store.root.files).listing
    monkeypatch.setattr(
        type(store.root.files), "listing", lambda me, at: listed.append(at) or listing(me, at)
    )
    mirror = Mirror(store.root, tmp_path)
    mirror.refresh()
    assert sorted(listed) == ["index/", "sweeps/"]
    del listed[:]
    mirror.look(["runs/abc", "runs/abd"])
    assert sorted(listed) == ["runs/abc/", "runs/abd/"]
    del listed[:]
    mirror.look([f"runs/{k:03}" for k in range(FEW + 1)])
    assert listed == ["runs/"]
    mirror.look(["runs/abc", "runs/another"])
    assert listed == ["runs/"]


def test_a_part_of_one_attempt_is_known_by_its_name(store, tmp_path, monkeypatch):
    name = "part-000000-000003.a2-1f2e3d4c.parquet"
    write_text(store.run("abc").path / "steps" / name, "rows")
    mirror = Mirror(store.root, tmp_path)
    mirror.refresh()
    keys = fetched(monkeypatch, store)
    monkeypatch.setattr(type(store.root.files), "listing", None)  # nothing is listed
    gone = f"{mirror.folder}/runs/abc/steps/part-000003-000006.a2-1f2e3d4c.parquet"
    for _ in range(2):
        mirror.bring([f"{mirror.folder}/runs/abc/steps/{name}", gone])
    assert keys == [f"runs/abc/steps/{name}"]
    assert not (tmp_path / gone).exists()


def test_a_file_of_the_index_that_was_merged_meanwhile_is_fetched_where_it_went(store, tmp_path):
    write_text(store.root / "index" / "closed-1.jsonl", "one")
    get_many = store.root.files.get_many

    def merged(keys):
        keys = list(keys)
        if "index/closed-1.jsonl" in [key.removeprefix(store.root.key) for key in keys]:
            write_text(store.root / "index" / "closed-2.jsonl", "one and two")
            (store.root / "index" / "closed-1.jsonl").unlink()
        return get_many(keys)

    object.__setattr__(store.root.files, "get_many", merged)
    mirror = Mirror(store.root, tmp_path)
    mirror.refresh()
    assert files(mirror) == {"index/closed-2.jsonl"}


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
