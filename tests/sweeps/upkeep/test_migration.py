"""A store of layout 1 is read as it is, and brought to this layout run by run."""

import json

import pyarrow.parquet as pq
import pytest
from planted_store import run_spec, save_sweep, write_run

from sweeps.attempts.compaction import compact
from sweeps.errors import UserError
from sweeps.files.whole_files import file_checksum, read_json, write_json
from sweeps.leases.lease import Lease, owner
from sweeps.reading.digest import digests
from sweeps.reading.tables import open_store
from sweeps.store.records import SEAL, sealed
from sweeps.store.schema import TABLES
from sweeps.store.store import Store
from sweeps.upkeep import migration
from sweeps.upkeep.audit import audit
from sweeps.upkeep.migration import migrate

PROFILE = [0.1, 0.2, 0.4, 0.3]


def as_layout_1(folder, every=7):
    """Give a closed run the files that layout 1 gave it: several parts, named without attempts."""
    done = folder.done()
    parts = {}
    for table in TABLES:
        for path in folder.parts(table):
            rows = pq.read_table(path, partitioning=None)
            path.unlink()
            steps = rows["step"].to_pylist()
            for first in range(0, max(steps), every):
                chosen = [k for k, step in enumerate(steps) if first < step <= first + every]
                if chosen:
                    name = folder.part_path(table, first, first + every)
                    pq.write_table(rows.take(chosen), name)
                    entry = {"rows": len(chosen), "sha256": file_checksum(name)}
                    parts[f"{table}/{name.name}"] = entry
    closing = {name: value for name, value in done.items() if name != SEAL}
    write_json(folder.path / "DONE.json", sealed({**closing, "parts": parts}))


@pytest.fixture
def store(tmp_path):
    store = Store.at(str(tmp_path / "store"))
    runs = [run_spec(seed=seed, steps=20) for seed in range(4)]
    store.identify()
    for run in runs[:3]:
        as_layout_1(write_run(store, run, PROFILE))
    write_run(store, runs[3], PROFILE, status=None, stop=10)
    save_sweep(store, "study", runs)
    write_json(store.root / "store.json", {"id": "abc", "layout": 1})
    return store


def said_of(store):
    return list(digests(open_store(store.root, sweep="study")))


def test_its_rows_are_read_as_they_are_and_stay_what_they_are(store):
    before = said_of(store)
    assert len(store.runs()[0].parts("steps")) > 1
    assert [one.changed for one in migrate(store)].count(True) == 3
    assert said_of(store) == before
    assert read_json(store.root / "store.json") == {"id": "abc", "layout": 2}
    closed = [folder for folder in store.runs() if folder.done()]
    assert {len(folder.parts(table)) for folder in closed for table in ("steps", "layers")} == {1}
    ids = {folder.run_id for folder in closed}
    assert [one.what for one in audit(store) if one.run_id in ids] == []
    assert not any(one.changed for one in migrate(store))


def test_what_is_harmed_is_left_and_named_and_the_store_keeps_its_layout(store):
    harmed = next(folder for folder in store.runs() if folder.done())
    part = harmed.parts("layers")[0]
    part.write_bytes(part.read_bytes()[:-1])
    wrong = {one.run_id: one.wrong for one in migrate(store) if one.wrong}
    assert list(wrong) == [harmed.run_id]
    assert "does not match its checksum; `depthsweep doctor --fix` first" in wrong[harmed.run_id]
    assert read_json(store.root / "store.json")["layout"] == 1


def test_a_migration_that_stops_anywhere_is_gone_on_with(store, monkeypatch):
    before, calls = said_of(store), []

    def stop_later(*arguments):
        calls.append(arguments)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return compact(*arguments)

    monkeypatch.setattr(migration, "compact", stop_later)
    with pytest.raises(KeyboardInterrupt):
        list(migrate(store))
    assert said_of(store) == before
    monkeypatch.undo()
    list(migrate(store))
    assert said_of(store) == before
    assert read_json(store.root / "store.json")["layout"] == 2


def test_two_do_not_migrate_at_once(store, monkeypatch):
    monkeypatch.setenv("DEPTHSWEEP_STALE_SECONDS", "2")
    monkeypatch.setattr("sweeps.leases.lease.is_there", lambda _: True)
    Lease(store.root / "migration", {**owner(), "cause": None}).take()

    def alive(*_):
        return True

    monkeypatch.setattr("sweeps.leases.lease.Watch.sees_life", alive)
    with pytest.raises(UserError, match="another process is migrating it"):
        list(migrate(store))


def test_a_store_of_a_later_layout_is_refused(store):
    write_json(store.root / "store.json", {"id": "abc", "layout": 3})
    with pytest.raises(UserError, match="install a newer one"):
        list(migrate(store))
    assert json.loads((store.root / "store.json").read_text())["layout"] == 3
