"""Runs brought from one store into another: folder to folder, and to and from an S3 server."""

import hashlib
import json

import pytest
from planted_measurements import record_distance
from planted_store import run_spec, save_sweep, write_run

from sweeps.attempts.attempt import Attempt
from sweeps.errors import UserError
from sweeps.files.trees import files_below
from sweeps.files.whole_files import file_checksum, read_json, write_json, write_text
from sweeps.reading.digest import digests
from sweeps.reading.tables import open_store
from sweeps.store.records import sealed
from sweeps.store.store import Store
from sweeps.upkeep import transfer as transfer_module
from sweeps.upkeep.pulling import pull

RUNS = [
    run_spec("opt", "mlm", control, seed)
    for control in ("standard", "equal_step")
    for seed in (4, 5)
]
PROFILE = [0.3, 0.1, 0.2]


WAYS = ["folder to folder", "folder to s3", "s3 to folder"]


# One way to or from a server stands for both; it is all three where the whole is at stake.
@pytest.fixture(params=[*WAYS[:2], pytest.param(WAYS[2], marks=pytest.mark.slow)])
def stores(request, tmp_path):
    """The store that there is, and an empty one."""
    places = [str(tmp_path / name) for name in ("old", "new")]
    if "s3" in request.param:
        url = request.getfixturevalue("s3_url")
        places[0 if request.param.startswith("s3") else 1] = url
    old, new = map(Store.at, places)
    for store in (old, new):
        store.identify()
    for run in RUNS:
        folder = write_run(old, run, PROFILE)
        write_text(folder.log_path(1), '{"event": "one"}\n')
    save_sweep(old, "study", RUNS[:1])
    save_sweep(old, "study", [*RUNS, run_spec("opt", "mlm", seed=77)])
    return old, new


def outcomes(pulled):
    return {one.work_id: one.outcome for one in pulled.moved}


def same_digest(old, new, sweep="study"):
    return list(digests(open_store(old.location, sweep=sweep))) == list(
        digests(open_store(new.location, sweep=sweep))
    )


@pytest.mark.parametrize("stores", WAYS, indirect=True)
def test_what_was_brought_has_the_digest_of_what_it_was_brought_from(stores):
    old, new = stores
    pulled = pull(old, new)
    assert outcomes(pulled) == {run.run_id: "brought" for run in RUNS}
    assert len(pulled.versions) == 2
    assert same_digest(old, new)
    assert [one.digest for one in new.versions()] == [one.digest for one in old.versions()]
    assert new.version("study").digest == old.version("study").digest
    for run in RUNS:
        mine, theirs = old.run(run.run_id), new.run(run.run_id)
        assert theirs.attempts() == mine.attempts()
        assert theirs.log_path(1).read_text() == mine.log_path(1).read_text()
    assert read_json(new.root / "store.json")["id"]


def test_the_same_again_copies_nothing_and_goes_on_where_it_was_cut_off(stores, monkeypatch):
    old, new = stores
    copy, left = transfer_module.copy_file, [7]

    def cut(*arguments):
        left[0] -= 1
        if left[0] < 0:
            raise OSError("cut off")
        return copy(*arguments)

    monkeypatch.setattr(transfer_module, "copy_file", cut)
    monkeypatch.setattr(transfer_module, "AT_ONCE", 1)
    with pytest.raises(OSError, match="cut off"):
        pull(old, new)
    assert sum(new.run(run.run_id).done() is not None for run in RUNS) < len(RUNS)
    copied = []
    monkeypatch.setattr(
        transfer_module, "copy_file", lambda *said: (copied.append(str(said[0])), copy(*said))[1]
    )
    pull(old, new)
    assert same_digest(old, new)
    parts = sum(len(old.run(run.run_id).done()["parts"]) for run in RUNS)
    assert sum(".parquet" in name for name in copied) < parts
    copied.clear()
    again = pull(old, new)
    assert set(outcomes(again).values()) == {"there"}
    assert (copied, again.versions) == ([], [])


def test_a_result_that_both_have_stays_and_is_named_where_its_rows_differ(stores):
    old, new = stores
    same, other = RUNS[0], RUNS[1]
    write_run(new, same, PROFILE)
    write_run(new, other, [0.9, 0.9, 0.9])
    before = read_json(new.run(other.run_id).path / "DONE.json")
    pulled = pull(old, new)
    assert outcomes(pulled)[same.run_id] == "there"
    assert outcomes(pulled)[other.run_id] == "differs"
    assert read_json(new.run(other.run_id).path / "DONE.json") == before
    assert any(other.run_id in line and "other rows" in line for line in pulled.lines())
    assert pulled.exit_code == 0


def test_the_same_rows_in_other_files_are_the_same_result(stores):
    old, new = stores
    folder = write_run(new, RUNS[0], PROFILE)
    done = read_json(folder.path / "DONE.json")
    name = next(name for name in done["parts"] if name.startswith("steps/"))
    renamed = name.replace(".parquet", ".a3-00112233.parquet")
    (folder.path / "steps" / renamed.split("/")[1]).write_bytes(
        (folder.path / "steps" / name.split("/")[1]).read_bytes()
    )
    done["parts"][renamed] = done["parts"].pop(name)
    write_json(folder.path / "DONE.json", sealed({k: v for k, v in done.items() if k != "sha256"}))
    assert outcomes(pull(old, new))[RUNS[0].run_id] == "there"


def test_a_run_that_somebody_is_at_is_left_and_named(stores):
    old, new = stores
    living, busy = run_spec("opt", "mlm", seed=77), RUNS[2]
    with Attempt(old.run(living.run_id)), Attempt(new.run(busy.run_id)):
        pulled = pull(old, new)
    assert outcomes(pulled)[living.run_id] == outcomes(pulled)[busy.run_id] == "alive"
    assert new.run(busy.run_id).done() is None
    (line,) = (line for line in pulled.lines() if "somebody is at them" in line)
    assert living.run_id in line
    assert busy.run_id in line


