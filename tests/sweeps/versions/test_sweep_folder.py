"""Versions of a sweep in a store, over a local folder and an S3-compatible server alike."""

import json
import subprocess
import sys
from dataclasses import replace

import pytest
from planted_store import run_spec, save_sweep, write_run

from sweeps.declaration.expand import Sweep
from sweeps.errors import UserError
from sweeps.files.whole_files import read_json, write_json, write_text
from sweeps.store.store import Store
from sweeps.store.sweep_records import find_claims


@pytest.fixture(params=["folder", "s3"])
def store(request, tmp_path):
    if request.param == "folder":
        return Store.at(str(tmp_path / "store"))
    return Store.at(request.getfixturevalue("s3_url"))


def sweep_of(*seeds, name="study", **fields):
    runs = tuple(run_spec("opt", "mlm", seed=seed) for seed in seeds)
    return Sweep(name, f"of {len(seeds)}", f"name: {name} # {seeds}\n", runs, **fields)


def as_before_versions(store, sweep):
    """Write the record of a sweep as stores had it before they kept versions."""
    store.save_sweep(sweep)
    folder, kept = store.sweep_folder(sweep.name), store.version(sweep.name)
    record = {**read_json(kept.folder / "resolved.json"), "recorded": "2026-10-01T00:00:00+00:00"}
    write_json(folder / "resolved.json", record)
    write_text(folder / "spec.yaml", sweep.text)
    if sweep.claims is not None:
        write_text(folder / "claims.yaml", sweep.claims)
    for name in ("resolved.json", "spec.yaml", "version.json", "claims.yaml"):
        (kept.folder / name).unlink(missing_ok=True)
    (folder / "current.json").unlink()
    if hasattr(kept.folder, "rmdir"):
        kept.folder.rmdir()
        kept.folder.parent.rmdir()
    return kept.digest


def digests(store, name="study"):
    return [one.digest for one in store.versions() if one.sweep == name]


def test_every_version_is_kept_and_the_newest_run_one_is_current(store):
    first, second = sweep_of(0, 1), sweep_of(0, 1, 2)
    store.save_sweep(first)
    (a,) = digests(store)
    store.save_sweep(second)
    b, *rest = digests(store)
    assert rest == [a]
    assert store.load_sweep("study").runs == second.runs
    assert store.load_sweep(f"study@{a}").runs == first.runs
    assert store.load_sweep(f"study@{b[:5]}").text == second.text
    assert store.sweep_names() == ["study"]
    store.save_sweep(store.load_sweep(f"study@{a}"))
    assert store.load_sweep("study").runs == first.runs
    assert sorted(digests(store)) == sorted([a, b])


def test_the_same_sweep_again_is_the_same_version_run_later(store):
    store.save_sweep(sweep_of(5))
    (before,) = store.versions()
    first = before.recorded
    store.save_sweep(sweep_of(5))
    (after,) = store.versions()
    assert after.digest == before.digest
    assert after.recorded > first


def test_what_none_of_the_versions_is_called_is_refused_with_the_nearest(store):
    store.save_sweep(sweep_of(0))
    (digest,) = digests(store)
    wrong = ("0" if digest[0] != "0" else "1") + digest[1:]
    with pytest.raises(UserError, match=f"no version '{wrong}'; did you mean '{digest}'"):
        store.load_sweep(f"study@{wrong}")
    with pytest.raises(UserError, match="no sweep 'studi'; did you mean 'study'"):
        store.load_sweep(f"studi@{digest}")


def test_claims_belong_to_the_version_that_they_came_with(store):
    store.save_sweep(sweep_of(0, claims="claims: [] # first"))
    store.save_sweep(sweep_of(0, claims="claims: [] # second"))
    store.save_sweep(sweep_of(0))
    reading = store.reading()
    assert find_claims(reading, "study") is None
    said = {
        path and path.read_text()
        for path in (find_claims(reading, f"study@{digest}") for digest in digests(store))
    }
    assert said == {None, "claims: [] # first", "claims: [] # second"}


