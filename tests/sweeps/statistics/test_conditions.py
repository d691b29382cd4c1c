"""Conditions: intervals over seeds, what is flagged, and the page a person reads."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from planted_measurements import draws_of_slope, record_propagation
from planted_store import run_spec, write_run
from scipy import stats

from sweeps.errors import UserError
from sweeps.reading.tables import open_store
from sweeps.report.profile_text import profile_text, sparkline, with_interval
from sweeps.statistics.conditions import (
    _by_model,
    layer_bands,
    parse_by,
    require_one_a_seed,
    summarise,
)
from sweeps.statistics.intervals import mean_intervals
from sweeps.statistics.profiles import Profiles, measure
from sweeps.store.store import Store


@pytest.fixture(scope="module")
def profiles(tmp_path_factory: pytest.TempPathFactory) -> Profiles:
    store = Store.at(str(tmp_path_factory.mktemp("conditions") / "store"))
    for seed, slope in enumerate((0.2, 0.3, 0.5)):
        write_run(store, run_spec(seed=seed), lambda x, slope=slope: 0.1 + slope * x)
    for seed, slope in enumerate((0.1, 0.2)):
        run = run_spec("a-model-with-a-long-name", "classification", "equal_step", seed)
        write_run(store, run, lambda x, slope=slope: 0.1 + slope * x, facts={"layers": 20})
    write_run(store, run_spec("opt"), [0.1, 0.2, 0.3])
    write_run(store, run_spec("opt", seed=1), [0.1, 0.2, 0.3], status="diverged", stop=10)
    write_run(store, run_spec("still", seed=1), [1e-8, 1e-8])
    write_run(store, run_spec("lost", seed=1), [1.0, 1.0])
    return measure(open_store(store.root))


BY = ["model", "objective", "control"]


def test_slopes_have_the_interval_of_their_seeds(profiles: Profiles) -> None:
    row = summarise(profiles, BY).filter(model="gpt2").row(0, named=True)
    low, high = mean_intervals(np.array([[0.2], [0.3], [0.5]]))
    assert row["slope"] == pytest.approx(1 / 3)
    assert (row["slope_low"], row["slope_high"]) == (pytest.approx(low[0]), pytest.approx(high[0]))
    assert (row["n"], row["seeds"], row["diverged"], row["flags"]) == (3, 3, 0, "")


def test_what_weakens_a_condition_is_flagged(profiles: Profiles) -> None:
    flags = dict(summarise(profiles, BY).select("model", "flags").rows())
    assert flags["a-model-with-a-long-name"] == "only 2 seeds: no verdict"
    assert flags["opt"] == "one seed, no interval; 1 diverged"
    assert "under the numerical floor" in flags["still"]
    assert "at the row-shuffled null" in flags["lost"]
    one = summarise(profiles, BY).filter(model="opt").row(0, named=True)
    assert one["slope"] == pytest.approx(0.3)
    assert one["slope_low"] is None


def test_a_metric_without_a_floor_is_never_under_it(profiles: Profiles) -> None:
    still = profiles.runs.with_columns(mean=pl.lit(0.0))
    for metric, said in (("mean_shift", ""), ("procrustes", "under the numerical floor")):
        table = summarise(replace(profiles, metric=metric, runs=still), BY)
        assert table.filter(model="gpt2")["flags"].to_list() == [said]


def test_models_of_one_seed_have_no_interval_together(profiles: Profiles) -> None:
    rows = {row["model"]: row for row in summarise(profiles, ["model"]).to_dicts()}
    assert rows["gpt2"]["slope_low"] is not None
    assert rows["lost"]["slope_low"] is None


def test_bands_hold_each_block_of_each_condition(profiles: Profiles) -> None:
    bands = layer_bands(profiles, BY)
    gpt2 = bands.filter(model="gpt2")
    assert gpt2["layer"].to_list() == list(range(1, 13))
    assert gpt2["value"][-1] == pytest.approx(0.1 + 1 / 3)
    low, high = mean_intervals(np.array([[0.3], [0.4], [0.6]]))
    assert (gpt2["low"][-1], gpt2["high"][-1]) == (pytest.approx(low[0]), pytest.approx(high[0]))
    assert bands.filter(model="opt")["low"].is_null().all()


def test_the_page_fits_and_mentions_every_diverged_run(profiles: Profiles) -> None:
    page = profile_text("toy", profiles, BY)
    assert max(map(len, page.splitlines())) <= 80
    assert "! diverged at step 10: opt clm standard seed 1" in page
    assert sparkline([0.1 + (i + 1) / 36 for i in range(12)]) in page
    opt = page.splitlines()[page.splitlines().index("opt") + 1]
    assert "0.300" in opt
    assert "[" not in opt


def test_a_row_that_pools_conditions_says_how_many(profiles: Profiles) -> None:
    flags = dict(summarise(profiles, ["control"]).select("control", "flags").rows())
    assert flags["standard"].startswith("pools 4 conditions")
    assert "pools" not in flags["equal_step"]


def test_by_accepts_only_columns_of_runs(profiles: Profiles) -> None:
    assert parse_by(None, profiles.runs) == BY
    assert parse_by("family, control", profiles.runs) == ["family", "control"]
    with pytest.raises(UserError, match="did you mean 'control'"):
        parse_by("contrl", profiles.runs)
    for measured in ("dose", "propagation", "run_id"):
        with pytest.raises(UserError, match="group by settings"):
            parse_by(measured, profiles.runs)


def test_sparklines_start_at_zero_and_average_what_does_not_fit() -> None:
    assert sparkline([0.0, 0.5, 1.0]) == "▁▅█"
    assert sparkline([1.0, 1.0]) == "██"
    assert sparkline([0.0, 0.0]) == "▁▁"
    assert sparkline([-1.0, 1.0]) == "▁█"
    assert len(sparkline([0.1] * 32)) == 10


def test_intervals_are_written_to_the_digits_they_have() -> None:
    assert with_interval(0.2914, 0.27, 0.311) == "0.291 [0.270, 0.311]"
    assert with_interval(0.2914, None, None) == "0.291"
    assert with_interval(0.00012, 0.0001, 0.0002) == "0.00012 [0.00010, 0.00020]"
    assert with_interval(None, None, None) == "–"


def test_an_empty_selection_is_an_empty_table(tmp_path: Path) -> None:
    store = Store.at(str(tmp_path / "store"))
    write_run(store, run_spec(), [0.1, 0.2], status=None, stop=10)
    profiles = measure(open_store(store.root))
    table = summarise(profiles, BY)
    assert table.select("n", "missing", "flags").rows() == [
        (0, 1, "no finished run; 1 without a profile")
    ]
    assert layer_bands(profiles, BY).is_empty()


def test_what_is_over_propagation_has_the_error_of_the_rows_as_the_slope_has(
    tmp_path: Path,
) -> None:
    store = Store.at(str(tmp_path / "store"))
    for seed in range(3):
        profile = [0.3 + (0.2 + 0.001 * seed) * i / 12 for i in range(1, 13)]
        deleted = [
            [d + (0.6 * (g == 3)) * i / 12 for i, d in enumerate(profile)] for g in range(16)
        ]
        write_run(store, run_spec(seed=seed), profile, deleted=deleted)
    record_propagation(store, run_spec(), draws_of_slope(0.05))
    row = summarise(measure(open_store(store.root)), BY).row(0, named=True)
    assert row["rows"]
    half = row["slope_normalised_high"] - row["slope_normalised"]
    over = "slope_beyond_propagation"
    assert row[over] == pytest.approx(row["slope_normalised"] - 0.05, abs=1e-3)
    assert row[f"{over}_high"] - row[over] >= 0.99 * half > 0.1
    assert not row["beyond_propagation"]


def test_a_model_without_a_slope_leaves_the_others_theirs(tmp_path: Path) -> None:
    """Of one block there is no slope; pooled are the three models that have one."""
    store = Store.at(str(tmp_path / "store"))
    for model, blocks in (("a", 4), ("b", 4), ("c", 4), ("d", 1)):
        for seed in range(2):
            write_run(
                store, run_spec(model, seed=seed), lambda x: 0.1 + 0.3 * x, facts={"layers": blocks}
            )
    row = summarise(measure(open_store(store.root)), ["control"]).row(0, named=True)
    assert row["slope"] == pytest.approx(0.3)
    assert row["slope_low"] == pytest.approx(0.3)
    assert row["flags"] == "pools 4 conditions: interval over 4 models"


def test_a_pooled_row_weighs_models_alike_in_all_its_numbers(tmp_path: Path) -> None:
    store = Store.at(str(tmp_path / "store"))
    for model, seeds, height in (("a", 6, 0.1), ("b", 2, 0.5), ("c", 2, 0.5)):
        for seed in range(seeds):
            write_run(store, run_spec(model, seed=seed), [height] * 4)
    profiles = measure(open_store(store.root))
    row = summarise(profiles, ["control"]).row(0, named=True)
    assert row["mean"] == pytest.approx(1.1 / 3)
    assert layer_bands(profiles, ["control"])["value"].to_list() == [pytest.approx(1.1 / 3)] * 4


def test_seeds_that_do_nothing_are_named(tmp_path: Path) -> None:
    store = Store.at(str(tmp_path / "store"))
    for seed in range(3):
        write_run(store, run_spec(seed=seed), [0.1, 0.2, 0.3, 0.4])
    row = summarise(measure(open_store(store.root)), BY).row(0, named=True)
    assert row["flags"] == "all seeds gave the same slope"


def test_what_the_propagation_draws_add_to_an_interval_has_their_degrees_of_freedom(
    profiles: Profiles,
) -> None:
    """Seeds that agree leave the error of the mean of 20 draws alone."""
    runs = profiles.runs.filter(model="gpt2").with_columns(
        slope_beyond_propagation=pl.lit(0.3), propagation_sd=pl.lit(0.2)
    )
    row = summarise(replace(profiles, runs=runs), BY).filter(model="gpt2").row(0, named=True)
    half = stats.t.ppf(0.975, 19) * 0.2 / np.sqrt(20)
    assert row["slope_beyond_propagation_low"] == pytest.approx(0.3 - half)
    assert row["slope_beyond_propagation_high"] == pytest.approx(0.3 + half)
    assert row["beyond_propagation"]


def test_the_propagation_of_pooled_models_is_in_their_spread_and_not_added(
    profiles: Profiles,
) -> None:
    runs = profiles.runs.filter(pl.col("model").is_in(["gpt2", "opt"])).with_columns(
        slope_beyond_propagation=pl.lit(0.3), propagation_sd=pl.lit(0.2)
    )
    pooled = replace(profiles, runs=runs, left_out=profiles.left_out.clear())
    row = summarise(pooled, ["control"]).row(0, named=True)
    over = "slope_beyond_propagation"
    assert [row[f"{over}{end}"] for end in ("_low", "", "_high")] == [pytest.approx(0.3)] * 3


def test_models_come_in_the_order_of_their_runs_so_that_sums_are_the_same_each_time() -> None:
    names = [f"m{(7 * k) % 500}" for k in range(500)]
    runs = pl.DataFrame(
        {
            "control": ["standard"] * 1000,
            "model": names + names[::-1],
            "rate": [0] * 500 + [1] * 500,
            "value": [float(k) for k in range(500)] + [float(k) + 1 for k in range(500)][::-1],
            "dose": [0.0] * 1000,
        }
    )
    found = _by_model(runs, ["model", "rate"], ["control"], ["value"])
    assert found["model"].to_list() == names
    assert found["value"].to_list() == [k + 0.5 for k in range(500)]
    # Within a model the conditions are summed in their order: 1e16 + 1 - 1e16 is 0 and not 1.
    tall = [1e16, 1.0, -1e16] * 200
    runs = pl.DataFrame(
        {
            "control": ["standard"] * 600,
            "model": [f"m{k // 3}" for k in range(600)],
            "rate": [k % 3 for k in range(600)],
            "value": tall,
        }
    )
    found = _by_model(runs, ["model", "rate"], ["control"], ["value"])
    assert found["value"].n_unique() == 1


def test_bands_have_these_columns_and_the_means_of_their_runs(profiles: Profiles) -> None:
    layers = pl.col("layer").cast(pl.Float64)
    blocks = profiles.blocks.with_columns(
        without_gradient=layers + pl.col("seed"), null=layers + 2 * pl.col("seed")
    )
    bands = layer_bands(replace(profiles, blocks=blocks), BY)
    assert bands.columns == [
        *(*BY, "blocks", "layer", "depth", "n", "value"),
        *("null", "null_low", "null_high", "low", "high", "without_gradient"),
    ]
    last = bands.filter(model="gpt2", layer=12).row(0, named=True)
    assert last["without_gradient"] == pytest.approx(12 + 1)
    assert (last["null"], last["null_low"], last["null_high"]) == (14.0, 12.0, 16.0)
    assert (last["blocks"], last["n"], last["depth"]) == (12, 3, 1.0)


def test_two_conditions_of_one_row_are_two_models_in_its_bands(profiles: Profiles) -> None:
    """Three seeds of one model and one of another are the mean of the two models."""
    kept = pl.col("model").is_in(["gpt2", "opt"])
    blocks = profiles.blocks.filter(kept & (pl.col("layer") <= 3)).with_columns(
        value=pl.when(model="gpt2").then(0.2).otherwise(0.6)
    )
    pooled = replace(
        profiles,
        runs=profiles.runs.filter(kept),
        blocks=blocks,
        left_out=profiles.left_out.clear(),
    )
    bands = layer_bands(pooled, ["control"])
    assert bands["value"].to_list() == [pytest.approx(0.4)] * 3
    low, high = mean_intervals(np.array([[0.2], [0.6]]))
    assert bands["low"].to_list() == [pytest.approx(low[0])] * 3
    assert bands["high"].to_list() == [pytest.approx(high[0])] * 3


def test_two_runs_of_one_condition_and_seed_are_refused_by_name(profiles: Profiles) -> None:
    require_one_a_seed(profiles.runs, BY, "compare")
    again = profiles.runs.filter(model="opt").with_columns(run_id=pl.lit("another"))
    (first,) = profiles.runs.filter(model="opt")["run_id"]
    named = ", ".join(sorted([first, "another"]))
    with pytest.raises(UserError, match=f"compare: runs {named} have the same settings and seed"):
        require_one_a_seed(pl.concat([profiles.runs, again]), BY, "compare")


@pytest.mark.parametrize(("groups", "measured"), [(1, False), (2, True)])
def test_one_group_of_sequences_says_nothing_of_the_rows(
    tmp_path: Path, groups: int, measured: bool
) -> None:
    store = Store.at(str(tmp_path / "store"))
    for seed in range(2):
        profile = [0.1, 0.2, 0.3 + 0.1 * seed, 0.4]
        deleted = [[d + 0.01 * g * i for i, d in enumerate(profile)] for g in range(groups)]
        write_run(store, run_spec(seed=seed), profile, deleted=deleted)
    row = summarise(measure(open_store(store.root)), BY).row(0, named=True)
    low, high = mean_intervals(np.array([[0.4], [0.48]]))
    assert row["rows"] is measured
    assert (row["slope_low"] == pytest.approx(low[0])) is not measured
    assert (row["slope_high"] == pytest.approx(high[0])) is not measured


def test_by_that_names_no_column_is_refused(profiles: Profiles) -> None:
    with pytest.raises(UserError, match="names no column"):
        parse_by(" , ", profiles.runs)
    assert parse_by("model, model", profiles.runs) == ["model"]


def test_a_setting_that_nobody_says_groups_as_one_that_is_said(tmp_path: Path) -> None:
    store = Store.at(str(tmp_path / "store"))
    for seed in range(2):
        profile = [0.1, 0.2, 0.3 + 0.1 * seed, 0.4]
        deleted = [[d + 0.01 * g * i for i, d in enumerate(profile)] for g in range(4)]
        write_run(store, run_spec(seed=seed), profile, deleted=deleted)
    profiles = measure(open_store(store.root))
    assert profiles.runs["max_grad_norm"].null_count() == 2
    by = [*BY, "max_grad_norm"]
    row = summarise(profiles, by).row(0, named=True)
    assert row["rows"]
    assert row["slope_low"] == pytest.approx(summarise(profiles, BY)["slope_low"][0])
    assert (
        layer_bands(profiles, by)["value"].to_list() == layer_bands(profiles, BY)["value"].to_list()
    )
    assert layer_bands(profiles, by)["low"].null_count() == 0