def test_a_part_that_is_not_what_its_record_says_comes_not(stores):
    old, new = stores
    folder = old.run(RUNS[3].run_id)
    write_text(folder.parts("layers")[0], "harmed")
    pulled = pull(old, new)
    assert outcomes(pulled)[RUNS[3].run_id] == "damaged"
    assert pulled.exit_code == 1
    assert "does not match its checksum" in "\n".join(pulled.lines())
    assert new.run(RUNS[3].run_id).done() is None


def test_a_part_that_was_lost_on_the_way_is_copied_again(tmp_path):
    old, new = (Store.at(str(tmp_path / name)) for name in ("old", "new"))
    folder = write_run(old, RUNS[0], PROFILE)
    part = folder.parts("steps")[0]
    write_text(new.run(RUNS[0].run_id).path / "steps" / part.name, "x" * part.stat().st_size)
    assert outcomes(pull(old, new)) == {RUNS[0].run_id: "brought"}
    assert (new.run(RUNS[0].run_id).path / "steps" / part.name).read_bytes() == part.read_bytes()


def checkpoint(folder, parts):
    write_text(folder.path / "checkpoints" / "step-000002" / "layer", "weights")
    account = {"bytes": 7, "sha256": hashlib.sha256(b"weights").hexdigest()}
    manifest = {"step": 2, "files": {"layer": account}, "parts": parts}
    write_json(folder.path / "checkpoints" / "step-000002" / "manifest.json", manifest)


def test_weights_come_when_asked_for_and_only_then(stores):
    old, new = stores
    checkpoint(old.run(RUNS[0].run_id), {})
    pull(old, new)
    assert new.run(RUNS[0].run_id).checkpoint_steps() == []
    (new.run(RUNS[0].run_id).path / "DONE.json").unlink()
    pull(old, new, weights=True)
    assert new.run(RUNS[0].run_id).checkpoint_steps() == [2]
    assert same_digest(old, new)


def test_of_a_run_that_failed_come_its_records_and_with_weights_what_it_goes_on_from(stores):
    old, new = stores
    failed = run_spec("opt", "mlm", seed=77)
    folder = write_run(old, failed, PROFILE, status=None)
    part = folder.parts("steps")[0]
    record = {
        **read_json(folder.attempt_path(1)),
        "cause": "failed",
        "error": "ValueError: planted",
    }
    write_json(folder.attempt_path(1), record)
    name = f"steps/{part.name}"
    checkpoint(folder, {name: {"bytes": 0, "sha256": file_checksum(part), "rows": 1}})
    assert outcomes(pull(old, new))[failed.run_id] == "begun"
    theirs = new.run(failed.run_id)
    assert theirs.attempts() == folder.attempts()
    assert (theirs.parts("steps"), theirs.checkpoint_steps()) == ([], [])
    assert same_digest(old, new)
    assert outcomes(pull(old, new))[failed.run_id] == "there"
    assert outcomes(pull(old, new, weights=True))[failed.run_id] == "begun"
    assert (len(theirs.parts("steps")), theirs.checkpoint_steps()) == (1, [2])


def test_attempts_of_both_stores_are_kept_one_after_another(stores):
    old, new = stores
    run = RUNS[0]
    with Attempt(new.run(run.run_id)) as mine:
        mine.log("tried here first")
    pull(old, new)
    causes = [record["cause"] for record in new.run(run.run_id).attempts()]
    assert causes == ["cancelled", "finished"]
    pull(old, new)
    assert len(new.run(run.run_id).attempts()) == 2


def test_one_sweep_comes_with_its_measurements_and_without_the_rest(stores):
    old, new = stores
    record_distance(old, RUNS[0], [0.25])
    other = run_spec("bert", "mlm", seed=9)
    write_run(old, other, PROFILE)
    save_sweep(old, "other", [other])
    pulled = pull(old, new, "study")
    assert new.sweep_names() == ["study"]
    assert other.run_id not in outcomes(pulled)
    assert [folder.run_id for folder in new.measurements()] == [
        folder.run_id for folder in old.measurements()
    ]
    first = next(one for one in old.versions() if one.sweep == "study" and len(one.run_ids) == 1)
    third = Store.at(f"{new.location}-third")
    only = pull(old, third, f"study@{first.digest[:6]}")
    assert [one.digest for one in only.versions] == [first.digest]
    assert {folder.run_id for folder in third.runs()} == {RUNS[0].run_id}


def test_a_sweep_that_the_new_store_knows_keeps_its_current_version(stores):
    old, new = stores
    save_sweep(new, "study", RUNS[:3])
    current = new.version("study").digest
    pull(old, new)
    assert new.version("study").digest == current
    assert len(list(new.versions())) == 3


def test_what_is_no_store_or_the_same_one_is_a_mistake(stores, tmp_path):
    old, new = stores
    with pytest.raises(UserError, match="is both stores"):
        pull(old, Store.at(old.location))
    with pytest.raises(UserError, match="no such folder"):
        pull(Store.at(str(tmp_path / "empty")), new)
    with pytest.raises(UserError, match="no sweep 'studi'; did you mean 'study'"):
        pull(old, new, "studi")
    assert not any(name.startswith("runs/") for name in files_below(new.root))


def test_the_page_says_what_became_of_each_run(stores):
    old, new = stores
    page = json.loads(json.dumps(pull(old, new).page()))
    assert set(page["runs"]) == {run.run_id for run in RUNS}
    assert page["bytes"] > 1000
