"""What readers make of measurements: propagation's numbers, and the columns of runs."""

import numpy as np
import polars as pl
import pytest
from planted_measurements import record_distance, record_propagation, record_result
from planted_store import run_spec, save_sweep, write_run

from sweeps.reading import measurements
from sweeps.reading.measurements import propagation_of, recorded, refusal_of
from sweeps.reading.tables import open_store
from sweeps.spec import Measurement, Objective
from sweeps.store.store import Store

COLUMNS = [
    "propagation",
    "propagation_sd",
    "objective_distance",
    "objective_distance_low",
    "objective_distance_high",
    "objective_distance_noisy",
    "objective_distance_common",
]


@pytest.fixture
def store(tmp_path):
    return Store.at(str(tmp_path / "store"))


def test_g_is_the_mean_slope_of_normalised_draws():
    rising = [[1.0, 2.0, 3.0, 4.0], [2.0, 2.0, 2.0, 2.0]]
    g, sd, draws, profile = propagation_of({"draws": {"cka_distance": rising}}, "cka_distance")
    slopes = [
        float(np.polyfit(np.arange(1, 5) / 4, np.array(d) / np.mean(d), 1)[0]) for d in rising
    ]
    assert g == pytest.approx(np.mean(slopes))
    assert sd == pytest.approx(np.std(slopes, ddof=1))
    assert draws == 2
    assert profile == pytest.approx([(0.4 + 1) / 2, (0.8 + 1) / 2, 1.1, 1.3])


@pytest.mark.parametrize(
    ("draws", "counted"),
    [
        ([[1.0, None], [1.0, 2.0]], 1),
        ([[0.0, 0.0], [1.0, 2.0], [2.0, 3.0]], 2),
        ([[-0.1, 0.5]], 0),
        ([[1.0]], 0),
        ([[float("nan"), 1.0]], 0),
        ([], 0),
    ],
)
def test_a_draw_without_a_profile_is_left_out(draws, counted):
    g, sd, found, profile = propagation_of({"draws": {"procrustes": draws}})
    assert found == counted
    assert (g is None, sd is None, profile is None) == (not counted, counted < 2, not counted)


def test_columns_are_null_until_measured_and_shared_by_all_runs_of_a_measurement(store):
    named = Objective(
        name="mine",
        kind="contrastive",
        data=run_spec().objective.data,
        temperature=0.05,
        pooling="mean",
    )
    runs = [
        run_spec(seed=0),
        run_spec(seed=1, control="equal_step"),
        run_spec(seed=2).model_copy(update={"objective": named}),
    ]
    for run in runs:
        write_run(store, run, [0.1, 0.2, 0.3])
    save_sweep(store, "toy", runs)
    before = open_store(store.root, sweep="toy").runs().collect()
    assert all(before[name].null_count() == 3 for name in COLUMNS)
    assert before.schema["objective_distance_noisy"] == pl.Boolean

    record_propagation(store, runs[0], [[1.0, 2.0], [1.0, 1.0]])
    record_distance(store, runs[2], [0.25])
    after = open_store(store.root, sweep="toy").runs().collect()
    assert after["propagation"].to_list() == pytest.approx([2 / 3] * 3)
    assert after["propagation_sd"][0] == pytest.approx((4 / 3) / 2**0.5)
    assert after["objective_distance"].to_list() == [None, None, 0.75]
    assert after.row(2, named=True)["objective_distance_low"] == pytest.approx(0.7)
    assert after.row(2, named=True)["objective_distance_high"] == pytest.approx(0.8)
    assert after["objective_distance_noisy"].to_list() == [None, None, False]
    assert after["objective_distance_common"].to_list() == [None, None, 0.375]


def test_each_measurement_is_read_once(store, monkeypatch):
    runs = [run_spec(seed=seed) for seed in range(9)]
    for run in runs:
        write_run(store, run, [0.1, 0.2])
    read = []
    before = measurements.result_of
    monkeypatch.setattr(measurements, "result_of", lambda *of: (read.append(of[1]), before(*of))[1])
    open_store(store.root).runs().collect()
    assert len(read) == len(set(read)) == 2


def test_a_refusal_is_no_measurement_and_says_why(store):
    one = Measurement(kind="objective_distance", run=run_spec())
    assert (recorded(store, one), refusal_of(store, one)) == (None, None)
    record_result(store, one, {"refused": "it has no head"})
    assert (recorded(store, one), refusal_of(store, one)) == (None, "it has no head")
    record_distance(store, one.run, [0.5])
    assert recorded(store, one)["distance"] == 0.5
    path = store.work(one.work_id).path / "DONE.json"
    path.write_text(path.read_text().replace("0.5", "0.6", 1))
    assert recorded(store, one) is None, "its seal is broken"
