"""A run that was stopped anywhere ends with the bytes of one that was not."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from small_run import make_run

from sweeps.attempts.manifest import damage
from sweeps.files.whole_files import read_json
from sweeps.spec import EqualStep, Execution, LayerClip, Optimizer, Standard
from sweeps.store.schema import TABLES
from sweeps.store.store import Store
from workers.checkpoints.resuming import CheckpointDiffers, load_checkpoint
from workers.ranks.process_group import Ranks
from workers.train import train

CPU = torch.device("cpu")
CONTROLS = [Standard(), EqualStep(), LayerClip(max_norm=0.05)]


@pytest.fixture(scope="module")
def shared(share_cache, tmp_path_factory):
    """A cache, and the bytes of unbroken runs by control."""
    root = share_cache(tmp_path_factory.mktemp("unbroken"))
    store = Store(root)
    whole = {}
    for control in CONTROLS:
        run = a_run(control)
        list(train(run, store, CPU))
        whole[control] = parts(store, run)
    return root / "cache", whole


@pytest.fixture
def store(shared, tmp_path):
    (tmp_path / "cache").symlink_to(shared[0])
    return Store(tmp_path)


def a_run(control=CONTROLS[1]):
    return make_run(
        control=control,
        steps=11,
        optimizer=Optimizer(learning_rate=1e-3, weight_decay=0.1, warmup_steps=2),
        execution=Execution(part_steps=3, checkpoint_share=1),
    )


def parts(store, run):
    folder = store.run(run.run_id)
    return {
        (table, folder.last_step_of(path)): path.read_bytes()
        for table in TABLES
        for path in folder.parts(table)
    }


def stop_after(run, store, step):
    progress = train(run, store, CPU)
    while next(progress).step < step:
        pass
    progress.close()
    return store.run(run.run_id)


# At a part's end and behind it; of other rules behind it alone.
STOPS = [(step, control) for step in (1, 3, 4, 8, 10) for control in CONTROLS]
SOON = [(3, CONTROLS[1]), *((4, control) for control in CONTROLS)]


@pytest.mark.parametrize(
    ("step", "control"),
    [
        pytest.param(
            *one, id=f"{one[0]}-{one[1].kind}", marks=() if one in SOON else pytest.mark.slow
        )
        for one in STOPS
    ],
)
def test_stopping_anywhere_changes_no_byte(step, control, store, shared):
    run = a_run(control)
    folder = stop_after(run, store, step)
    assert folder.done() is None
    resumed = list(train(run, store, CPU))
    assert resumed[1].step == step // 3 * 3 + 1
    assert folder.attempts()[-1]["resumed_from"] == step // 3 * 3
    assert parts(store, run) == shared[1][control]


def test_an_object_store_has_checkpoints_that_are_trusted_where_they_are_whole(s3_url, shared):
    store = Store.at(s3_url)
    store.cache.parent.mkdir(parents=True, exist_ok=True)
    store.cache.symlink_to(shared[0])
    run = a_run()
    folder = stop_after(run, store, 7)
    assert folder.checkpoint_steps() == [3, 6]
    newest = checkpoint(folder, 6)
    assert damage(folder, newest) is None
    layer = newest / "layer-0001.safetensors"
    layer.write_bytes(layer.read_bytes()[:-1] + b"x")
    assert "layer-0001.safetensors does not match its checksum" in damage(folder, newest)
    list(train(run, store, CPU))
    assert folder.attempts()[-1]["resumed_from"] == 3
    assert folder.checkpoint_steps() == []
    assert parts(store, run) == shared[1][CONTROLS[1]]


def test_stopping_again_and_again_changes_no_byte(store, shared):
    run = a_run()
    for step in (4, 7, 10):
        stop_after(run, store, step)
    list(train(run, store, CPU))
    assert parts(store, run) == shared[1][CONTROLS[1]]


@pytest.mark.parametrize(
    "step", [*(pytest.param(step, marks=pytest.mark.slow) for step in (3, 8)), 5]
)
def test_stopping_between_recorded_steps_changes_no_byte(step, store, tmp_path, shared):
    run = make_run(
        steps=11,
        record_every=5,
        execution=Execution(part_steps=2, checkpoint_share=1),
        probe=make_run().probe.model_copy(update={"every": 11}),
    )
    (tmp_path / "whole").mkdir()
    (tmp_path / "whole" / "cache").symlink_to(shared[0])
    whole = Store(tmp_path / "whole")
    list(train(run, whole, CPU))
    folder = stop_after(run, store, step)
    list(train(run, store, CPU))
    assert folder.attempts()[-1]["resumed_from"] == step // 2 * 2
    assert parts(store, run) == parts(whole, run)
    (part,) = folder.parts("steps")
    assert pq.read_table(part)["step"].to_pylist() == [1, 5, 10, 11]


def checkpoint(folder, step):
    """Return the newest checkpoint after a step."""
    return next(path for path in reversed(folder.checkpoints()) if folder.step_of(path) == step)


def test_two_checkpoints_are_kept_and_none_after_the_end(store):
    run = a_run()
    folder = stop_after(run, store, 7)
    assert folder.checkpoint_steps() == [3, 6]
    assert damage(folder, checkpoint(folder, 6)) is None
    stop_after(run, store, 10)
    assert folder.checkpoint_steps() == [6, 9]
    list(train(run, store, CPU))
    assert folder.checkpoint_steps() == []
    assert not list(folder.path.rglob(".*"))


def test_a_run_ends_with_one_part_a_table_whose_rows_are_those_of_its_parts(store):
    run = a_run()
    folder = stop_after(run, store, 7)
    written = pa.concat_tables(pq.read_table(part) for part in folder.parts("layers"))
    list(train(run, store, CPU))
    for table in ("steps", "layers"):
        (part,) = folder.parts(table)
        assert part.name.startswith(f"part-000000-{run.steps:06d}.a2-")
    rows = pq.read_table(folder.parts("layers")[0])
    assert rows.num_rows > written.num_rows
    assert rows.slice(0, written.num_rows).equals(written)
    assert rows["step"].to_pylist() == sorted(rows["step"].to_pylist())


def corrupt(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def truncate(path):
    path.write_bytes(path.read_bytes()[:-7])


HARMS = {"corrupt": corrupt, "truncate": truncate, "unlink": lambda path: path.unlink()}
TORN = [
    ("checkpoints/step-000006*/layer-0001.safetensors", 3),
    ("checkpoints/step-000006*/manifest.json", 3),
    ("steps/part-000003-000006.*", 3),
    ("layers/part-000000-000003.*", 0),
]
# Each file, and each way of a manifest and of a part of rows, is in the usual suite.
USUALLY = {("corrupt", 0), ("truncate", 1), ("unlink", 1), ("corrupt", 2), ("unlink", 3)}


@pytest.mark.parametrize(
    ("harm", "what"),
    [
        pytest.param(
            HARMS[name],
            what,
            id=f"{what[0].partition('/')[0]}-{k}-{name}",
            marks=() if (name, k) in USUALLY else pytest.mark.slow,
        )
        for k, what in enumerate(TORN)
        for name in HARMS
    ],
)
def test_what_a_crash_has_torn_is_not_trusted(harm, what, store, shared):
    run = a_run()
    folder = stop_after(run, store, 7)
    (harmed,) = folder.path.glob(what[0])
    harm(harmed)
    list(train(run, store, CPU))
    assert folder.attempts()[-1]["resumed_from"] == what[1]
    assert parts(store, run) == shared[1][CONTROLS[1]]


def test_a_checkpoint_without_its_manifest_does_not_count(store, shared):
    run = a_run()
    folder = stop_after(run, store, 7)
    (checkpoint(folder, 6) / "manifest.json").unlink()
    (folder.path / "steps/.part-000006-000009.parquet.1.tmp").write_bytes(b"torn")
    list(train(run, store, CPU))
    assert parts(store, run) == shared[1][CONTROLS[1]]
    assert not list(folder.path.rglob("*.tmp"))


def test_a_rank_that_sees_another_checkpoint_than_the_first_one_stops(store):
    run = a_run()
    folder = stop_after(run, store, 7)
    newest = folder.checkpoints()[-1]
    chosen = read_json(newest / "manifest.json")

    class Second(Ranks):
        """Rank 1 of 2, told what the first one chose."""

        told = ("", None)

        def agree(self, _):
            return self.told

    assert load_checkpoint(folder, None, Second(rank=1, size=2)) is None
    for Second.told in [(newest.name, {**chosen, "step": 5}), ("step-000009.a1-0", chosen)]:
        with pytest.raises(CheckpointDiffers, match="rank 1 does not see the checkpoint of step"):
            load_checkpoint(folder, None, Second(rank=1, size=2))
