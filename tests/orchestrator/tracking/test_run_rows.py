"""What a tracker is told of a run follows what the store has, by rule."""

import polars as pl
import pyarrow as pa
import pytest
from planted_store import evaluated, run_spec, save_sweep, write_run
from varied_settings import two_values, varying_settings

from orchestrator.tracking.profile_picture import profile_picture
from orchestrator.tracking.run_cards import run_cards, sweep_identity
from orchestrator.tracking.run_rows import RunRows
from sweeps.files.whole_files import write_json
from sweeps.reading.tables import Tables
from sweeps.store import schema
from sweeps.store.store import Store


@pytest.fixture
def store(tmp_path):
    return Store.at(str(tmp_path / "store"))


def test_every_number_of_a_step_is_told(store):
    run = run_spec(steps=4, probe_every=2, part_steps=2)
    write_run(store, run, [0.1, 0.2])
    rows = RunRows(store, run).steps_after(1)
    assert [row.step for row in rows] == [2, 3, 4]
    assert set(rows[0].numbers) == set(schema.STEPS.names) - {"run_id", "step"}
    assert rows[0].time < rows[1].time


def test_a_table_of_one_row_a_step_that_is_added_later_is_told_too(store, monkeypatch):
    run = run_spec(steps=4, probe_every=2, part_steps=4)
    held_out = pa.schema([*list(schema.STEPS)[:2], pa.field("loss", pa.float64())])
    monkeypatch.setitem(schema.TABLES, "held_out", held_out)
    monkeypatch.setitem(schema.SORT_KEYS, "held_out", ("run_id", "step"))
    write_run(store, run, [0.1, 0.2])
    frame = pl.DataFrame({"run_id": run.run_id, "step": [2, 4], "loss": [0.5, 0.25]}).lazy()
    known = Tables.by_name
    monkeypatch.setattr(Tables, "by_name", lambda self: {**known(self), "held_out": frame})
    rows = RunRows(store, run).steps_after(0)
    assert [row.numbers.get("held_out/loss") for row in rows] == [None, 0.5, None, 0.25]


def test_scores_are_told_from_step_0_on_and_those_of_the_end_again(store):
    run = evaluated(run_spec(steps=4, probe_every=2, part_steps=2))
    write_run(store, run, [0.1, 0.2], scores=lambda step: {"loss": 3.0 - step, "accuracy": 0.5})
    rows = RunRows(store, run).steps_after(0)
    told = {row.step: row.numbers.get("evaluation/loss") for row in rows}
    assert told == {0: 3.0, 1: None, 2: 1.0, 3: None, 4: -1.0}
    assert [row.step for row in RunRows(store, run).steps_after(2)] == [3, 4]
    outcome = RunRows(store, run).outcome("unfinished")
    assert outcome.numbers["evaluation_loss"] == -1.0
    assert outcome.numbers["evaluation_accuracy"] == 0.5


def test_a_failed_or_diverged_run_has_its_status_and_no_slope(store):
    for seed, status in enumerate(("failed", "diverged")):
        run = run_spec(seed=seed, steps=4, probe_every=2, part_steps=2)
        write_run(store, run, [0.1, 0.2], status=status, stop=3)
        outcome = RunRows(store, run).outcome("unfinished")
        assert (outcome.status, outcome.step) == (status, 3)
        assert "slope" not in outcome.numbers


def test_each_stack_of_a_model_has_numbers_and_a_line_of_its_own(store):
    run = run_spec(steps=4, probe_every=2, part_steps=4)
    write_run(store, run, {"encoder": [0.3, 0.2, 0.1], "decoder": [0.1, 0.5]})
    outcome = RunRows(store, run).outcome("unfinished")
    assert outcome.numbers["encoder slope"] == pytest.approx(-0.3)
    assert outcome.numbers["decoder slope"] == pytest.approx(0.8)
    assert "slope" not in outcome.numbers
    assert outcome.profiles["stack"].n_unique() == 2
    drawn = profile_picture(outcome.profiles, "both").decode()
    assert ">decoder<" in drawn
    one = outcome.profiles.with_columns(stack=pl.lit(None, pl.String))
    assert "stack" not in profile_picture(one, "one").decode()


@pytest.mark.parametrize("setting", varying_settings(), ids=lambda setting: setting.name)
def test_every_setting_that_may_differ_is_among_the_parameters(setting, store):
    pair = two_values(setting)
    sweep = save_sweep(store, "two", pair)
    cards = run_cards(sweep, store)
    one, other = (cards[run.run_id].parameters.get(setting.name) for run in pair)
    assert one != other


def test_names_tell_apart_runs_that_differ_in_one_setting(store):
    runs = [run_spec(learning_rate=rate) for rate in (1e-3, 3e-4)]
    cards = run_cards(save_sweep(store, "rates", runs), store)
    names = [cards[run.run_id].name.removeprefix(run.run_id) for run in runs]
    assert names[0] != names[1]
    assert "0.0003" in names[1]


def test_a_sweep_keeps_its_identity(store):
    assert sweep_identity(store, "a") == sweep_identity(store, "a")
    assert sweep_identity(store, "a") != sweep_identity(store, "b")


def test_a_run_on_an_object_store_is_told_as_far_as_its_checkpoint_and_then_whole(s3_url):
    store = Store.at(s3_url)
    run = run_spec(seed=3, steps=8, probe_every=4, part_steps=4)
    folder = write_run(store, run, [0.1, 0.2], status=None, stop=8)
    write_json(folder.checkpoint_path(4) / "manifest.json", {"files": {}, "parts": {}})
    assert [row.step for row in RunRows(store.reading(), run).steps_after(0)] == [1, 2, 3, 4]
    write_run(store, run, [0.1, 0.2])
    rows = RunRows(store.reading(), run)
    assert [row.step for row in rows.steps_after(4)] == [5, 6, 7, 8]
    assert rows.outcome("unfinished").status == "finished"


def test_a_sweep_on_an_object_store_keeps_its_identity(s3_url):
    assert sweep_identity(Store.at(s3_url), "a") == sweep_identity(Store.at(s3_url), "a")
