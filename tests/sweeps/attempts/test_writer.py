"""What a writer leaves: parts that count, each row once, and nothing where it may not write."""

import math

import pyarrow.parquet as pq
import pytest
from planted_store import evaluated, run_spec
from small_run import LoneAttempt

from sweeps.attempts import compaction
from sweeps.attempts.attempt import Attempt, Superseded
from sweeps.attempts.manifest import damage
from sweeps.attempts.writer import OnlookersWriter, RunWriter
from sweeps.files.whole_files import file_checksum, write_json
from sweeps.spec import Lora
from sweeps.store.run_folder import RunFolder
from sweeps.store.schema import TABLES

RUN = run_spec(steps=11, part_steps=3)


@pytest.fixture
def folder(tmp_path):
    return RunFolder(tmp_path / RUN.run_id)


class Second(LoneAttempt):
    """The attempt after the first one."""

    label = "a2-00000001"


class Fenced(LoneAttempt):
    """An attempt that is told in one way, or the other, that it is the owner no more."""

    def __init__(self, *told):
        self._told = told

    def require_ownership(self):
        if "asked" in self._told:
            raise Superseded("asked")

    def require_not_superseded(self):
        if "known" in self._told:
            raise Superseded("known")


def step_row(step, loss=None):
    return {"loss": 1.0 / step if loss is None else loss, "targets": step}


def write(writer, steps, last=RUN.steps):
    """Write steps, of which each has a row and each third one a row of a profile."""
    for step in steps:
        writer.add("steps", step, [step_row(step)])
        if step % 3 == 0:
            writer.add("profiles", step, [{"layer": layer, "depth": 0.5} for layer in (1, 2)])
        writer.end_step(step, is_last=step == last)


def counted(folder):
    """Return what the closing record makes count: steps and losses, and the layers' steps."""
    found = {}
    for name, said in folder.done()["parts"].items():
        rows = pq.read_table(folder.path / name, partitioning=None)
        assert rows.num_rows == said["rows"]
        assert file_checksum(folder.path / name) == said["sha256"]
        assert set(rows["run_id"].to_pylist()) == {folder.run_id}
        found.setdefault(name.split("/")[0], []).append(rows)
    assert all(len(parts) == 1 for parts in found.values())
    return {table: parts[0].to_pylist() for table, parts in found.items()}


def test_each_row_counts_once_in_order_of_steps(folder):
    writer = RunWriter(RUN, folder, LoneAttempt())
    write(writer, range(1, 12))
    writer.finish("finished", 11)
    rows = counted(folder)
    assert [(row["step"], row["targets"]) for row in rows["steps"]] == [
        (k, k) for k in range(1, 12)
    ]
    assert [(row["step"], row["layer"]) for row in rows["profiles"]] == [
        (step, layer) for step in (3, 6, 9) for layer in (1, 2)
    ]
    done = folder.done()
    # Named after the steps that they have rows of, in parts of three.
    assert set(done["parts"]) == {
        "steps/part-000000-000011.a1-00000000.parquet",
        "profiles/part-000000-000009.a1-00000000.parquet",
    }
    assert (done["status"], done["step"], done["loss"]) == ("finished", 11, 1 / 11)


def test_a_part_is_written_when_its_last_step_is_done_and_named_after_its_steps(folder):
    writer = RunWriter(RUN, folder, LoneAttempt())
    seen = []
    for step in range(1, 8):
        writer.add("steps", step, [step_row(step)])
        completes = writer.end_step(step)
        seen.append((completes, [path.name for path in folder.parts("steps")]))
    first, second = (f"part-00000{k}-00000{k + 3}.a1-00000000.parquet" for k in (0, 3))
    assert seen == [
        *[(False, [])] * 2,
        (True, [first]),
        *[(False, [first])] * 2,
        (True, [first, second]),
        (False, [first, second]),
    ]
    assert set(writer.parts()) == {f"steps/{first}", f"steps/{second}"}
    assert {one["rows"] for one in writer.parts().values()} == {3}


def test_the_last_step_may_come_before_the_specifications(folder):
    writer = RunWriter(RUN, folder, LoneAttempt())
    write(writer, range(1, 6), last=5)
    assert len(folder.parts("steps")) == 3  # two parts, and what they became
    assert set(writer.parts()) == {
        f"{table}/part-000000-00000{last}.a1-00000000.parquet"
        for table, last in (("steps", 6), ("profiles", 3))
    }


