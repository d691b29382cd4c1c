"""Quantities of a profile against numpy and scipy, and what they must obey."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from planted_store import run_spec, write_run
from scipy import stats

from sweeps.errors import UserError
from sweeps.reading.tables import open_store
from sweeps.statistics.profiles import (
    measure,
    quantity_expressions,
    run_summary,
    unequal_rows,
    varied_settings,
)
from sweeps.store.store import Store

changes = st.lists(st.floats(1e-3, 1.4), min_size=2, max_size=32)


def quantities(profile: Sequence[float]) -> dict[str, float | None]:
    count = len(profile)
    frame = pl.DataFrame({"d": profile, "depth": [i / count for i in range(1, count + 1)]})
    named = {name: expr.alias(name) for name, expr in quantity_expressions("d").items()}
    return frame.select(**named).row(0, named=True)


@given(changes)
def test_quantities_agree_with_numpy_and_scipy(profile: list[float]) -> None:
    d = np.array(profile)
    x = np.arange(1, len(d) + 1) / len(d)
    p = d / d.sum()
    got = quantities(profile)
    slope = stats.linregress(x, d).slope
    assert got["slope"] == pytest.approx(slope, rel=1e-9, abs=1e-12)
    assert got["slope_normalised"] == pytest.approx(slope / d.mean(), rel=1e-9, abs=1e-12)
    assert got["centre_of_mass"] == pytest.approx((x * p).sum(), rel=1e-12)
    assert got["width"] == pytest.approx(np.exp(stats.entropy(p)) / len(d), rel=1e-12)
    assert got["concentration_last_quarter"] == pytest.approx(p[x > 0.75].sum(), rel=1e-12)
    if np.unique(d).size > 1:
        assert got["spearman"] == pytest.approx(stats.spearmanr(x, d).statistic, rel=1e-9, abs=1e-9)
    else:
        assert got["spearman"] is None


@given(changes, st.floats(0.01, 100))
def test_scaling_a_profile_scales_only_its_slope(profile: list[float], factor: float) -> None:
    before, after = quantities(profile), quantities([factor * d for d in profile])
    assert after["slope"] == pytest.approx(factor * before["slope"], rel=1e-6, abs=1e-9 * factor)
    for name in ("slope_normalised", "centre_of_mass", "width", "concentration_last_quarter"):
        assert after[name] == pytest.approx(before[name], rel=1e-6, abs=1e-8)


@given(changes)
def test_reversing_a_profile_negates_its_slope(profile: list[float]) -> None:
    before, after = quantities(profile), quantities(profile[::-1])
    assert after["slope"] == pytest.approx(-before["slope"], rel=1e-6, abs=1e-9)
    assert after["width"] == pytest.approx(before["width"], rel=1e-9)


def test_known_profiles() -> None:
    flat = quantities([0.5] * 8)
    assert flat["slope"] == 0
    assert flat["width"] == pytest.approx(1)
    assert flat["concentration_last_quarter"] == pytest.approx(0.25)
    last = quantities([0.0, 0.0, 0.0, 1.0])
    assert (last["width"], last["centre_of_mass"]) == (pytest.approx(0.25), 1.0)
    assert last["concentration_last_quarter"] == 1.0
    assert quantities([0.1 + 0.3 * i / 6 for i in range(1, 7)])["slope"] == pytest.approx(0.3)


def test_what_is_not_defined_is_null() -> None:
    assert quantities([0.3])["slope"] is None
    unchanged = quantities([0.0, 0.0, 0.0])
    assert unchanged["slope"] == 0
    for name in ("slope_normalised", "centre_of_mass", "width", "spearman"):
        assert unchanged[name] is None
    signed = quantities([-0.1, 0.2])
    assert signed["slope"] == pytest.approx(0.6)
    assert signed["width"] is None


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


@pytest.mark.parametrize("harm", ["one less", "the last", "twice"])
def test_a_profile_without_every_block_once_is_none(store: Store, harm: str) -> None:
    write_run(store, run_spec(seed=0), [0.1, 0.2, 0.3, 0.4])
    folder = write_run(store, run_spec(seed=1), [0.1, 0.2, 0.3, 0.4])
    for part in folder.parts("profiles"):
        rows = pq.read_table(part)
        harmed = {
            "one less": rows.filter(pc.field("layer") != 2),
            "the last": rows.filter(pc.field("layer") != 4),
            "twice": pa.concat_tables([rows, rows.filter(pc.field("layer") == 3)]),
        }
        pq.write_table(harmed[harm], part)
    profiles = measure(open_store(store.root))
    assert profiles.runs["seed"].to_list() == [0]
    assert profiles.left_out["reason"].to_list() == ["not every block has one row at its last step"]


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
