"""Each way a store can be wrong is found, mended, and then gone."""

import json
import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from planted_store import save_sweep
from small_run import make_run

from sweeps.attempts.attempt import Attempt
from sweeps.declaration.expand import read_sweep
from sweeps.errors import UserError
from sweeps.files.whole_files import file_checksum, read_json, write_json
from sweeps.liveness.process import identity
from sweeps.sources import content
from sweeps.spec import Optimizer
from sweeps.store.records import SEAL, sealed
from sweeps.store.run_folder import name_in
from sweeps.store.store import Store
from sweeps.store.sweep_records import strays_of
from sweeps.upkeep.audit import audit, changed_sources, unreadable_records
from workers.train import train

RUN = make_run()


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    root = tmp_path_factory.mktemp("finished")
    list(train(RUN, Store(root), torch.device("cpu")))
    return root


@pytest.fixture
def store(finished, tmp_path):
    source = Store(finished).run(RUN.run_id).path
    for path in source.rglob("*"):
        if path.is_file():
            copy = tmp_path / "runs" / RUN.run_id / path.relative_to(source)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(path.read_bytes())
    return Store(tmp_path)


def test_a_sound_store_has_no_findings(store):
    assert list(audit(store)) == []


@pytest.mark.parametrize("every", [1, 50])
def test_a_run_that_diverged_before_or_at_a_probe_is_sound(tmp_path, every):
    probe = RUN.probe.model_copy(update={"every": every})
    run = make_run(optimizer=Optimizer(learning_rate=1e18), steps=50, probe=probe)
    list(train(run, Store(tmp_path), torch.device("cpu")))
    assert Store(tmp_path).run(run.run_id).done()["status"] == "diverged"
    assert list(audit(Store(tmp_path))) == []


def test_a_folder_on_the_way_is_no_column(finished, tmp_path):
    place = tmp_path / "step=3" / "layer=x"
    shutil.copytree(finished, place)
    assert list(audit(Store(place))) == []


SWEEP = """
name: s
models: {tiny: {standin: gpt2}}
objectives: {clm: {data: {file: rows.txt}}}
probe: {data: {builtin: python-docs}, sequence_length: 16}
defaults: {steps: 4, batch_size: 4, sequence_length: 16, learning_rate: 1.0e-3}
blocks: [{name: all, grid: {model: [tiny], objective: [clm], control: [standard], seed: [0, 1]}}]
"""


def test_data_that_is_not_what_it_was_is_found_though_size_and_times_are_the_same(
    tmp_path, monkeypatch
):
    monkeypatch.setenv("DEPTHSWEEP_CACHE", str(tmp_path / "node"))
    monkeypatch.setattr(content, "REMEMBERED_BYTES", 0)
    monkeypatch.setattr(content, "SETTLED_SECONDS", -1.0)
    rows = tmp_path / "rows.txt"
    rows.write_text("one two\n")
    (tmp_path / "s.yaml").write_text(SWEEP)
    store = Store(tmp_path / "store")
    store.save_sweep(read_sweep(tmp_path / "s.yaml"))
    assert list(changed_sources(store)) == []
    rows.write_text("two one\n")
    # As if nothing had been touched: only reading all of it can tell.
    (record,) = (tmp_path / "node/digests").glob("*.json")
    old = json.loads(record.read_text())["sha256"]
    content._remember(rows, content._signature(rows.stat()), old)
    (finding,) = changed_sources(store)
    assert finding.run_id == "sweep s"
    assert str(rows) in finding.what
    assert finding.mend is None
    rows.unlink()
    assert list(changed_sources(store)) == []


def part(folder, table):
    """Return the one part of a table."""
    (path,) = folder.parts(table)
    return path


def flip(folder):
    path = part(folder, "steps")
    data = bytearray(path.read_bytes())
    data[40] ^= 1
    path.write_bytes(data)


def rewrite(folder, change, table="steps"):
    """Change the rows of a part and its record with them: only the steps can tell."""
    path = part(folder, table)
    rows = change(pq.read_table(path, partitioning=None).to_pylist())
    pq.write_table(pa.Table.from_pylist(rows, schema=pq.read_schema(path)), path)
    done = folder.done()
    done["parts"][name_in(folder, path)] = {"rows": len(rows), "sha256": file_checksum(path)}
    close(folder, done)


def close(folder, done):
    write_json(folder.path / "DONE.json", sealed({k: v for k, v in done.items() if k != SEAL}))


def test_a_run_that_finished_before_groups_were_left_out_is_sound(store):
    folder = store.run(RUN.run_id)
    done = folder.done()
    path = part(folder, "jackknife")
    del done["parts"][name_in(folder, path)]
    path.unlink()
    close(folder, done)
    assert list(audit(store)) == []


def test_a_part_of_before_there_were_stacks_is_sound(store):
    folder = store.run(RUN.run_id)
    for table in ("layers", "profiles", "jackknife"):
        path = part(folder, table)
        rows = pq.read_table(path, partitioning=None)
        pq.write_table(rows.drop_columns(["stack", "block_class"]), path)
        done = folder.done()
        entry = done["parts"][name_in(folder, path)]
        entry["sha256"] = file_checksum(path)
        close(folder, done)
    assert list(audit(store)) == []