def test_rows_of_no_column_are_refused(folder):
    writer = RunWriter(RUN, folder, LoneAttempt())
    with pytest.raises(ValueError, match="steps has no column los, weight"):
        writer.add("steps", 1, [{"loss": 1.0}, {"los": 1.0, "weight": 2.0}])


@pytest.mark.parametrize("stopped_after", [1, 3, 4, 8])
def test_what_was_written_before_a_stop_counts_with_what_comes_after(folder, stopped_after):
    first = RunWriter(RUN, folder, LoneAttempt())
    write(first, range(1, stopped_after + 1))
    checkpoint = folder.checkpoint_path(stopped_after, LoneAttempt.label)
    checkpoint.mkdir(parents=True)
    files = first.keep(checkpoint)
    assert bool(files) == bool(stopped_after % 3)
    write_json(checkpoint / "manifest.json", {"files": files, "parts": first.parts()})
    assert damage(folder, checkpoint) is None
    second = RunWriter(RUN, folder, Second())
    second.take_back(checkpoint)
    write(second, range(stopped_after + 1, 12))
    second.finish("finished", 11)
    assert [row["step"] for row in counted(folder)["steps"]] == list(range(1, 12))
    assert [row["step"] for row in counted(folder)["profiles"]] == [3, 3, 6, 6, 9, 9]


def test_who_continues_after_the_last_step_knows_its_loss(folder):
    first = RunWriter(RUN, folder, LoneAttempt())
    write(first, range(1, 12))
    checkpoint = folder.checkpoint_path(11)
    write_json(checkpoint / "manifest.json", {"files": {}, "parts": first.parts()})
    second = RunWriter(RUN, folder, Second())
    second.take_back(checkpoint)
    second.finish("finished", 11)
    assert folder.done()["loss"] == 1 / 11
    assert len(counted(folder)["steps"]) == 11


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_is_none(folder, loss):
    writer = RunWriter(RUN, folder, LoneAttempt())
    writer.add("steps", 1, [step_row(1, loss=loss)])
    writer.finish("diverged", 1)
    assert folder.done()["loss"] is None
    assert len(counted(folder)["steps"]) == 1


def test_a_run_may_end_before_its_first_step(folder):
    RunWriter(RUN, folder, LoneAttempt()).finish("diverged", 0)
    done = folder.done()
    assert (done["status"], done["step"], done["loss"], done["parts"]) == ("diverged", 0, None, {})


@pytest.mark.parametrize("named", [False, True])
def test_the_closing_record_has_the_dose_where_all_blocks_are_trained(tmp_path, named):
    """Steps of one block are twice those of the other: a dose of 2 over two blocks."""
    run = RUN.model_copy(update={"adapter": Lora(blocks=("blocks 1",))}) if named else RUN
    folder = RunFolder(tmp_path / run.run_id)
    folder.path.mkdir(exist_ok=True)
    writer = RunWriter(run, folder, LoneAttempt())
    for step in range(1, 5):
        writer.add("steps", step, [step_row(step)])
        for layer in (1, 2):
            norms = {"weight_norm": 1.0, "update_norm": 0.1 * layer}
            writer.add("layers", step, [{"layer": layer, "group": "block", **norms}])
        writer.end_step(step)
    writer.finish("finished", 4)
    done = folder.done()
    assert ("dose" in done) is not named
    if not named:
        assert done["dose"] == {"dose": 2.0, "dose_slope": 2.0, "blocks": 2}


# ------------------------------------------------------------------------------ who may not write
def test_an_attempt_that_knows_it_is_superseded_puts_no_part(folder):
    writer = RunWriter(RUN, folder, Fenced("known"))
    with pytest.raises(Superseded, match="known"):
        write(writer, range(1, 4))
    assert folder.parts("steps") == []
    assert writer.parts() == {}


def test_only_the_owner_closes_a_run(folder):
    writer = RunWriter(RUN, folder, Fenced("asked"))
    write(writer, range(1, 12))
    with pytest.raises(Superseded, match="asked"):
        writer.finish("finished", 11)
    assert folder.done() is None


def test_the_first_result_stays_and_the_other_writers_files_go(folder):
    first = RunWriter(RUN, folder, Second())
    write(first, range(1, 12))
    first.finish("finished", 11)
    done = folder.done()
    with Attempt(folder) as late:
        second = RunWriter(RUN, folder, late)
        write(second, range(1, 3))
        with pytest.raises(Superseded):
            second.finish("diverged", 2)
        assert folder.done() == done
        assert [path for path in folder.parts("steps") if late.label in path.name] == []
    assert len(counted(folder)["steps"]) == 11


