"""The profiles of a store: which runs have one, and what stands beside it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from planted_measurements import draws_of_slope, record_propagation
from planted_store import run_spec, save_sweep, write_run

from orchestrator.ledger.recovery import ledger
from sweeps.errors import UserError
from sweeps.files.whole_files import read_json, write_json
from sweeps.reading.tables import open_store
from sweeps.report.data import gather
from sweeps.statistics.profiles import (
    QUANTITIES,
    SATURATED,
    measure,
    measure_each,
    unequal_rows,
    varied_settings,
)
from sweeps.statistics.quantities import quantities
from sweeps.statistics.run_summary import run_summary
from sweeps.store.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.at(str(tmp_path / "store"))


def test_the_embedding_is_not_part_of_a_profile(store: Store) -> None:
    write_run(store, run_spec(), [0.2, 0.4, 0.6, 0.8])
    profiles = measure(open_store(store.root))
    assert profiles.blocks["layer"].to_list() == [1, 2, 3, 4]
    row = profiles.runs.row(0, named=True)
    assert row["slope"] == pytest.approx(0.8)
    assert (row["at"], row["blocks"], row["null"]) == (20, 4, 1.0)
    assert row["steepness"] == row["slope_normalised"]
    half = measure(open_store(store.root), at=10).runs
    assert half["slope"][0] == pytest.approx(0.4)


def test_steepness_is_of_standard_training_alone(store: Store) -> None:
    write_run(store, run_spec(control="equal_step"), [0.2, 0.4])
    assert measure(open_store(store.root)).runs["steepness"].to_list() == [None]


def test_runs_without_a_profile_are_named_with_the_reason(store: Store) -> None:
    write_run(store, run_spec(seed=0), [0.1, 0.2])
    write_run(store, run_spec(seed=1), [0.1, 0.2], status="diverged", stop=10)
    write_run(store, run_spec(seed=2), [0.1, float("nan")])
    write_run(store, run_spec(seed=3), [0.1, 0.2], status=None, stop=10)
    profiles = measure(open_store(store.root))
    assert profiles.runs["seed"].to_list() == [0]
    reasons = dict(profiles.left_out.select("seed", "reason").rows())
    assert reasons == {
        1: "diverged",
        2: "procrustes was not measured, or is not finite, in some block",
        3: "unfinished",
    }


def test_a_run_that_is_left_out_is_told_by_its_state(store: Store) -> None:
    """As `depthsweep status` tells it, by how its newest attempt ended: also before it had a step,
    and not by an earlier attempt."""
    causes = ("failed", "cancelled", "preempted", "lost", "finished", None)
    runs = [run_spec(seed=seed) for seed in range(8)]
    write_run(store, runs[7], [0.1, 0.2])
    for run, cause in zip(runs, causes, strict=False):
        folder = write_run(store, run, [0.1, 0.2], status=None, stop=10)
        write_json(folder.attempt_path(1), {"cause": "failed"})
        write_json(folder.attempt_path(2), {"cause": cause})
    write_json(store.run(runs[6].run_id).attempt_path(1), {"cause": "failed"})
    save_sweep(store, "toy", runs)
    tables = open_store(store.root, sweep="toy")
    told = measure(tables).left_out.sort("seed")
    states = ["failed", "cancelled", "preempted", "lost", "lost", "unfinished", "failed"]
    assert told["reason"].to_list() == states
    assert told["status"].to_list() == [*["unfinished"] * 6, "pending"]
    standing = ledger(store)
    for run, state in zip(runs, states, strict=False):
        # Whether an attempt that has not ended lives is seen by watching it, which `status` does.
        assert state == "unfinished" or standing(run.run_id).state == state
    toy = gather(tables, "toy", "", "", None, switch=False)
    assert set(toy.tables["runs"]["status"]) == {*states, "finished"}


def test_a_diverged_run_has_no_profile_at_an_earlier_step_either(store: Store) -> None:
    write_run(store, run_spec(seed=0), [0.1, 0.2])
    write_run(store, run_spec(seed=1), [0.1, 0.2], status="diverged", stop=10)
    profiles = measure(open_store(store.root), at=10)
    assert profiles.runs["seed"].to_list() == [0]
    assert profiles.left_out.select("seed", "reason").rows() == [(1, "diverged")]


@pytest.mark.parametrize("harm", ["one less", "the last", "twice", "of another depth"])
def test_a_profile_without_every_block_once_is_none(store: Store, harm: str) -> None:
    write_run(store, run_spec(seed=0), [0.1, 0.2, 0.3, 0.4])
    folder = write_run(store, run_spec(seed=1), [0.1, 0.2, 0.3, 0.4])
    for part in folder.parts("profiles"):
        rows = pq.read_table(part)
        harmed = {
            "one less": rows.filter(pc.field("layer") != 2),
            "the last": rows.filter(pc.field("layer") != 4),
            "of another depth": rows.set_column(
                rows.schema.get_field_index("depth"), "depth", pc.multiply(rows["depth"], 0.5)
            ),
            "twice": pa.concat_tables([rows, rows.filter(pc.field("layer") == 3)]),
        }
        pq.write_table(harmed[harm], part)
    profiles = measure(open_store(store.root))
    assert profiles.runs["seed"].to_list() == [0]
    assert profiles.left_out["reason"].to_list() == ["not every block has one row at its last step"]


def test_a_last_block_that_is_missing_is_seen_where_the_model_is_not_known(store: Store) -> None:
    folder = write_run(store, run_spec(), [0.1, 0.2, 0.3, 0.4])
    record = read_json(folder.path / "run.json")
    del record["facts"]["layers"]
    write_json(folder.path / "run.json", record)
    assert measure(open_store(store.root)).runs.height == 1
    for part in folder.parts("profiles"):
        pq.write_table(pq.read_table(part).filter(pc.field("layer") != 4), part)
    assert measure(open_store(store.root)).runs.is_empty()


def test_the_change_of_the_embedding_and_the_saturated_share_stand_beside_a_profile(
    store: Store,
) -> None:
    folder = write_run(store, run_spec(), [0.2, 0.94, 0.96, 1.2])
    for part in folder.parts("profiles"):
        rows = pl.read_parquet(part)
        embedding = pl.when(layer=0).then(0.07).otherwise("procrustes").alias("procrustes")
        rows.with_columns(embedding).write_parquet(part)
    both = measure_each(open_store(store.root), ["procrustes", "mean_shift"])
    row = both["procrustes"].runs.row(0, named=True)
    assert (row["embedding_change"], row["saturated"]) == (pytest.approx(0.07), 0.5)
    assert both["procrustes"].blocks["layer"].to_list() == [1, 2, 3, 4]
    assert both["mean_shift"].left_out.height == 1
    for part in folder.parts("profiles"):
        rows = pl.read_parquet(part).filter(pl.col("layer") != 0)
        rows.with_columns(procrustes_null=pl.lit(None, pl.Float64)).write_parquet(part)
    row = measure(open_store(store.root)).runs.row(0, named=True)
    assert (row["embedding_change"], row["saturated"]) == (None, None)
    assert row["slope"] is not None


def test_profiles_without_a_group_of_sequences_have_their_own_quantities(store: Store) -> None:
    generator = np.random.default_rng(1)
    shapes = {"one": 6, "two": 3}
    groups = {name: generator.uniform(0.1, 1, (5, count)) for name, count in shapes.items()}
    for name, profiles in groups.items():
        write_run(store, run_spec(name), profiles.mean(axis=0).tolist(), deleted=profiles.tolist())
    write_run(store, run_spec("old"), [0.1, 0.2])
    broken = [[0.1, 0.2], [0.1, float("nan")], [0.2, 0.3]]
    write_run(store, run_spec("broken"), [0.1, 0.2], deleted=broken)
    write_run(store, run_spec("short"), [0.1, 0.2], deleted=[[0.1], [0.2]])
    found = measure_each(open_store(store.root), ["procrustes", "cka_distance", "mean_shift"])
    names = found["procrustes"].runs.select("run_id", "model")
    for metric, power in (("procrustes", 1), ("cka_distance", 2)):
        deleted = found[metric].deleted.join(names, on="run_id")
        assert deleted.height == 10
        for name, profiles in groups.items():
            mine = deleted.filter(model=name)
            assert mine["sequence_group"].to_list() == [0, 1, 2, 3, 4]
            expected = quantities(profiles**power)
            for quantity in set(QUANTITIES) - {"steepness"}:
                values = mine[quantity].fill_null(float("nan")).to_numpy()
                np.testing.assert_allclose(values, expected[quantity], rtol=1e-12, atol=1e-14)
            assert mine["steepness"].equals(mine["slope_normalised"], null_equal=True)
    assert found["mean_shift"].deleted.is_empty()
    early = measure(open_store(store.root), at=10)
    assert early.runs.height == 5
    assert early.deleted.is_empty()
    assert early.deleted.schema == found["procrustes"].deleted.schema
    assert measure(open_store(store.root), at=20).deleted.equals(found["procrustes"].deleted)


def test_slopes_by_step_are_read_where_a_run_stopped_early_and_its_end_is_asked_about(
    store: Store,
) -> None:
    write_run(store, run_spec(seed=0), [0.1, 0.2], classes=["A", "B"])
    assert measure(open_store(store.root)).by_step is None
    write_run(store, run_spec(seed=1), [0.1, 0.2], classes=["A", "B"], status="stopped", stop=15)
    tables = open_store(store.root)
    by_step = measure(tables).by_step
    assert by_step is not None
    stopped = by_step.filter(run_id=run_spec(seed=1).run_id)
    assert stopped.select("step", "slope").rows() == [
        (10, pytest.approx(0.1)),
        (15, pytest.approx(0.15)),
    ]
    assert measure(tables, at=10).by_step is None
    assert measure(tables, block_class="B").by_step is None


def test_a_summary_has_every_run_once_with_or_without_a_profile(store: Store) -> None:
    write_run(store, run_spec(seed=1), [0.1, 0.2], status="diverged", stop=10)
    write_run(store, run_spec(seed=0), [0.1, 0.3333333333])
    rows = run_summary(measure(open_store(store.root)), digits=3).to_dicts()
    assert [(row["seed"], row["status"], row["slope"]) for row in rows] == [
        (0, "finished", 0.467),
        (1, "diverged", None),
    ]
    assert rows[0]["run_id"] == run_spec(seed=0).run_id


def test_a_wrong_metric_or_step_is_a_users_mistake(store: Store) -> None:
    write_run(store, run_spec(), [0.1, 0.2])
    tables = open_store(store.root)
    with pytest.raises(UserError, match="did you mean 'procrustes'"):
        measure(tables, "procruste")
    with pytest.raises(UserError, match="probed: 10, 20"):
        measure(tables, at=15)


def test_settings_that_differ_within_a_condition_are_found(store: Store) -> None:
    write_run(store, run_spec(seed=0), [0.1, 0.2])
    write_run(store, run_spec(seed=0, learning_rate=5e-4), [0.1, 0.2])
    runs = open_store(store.root).runs().collect()
    assert varied_settings(runs, ["model", "objective", "control"]) == ["learning_rate"]


@pytest.mark.parametrize(
    ("widths", "said"), [((64, 64), None), ((64, 2048), "0.25 to 8 a feature")]
)
def test_unequal_probe_rows_a_feature_are_said(store: Store, widths, said) -> None:
    for model, width in zip(("one", "two"), widths, strict=True):
        write_run(store, run_spec(model), [0.1, 0.2], facts={"width": width})
    unequal = unequal_rows(measure(open_store(store.root)))
    assert unequal is None if said is None else said in unequal


def test_a_block_at_the_saturated_share_of_its_null_is_saturated(store: Store) -> None:
    write_run(store, run_spec(), [0.2, SATURATED, np.nextafter(SATURATED, 0), 1.2])
    assert measure(open_store(store.root)).runs["saturated"].to_list() == [0.5]


@pytest.mark.parametrize(("null", "saturated"), [(0.25, 0.75), (0.5, 0.5), (2.0, 0.0)])
def test_saturation_is_a_share_of_the_blocks_own_null(
    store: Store, null: float, saturated: float
) -> None:
    folder = write_run(store, run_spec(), [0.2, 0.3, 0.5, 0.6])
    for part in folder.parts("profiles"):
        pl.read_parquet(part).with_columns(procrustes_null=pl.lit(null)).write_parquet(part)
    assert measure(open_store(store.root)).runs["saturated"].to_list() == [saturated]


@pytest.mark.parametrize("harm", [None, float("nan"), float("inf")])
def test_a_profile_with_a_block_that_is_no_number_is_none(store: Store, harm: float | None) -> None:
    folder = write_run(store, run_spec(), [0.1, 0.2, 0.3, 0.4])
    for part in folder.parts("profiles"):
        value = pl.when(layer=2).then(pl.lit(harm, pl.Float64)).otherwise("procrustes")
        pl.read_parquet(part).with_columns(value.alias("procrustes")).write_parquet(part)
    profiles = measure(open_store(store.root))
    assert profiles.runs.is_empty()
    (reason,) = profiles.left_out["reason"]
    assert reason == "procrustes was not measured, or is not finite, in some block"


@pytest.mark.parametrize("metric", ["procrustes", "cka_distance", "cka_distance_debiased"])
def test_a_mean_change_under_the_floor_of_its_metric_has_no_shares(
    store: Store, metric: str
) -> None:
    """What is planted is the Procrustes distance, of which the CKA distances are the squares."""
    for seed, height in enumerate((1e-5, 1e-7)):
        write_run(store, run_spec(seed=seed), [height, 2 * height])
    found = measure(open_store(store.root), metric).runs.sort("seed")
    assert found["slope_normalised"].is_null().to_list() == [False, True]
    assert found["slope"].is_null().to_list() == [False, False]


def test_what_noise_does_is_of_all_blocks_and_of_no_class_of_them(store: Store) -> None:
    run = run_spec()
    write_run(store, run, [0.1, 0.2, 0.3, 0.4], classes=["A", "B", "A", "B"])
    record_propagation(store, run, draws_of_slope(0.05, layers=4))
    tables = open_store(store.root)
    whole = measure(tables).runs.row(0, named=True)
    assert whole["propagation"] == pytest.approx(0.05, abs=1e-6)
    over = whole["slope_normalised"] - whole["propagation"]
    assert whole["slope_beyond_propagation"] == pytest.approx(over)
    profiles = measure(tables, block_class="B")
    (row,) = profiles.runs.to_dicts()
    assert (row["propagation"], row["slope_beyond_propagation"]) == (None, None)
    assert profiles.blocks["without_gradient"].is_null().all()
    assert profiles.blocks.select("layer", "depth", "value").rows() == [
        (1, 0.5, pytest.approx(0.2)),
        (2, 1.0, pytest.approx(0.4)),
    ]
    without = measure(tables).blocks["without_gradient"].to_list()
    assert sum(without) / 4 == pytest.approx(0.25), "it has the mean change of the run"
    assert without == sorted(without)


def test_a_summary_says_how_often_blocks_run_where_one_runs_several_times(store: Store) -> None:
    write_run(store, run_spec(), [0.1, 0.1234567891])
    profiles = measure(open_store(store.root))
    assert "model_depth" not in run_summary(profiles).columns
    unknown = profiles.runs.with_columns(
        model_depth=pl.lit(None, profiles.runs["model_depth"].dtype)
    )
    assert "model_depth" not in run_summary(replace(profiles, runs=unknown)).columns
    looped = profiles.runs.with_columns(model_depth=2 * pl.col("model_layers"))
    assert run_summary(replace(profiles, runs=looped))["model_depth"].to_list() == [4]
    row = run_summary(profiles).row(0, named=True)
    assert row["slope"] == 0.0469136, "six significant digits"


def test_a_summary_has_the_settings_that_differ_between_its_runs_and_no_others(
    store: Store,
) -> None:
    write_run(store, run_spec(seed=0), [0.1, 0.2])
    alone = run_summary(measure(open_store(store.root))).columns
    assert not {"learning_rate", "steps"} & set(alone)
    write_run(store, run_spec(seed=1, learning_rate=5e-4), [0.1, 0.2])
    both = run_summary(measure(open_store(store.root)))
    assert set(both.columns) - set(alone) == {"learning_rate"}
    assert both["learning_rate"].to_list() == [5e-4, 1e-3]
