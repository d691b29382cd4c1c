"""Verdicts of persistence on planted slopes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from planted_store import run_spec, write_run
from scipy import stats

from sweeps.errors import UserError
from sweeps.findings.persistence import Paired, compare, judge, verdicts_by_metric
from sweeps.reading.tables import open_store
from sweeps.report.persistence_text import persistence_text
from sweeps.statistics.profiles import Profiles, measure
from sweeps.store.store import Store

# objective -> slope of each seed under standard, and under equal_step
PLANTED = {
    "clm": ([0.30, 0.31, 0.32], [0.20, 0.21, 0.19]),
    "classification": ([0.30, 0.31, 0.32], [0.05, -0.04, 0.01]),
    "contrastive": ([0.30, 0.31, 0.32], [-0.20, -0.21, -0.19]),
}
slopes = st.integers(-1000, 1000).map(lambda thousandths: thousandths / 1000)
EXPECTED = {"clm": "persists", "classification": "collapses", "contrastive": "reverses"}


def line(slope: float) -> list[float]:
    return [0.5 + slope * i / 8 for i in range(1, 9)]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    store = Store.at(str(tmp_path_factory.mktemp("persistence") / "store"))
    for objective, (standard, controlled) in PLANTED.items():
        for seed in range(3):
            write_run(store, run_spec("gpt2", objective, "standard", seed), line(standard[seed]))
            write_run(
                store, run_spec("gpt2", objective, "equal_step", seed), line(controlled[seed])
            )
    # One matched seed; a second controlled seed whose counterpart diverged.
    write_run(store, run_spec("opt", "clm", "standard", 0), line(0.3))
    write_run(store, run_spec("opt", "clm", "equal_step", 0), line(0.3))
    write_run(store, run_spec("opt", "clm", "standard", 1), line(0.3), status="diverged", stop=10)
    write_run(store, run_spec("opt", "clm", "equal_step", 1), line(0.3))
    return store


@pytest.fixture(scope="module")
def profiles(store: Store) -> Profiles:
    return measure(open_store(store.root))


def test_planted_slopes_get_their_verdicts(profiles: Profiles) -> None:
    table = compare(profiles).filter(model="gpt2")
    assert dict(table.select("objective", "verdict").rows()) == EXPECTED
    row = table.filter(objective="clm").row(0, named=True)
    assert (row["n"], row["slope_against"]) == (3, pytest.approx(0.31))
    assert row["slope_control"] == pytest.approx(0.20)
    assert row["retained"] == pytest.approx(0.20 / 0.31)
    assert row["retained_low"] < row["retained"] < row["retained_high"]


def test_only_matched_seeds_count(profiles: Profiles) -> None:
    row = compare(profiles).filter(model="opt").row(0, named=True)
    assert (row["n"], row["verdict"]) == (1, "insufficient")
    assert row["along_low"] is None
    assert row["flags"] == "1 of 2 seeds matched"


def test_one_seed_is_insufficient() -> None:
    assert judge(Paired(np.array([0.5]), np.array([0.5]))).verdict == "insufficient"
    assert judge(Paired(np.array([]), np.array([]))).verdict == "insufficient"


def test_a_falling_profile_that_keeps_falling_persists() -> None:
    pair = Paired(np.array([-0.2, -0.21]), np.array([-0.3, -0.31]))
    assert judge(pair).verdict == "persists"
    assert judge(Paired(-pair.controlled, pair.standard)).verdict == "reverses"


@given(st.lists(st.tuples(slopes, st.floats(0.1, 1)), min_size=2, max_size=6))
def test_the_verdict_follows_the_interval_of_scipy(pairs: list[tuple[float, float]]) -> None:
    controlled, standard = (np.array(side) for side in zip(*pairs, strict=True))
    result = judge(Paired(controlled, standard))
    assert result.retained[0] == pytest.approx(controlled.mean() / standard.mean())
    if controlled.min() > 0:
        assert result.verdict == "persists"
    elif controlled.max() < 0:
        assert result.verdict == "reverses"
    _, low, high = result.along
    assert controlled.min() - 1e-9 <= low <= high <= controlled.max() + 1e-9


def test_the_ratio_is_resampled_in_pairs() -> None:
    generator = np.random.default_rng(3)
    standard = generator.uniform(0.2, 0.6, 6)
    # Each seed keeps exactly half: paired, the ratio does not vary at all.
    _, low, high = judge(Paired(0.5 * standard, standard)).retained
    assert (low, high) == (pytest.approx(0.5), pytest.approx(0.5))
    noisy = 0.5 * standard + generator.normal(0, 0.02, 6)
    theirs = stats.bootstrap(
        (noisy, standard),
        lambda a, b, axis: a.mean(axis=axis) / b.mean(axis=axis),
        paired=True,
        n_resamples=10_000,
        method="percentile",
        rng=0,
    ).confidence_interval
    _, low, high = judge(Paired(noisy, standard)).retained
    assert (low, high) == (
        pytest.approx(theirs.low, abs=5e-3),
        pytest.approx(theirs.high, abs=5e-3),
    )


def test_metrics_that_disagree_are_flagged(tmp_path: Path) -> None:
    store = Store.at(str(tmp_path / "store"))
    for seed in range(2):
        write_run(store, run_spec(seed=seed), line(0.3))
        write_run(
            store,
            run_spec(control="equal_step", seed=seed),
            line(0.2),
            metrics={"cka_distance": line(-0.2), "cka_distance_debiased": line(0.2)},
        )
    tables = open_store(store.root)
    metrics = ["procrustes", "cka_distance", "cka_distance_debiased"]
    table = verdicts_by_metric({name: measure(tables, name) for name in metrics})
    row = table.row(0, named=True)
    assert [row[f"verdict_{name}"] for name in metrics] == ["persists", "reverses", "persists"]
    assert row["flags"] == "only 2 seeds; metrics disagree"


def test_the_page_fits(profiles: Profiles, store: Store) -> None:
    metrics = ["procrustes", "cka_distance"]
    tables = open_store(store.root)
    table = verdicts_by_metric({name: measure(tables, name) for name in metrics})
    page = persistence_text("toy", table, "equal_step", "standard", metrics)
    assert max(map(len, page.splitlines())) <= 80
    assert "1 persists, 1 collapses, 1 reverses, 1 insufficient" in page
    assert profiles.metric in page


def test_a_control_that_no_run_has_is_a_users_mistake(profiles: Profiles) -> None:
    with pytest.raises(UserError, match="did you mean 'equal_step'"):
        compare(profiles, control="equal_steps")
    with pytest.raises(UserError, match="compare two controls"):
        compare(profiles, control="standard")


def test_seeds_are_matched_with_all_other_settings_equal(tmp_path: Path) -> None:
    store = Store.at(str(tmp_path / "store"))
    for seed in range(3):
        write_run(store, run_spec(seed=seed, learning_rate=1e-3), line(0.3))
        other = run_spec(control="equal_step", seed=seed, learning_rate=1e-4)
        write_run(store, other, line(0.2))
    row = compare(measure(open_store(store.root))).row(0, named=True)
    assert (row["learning_rate"], row["n"], row["verdict"]) == (1e-4, 0, "insufficient")
    assert row["flags"].startswith("0 of 3 seeds matched")


@pytest.mark.parametrize("control", ["standard", "equal_step"])
def test_a_seed_with_two_counterparts_is_refused(profiles: Profiles, control: str) -> None:
    twice = profiles.runs.filter(control=control).head(1)
    doubled = replace(profiles, runs=pl.concat([profiles.runs, twice]))
    with pytest.raises(UserError, match="no seed has one counterpart"):
        compare(doubled)


def test_two_settings_of_a_control_are_two_conditions(tmp_path: Path) -> None:
    from sweeps.spec import LayerClip

    store = Store.at(str(tmp_path / "store"))
    for seed in range(2):
        write_run(store, run_spec(seed=seed), line(0.3))
        for norm, slope in ((0.1, 0.2), (0.5, 0.3)):
            control = LayerClip(max_norm=norm)
            write_run(store, run_spec(control=control, seed=seed), line(slope))
    profiles = measure(open_store(store.root))
    table = compare(profiles, control="layer_clip")
    assert table.select(pl.col("max_norm").sort()).to_series().to_list() == [0.1, 0.5]
    with pytest.raises(UserError, match="several settings"):
        compare(profiles, control="standard", against="layer_clip")