def test_a_run_that_was_forgotten_gets_no_part(folder):
    with Attempt(folder) as attempt:
        writer = RunWriter(RUN, folder, attempt)
        folder.forget()
        with pytest.raises(Superseded):
            write(writer, range(1, 4))
    assert folder.parts("steps") == []


def test_a_folder_that_is_not_there_is_an_error_of_its_own(folder):
    writer = RunWriter(RUN, folder, LoneAttempt())
    with pytest.raises(FileNotFoundError):
        write(writer, range(1, 4))


@pytest.fixture(autouse=True)
def made(request, folder):
    if "not_there" not in request.node.name:
        folder.path.mkdir()


# ------------------------------------------------------------------------------ one part of many
def test_a_part_that_was_harmed_becomes_no_part_of_another(folder):
    writer = RunWriter(RUN, folder, LoneAttempt())
    write(writer, range(1, 7))
    part = folder.parts("steps")[0]
    part.write_bytes(folder.parts("steps")[1].read_bytes())
    with pytest.raises(RuntimeError, match=rf"{part.name} does not match its checksum"):
        writer.finish("finished", 6)
    assert folder.done() is None


@pytest.mark.parametrize(("rows", "groups"), [(1, 4), (3, 4), (4, 2), (6, 2), (100, 1)])
def test_rows_are_put_together_in_groups(folder, monkeypatch, rows, groups):
    monkeypatch.setattr(compaction, "ROWS_OF_A_GROUP", rows)
    writer = RunWriter(RUN, folder, LoneAttempt())
    write(writer, range(1, 12))
    writer.finish("finished", 11)
    (name,) = (name for name in folder.done()["parts"] if name.startswith("steps/"))
    assert pq.ParquetFile(folder.path / name).num_row_groups == groups
    assert [row["step"] for row in counted(folder)["steps"]] == list(range(1, 12))


def test_a_column_that_was_added_since_a_part_was_written_is_null_there(folder):
    writer = RunWriter(RUN, folder, LoneAttempt())
    write(writer, range(1, 7))
    old = folder.parts("steps")[0]
    pq.write_table(pq.read_table(old, partitioning=None).drop_columns("targets"), old)
    name = f"steps/{old.name}"
    writer.parts()[name] |= compaction.account(old)
    writer.finish("finished", 6)
    rows = counted(folder)["steps"]
    assert [row["targets"] for row in rows] == [None, None, None, 4, 5, 6]
    assert [row["loss"] for row in rows] == [1 / step for step in range(1, 7)]


# ------------------------------------------------------------------------------ scores
def test_evaluation_losses_are_those_of_parts_and_of_rows_in_none_yet(tmp_path):
    run = evaluated(RUN)
    folder = RunFolder(tmp_path / run.run_id)
    folder.path.mkdir()
    writer = RunWriter(run, folder, LoneAttempt())
    for step in range(1, 6):
        writer.add("evaluations", step, [{"score": "loss", "value": 3.0 - step, "targets": 4}])
        assert writer.evaluation_losses() == [3.0 - k for k in range(1, step + 1)]
        writer.end_step(step)
    writer.add("steps", 5, [step_row(5)])
    writer.finish("finished", 5)
    assert folder.done()["evaluation"] is not None
    assert len(counted(folder)["evaluations"]) == 5


# ------------------------------------------------------------------------------ other ranks
@pytest.mark.parametrize("last", [4, 11])
def test_ranks_that_do_not_write_know_where_parts_end(folder, last):
    writer, onlooker = RunWriter(RUN, folder, LoneAttempt()), OnlookersWriter(RUN)
    for step in range(1, last + 1):
        for one in (writer, onlooker):
            one.add("steps", step, [step_row(step)])
        ends = writer.end_step(step, is_last=step == last)
        assert onlooker.end_step(step, is_last=step == last) == ends
    assert (onlooker.parts(), onlooker.keep(folder.path), onlooker.evaluation_losses()) == (
        *({}, {}),
        [],
    )


def test_tables_without_rows_have_no_part(folder):
    writer = RunWriter(RUN, folder, LoneAttempt())
    write(writer, range(1, 3))
    assert set(writer.keep(folder.path)) == {"rows-steps.parquet"}
    assert set(TABLES) > {"steps"}