def test_blocks_of_one_number_in_two_stacks_are_two_rows(store):
    folder = store.run(RUN.run_id)
    for table in ("layers", "profiles"):
        both = [
            {**row, "stack": stack}
            for row in pq.read_table(part(folder, table), partitioning=None).to_pylist()
            for stack in ("encoder", "decoder")
        ]
        rewrite(folder, lambda _, both=both: both, table)
    assert list(audit(store)) == []


def exchange(name, old, new):
    """Return a harm after which a record still reads well: one that a flipped bit may do."""

    def harm(folder):
        text = (folder.path / name).read_text()
        assert old in text
        (folder.path / name).write_text(text.replace(old, new, 1))

    return harm


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (exchange("run.json", "pretraining_loss", "pretbaining_loss"), "run.json is missing or"),
        (exchange("DONE.json", '"step": 7', '"step": 5'), "DONE.json cannot be read"),
        (flip, "does not match its checksum"),
        (lambda f: part(f, "layers").unlink(), "is missing"),
        (lambda f: rewrite(f, lambda rows: rows[:-1]), "steps lacks step 7"),
        (lambda f: rewrite(f, lambda rows: [*rows, rows[0]]), "steps has a row twice"),
        (lambda f: rewrite(f, lambda rows: [*rows, rows[0]], "jackknife"), "jackknife has a row"),
        (lambda f: rewrite(f, lambda rows: rows[:0], "jackknife"), "jackknife lacks step 7"),
        (
            lambda f: rewrite(f, lambda rows: [*rows, {**rows[0], "step": 6}], "jackknife"),
            "jackknife has step 6, which the run does not",
        ),
        (lambda f: part(f, "jackknife").unlink(), "is missing"),
        (lambda f: (f.path / "run.json").unlink(), "run.json is missing"),
        (lambda f: (f.path / "DONE.json").write_text("{"), "DONE.json cannot be read"),
    ],
)
def test_a_damaged_result_is_dropped_and_run_again(store, harm, said):
    folder = store.run(RUN.run_id)
    harm(folder)
    (finding,) = audit(store)
    assert said in finding.what
    finding.mend()
    assert folder.done() is None
    assert list(audit(store)) == []


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("steps/part-000090-000099.parquet", "accounted for by no record"),
        ("steps/part-000000-000003.a1-0badcafe.parquet", "accounted for by no record"),
        ("steps/.part-000000-000003.parquet.7.tmp", "accounted for by no record"),
        ("checkpoints/step-000003.a1-0badcafe/layer", "accounted for by no record"),
        (".run.json.7-0badcafe.tmp", "accounted for by no record"),
        ("attempts/.1.json.0badcafe.tmp", "accounted for by no record"),
    ],
)
def test_what_no_record_accounts_for_is_removed(store, place, said):
    path = store.run(RUN.run_id).path / place
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"torn")
    (finding,) = audit(store)
    assert said in finding.what
    finding.mend()
    assert not path.exists()
    assert list(audit(store)) == []


def test_what_was_mended_meanwhile_or_is_run_again_is_left_alone(store):
    folder = store.run(RUN.run_id)
    whole = part(folder, "steps").read_bytes()
    flip(folder)
    (finding,) = audit(store)
    part(folder, "steps").write_bytes(whole)
    assert finding.mend() is False
    assert folder.done() is not None
    flip(folder)
    with Attempt(folder) as attempt:
        assert finding.mend() is False
        attempt.end("finished")
    assert finding.mend() is True
    assert folder.done() is None


def test_an_attempt_without_an_end_is_recorded_as_lost(store, monkeypatch):
    monkeypatch.setenv("DEPTHSWEEP_STALE_SECONDS", "0.2")
    folder = store.run(RUN.run_id)
    record = {**read_json(folder.attempt_path(1)), "cause": None, "boot": "another"}
    write_json(folder.attempt_path(2), record)
    (finding,) = audit(store)
    finding.mend()
    assert json.loads(folder.attempt_path(2).read_text())["cause"] == "lost"
    assert list(audit(store)) == []


def test_a_run_that_goes_on_is_passed_over(store):
    folder = store.run(RUN.run_id)
    flip(folder)
    write_json(folder.attempt_path(2), {"cause": None, **identity()})
    assert list(audit(store)) == []


def test_a_store_whose_identity_cannot_be_read_gets_a_new_one(store):
    store.identify()
    (store.root / "store.json").write_text("[]")
    with pytest.raises(UserError, match="`depthsweep doctor --fix` makes a new one"):
        store.identify()
    (finding,) = unreadable_records(store)
    assert finding.mend()
    assert list(unreadable_records(store)) == []


def test_runs_of_a_version_that_cannot_be_read_are_no_strays(store):
    save_sweep(store, "study", [RUN])
    assert store.strays() == []
    (version,) = store.versions()
    for name in ("version.json", "resolved.json"):
        (version.folder / name).write_text('{"runs')
    (finding,) = unreadable_records(store)
    assert finding.what == f"{version.folder}: its record cannot be read"
    with pytest.raises(UserError, match="it cannot be told which runs are of sweep study"):
        store.strays()
    assert strays_of(store) == []


def test_each_of_several_leftovers_is_mended_by_itself(store):
    folder = store.run(RUN.run_id)
    for name in ("steps/part-000000-000003.a1-0badcafe.parquet", "checkpoints/step-3.a1-0/layer"):
        (folder.path / name).parent.mkdir(parents=True, exist_ok=True)
        (folder.path / name).write_bytes(b"torn")
    findings = list(audit(store))
    assert [finding.mend() for finding in findings] == [True, True]
    assert list(audit(store)) == []