def test_a_store_of_before_there_were_versions_is_read_as_one(store):
    old = sweep_of(0, claims="claims: []")
    digest = as_before_versions(store, old)
    assert store.sweep_names() == ["study"]
    assert digests(store) == [digest]
    assert store.load_sweep("study") == old
    assert store.load_sweep(f"study@{digest[:4]}") == old
    assert find_claims(store.reading(), "study").read_text() == "claims: []"
    store.save_sweep(sweep_of(3))
    assert store.load_sweep("study").runs == sweep_of(3).runs
    assert set(digests(store)) > {digest}
    store.save_sweep(old)
    assert len(digests(store)) == 2


def test_runs_that_only_an_older_version_names_are_no_strays(store):
    for seed in (0, 1, 2):
        write_run(store, run_spec("opt", "mlm", seed=seed), [0.2, 0.1])
    store.save_sweep(sweep_of(0))
    store.save_sweep(sweep_of(1))
    assert store.strays() == [run_spec("opt", "mlm", seed=2).run_id]


def test_without_a_word_on_the_current_version_the_newest_one_is(store):
    store.save_sweep(sweep_of(0))
    store.save_sweep(sweep_of(1))
    path = store.sweep_folder("study") / "current.json"
    for harm in ("{", json.dumps({"version": "../../else"}), json.dumps({"version": "ab" * 6})):
        write_text(path, harm)
        assert store.load_sweep("study").runs == sweep_of(1).runs
    path.unlink()
    assert store.load_sweep("study").runs == sweep_of(1).runs


def test_a_version_counts_once_its_runs_are_there(store):
    store.save_sweep(sweep_of(0))
    write_text(store.sweep_folder("study") / "versions" / "ab12ab12ab12" / "spec.yaml", "torn")
    assert len(digests(store)) == 1


def test_a_version_without_its_header_has_its_runs_still(store):
    store.save_sweep(sweep_of(0, 1))
    (store.version("study").folder / "version.json").unlink()
    (found,) = store.versions()
    assert found.run_ids == tuple(run.run_id for run in sweep_of(0, 1).runs)


def test_a_record_that_cannot_be_read_is_written_anew_by_the_next_run(store):
    store.save_sweep(sweep_of(0))
    write_text(store.version("study").folder / "resolved.json", '{"torn": ')
    with pytest.raises(UserError, match="the record of sweep study cannot be read"):
        store.load_sweep("study")
    store.save_sweep(sweep_of(0))
    assert store.load_sweep("study").runs == sweep_of(0).runs


SAVE = """
import sys
sys.path.insert(0, "tests/samples")
from planted_store import run_spec, save_sweep
from sweeps.store.store import Store
store = Store.at(sys.argv[1])
for turn in range(20):
    save_sweep(store, "study", [run_spec("opt", "mlm", seed=int(sys.argv[2]))])
    assert len(store.load_sweep("study").runs) == 1
"""


def test_two_drivers_at_once_leave_both_versions_whole(tmp_path):
    store = Store.at(str(tmp_path / "store"))
    drivers = [
        subprocess.Popen([sys.executable, "-c", SAVE, store.location, str(seed)]) for seed in (0, 1)
    ]
    assert [driver.wait(120) for driver in drivers] == [0, 0]
    runs = [store.load_sweep(f"study@{digest}").runs for digest in digests(store)]
    assert sorted(run.seed for (run,) in runs) == [0, 1]
    assert store.load_sweep("study").runs in runs


def test_what_was_asked_later_of_a_sweep_is_another_version_with_its_claims(store):
    first = save_sweep(store, "study", [run_spec("opt", "mlm")])
    store.save_sweep(replace(first, claims="claims: []"))
    asked = store.load_sweep("study").wanting({"objective_distance", "propagation"})
    store.save_sweep(asked)
    assert store.load_sweep("study").measurements == asked.measurements
    assert find_claims(store.reading(), "study").read_text() == "claims: []"
    assert len(digests(store)) == 3
