"""Verdicts of persistence on planted slopes."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from planted_store import evaluated, run_spec, write_run

from sweeps.errors import UserError
from sweeps.findings.arms import (
    paths_of,
    slope_at,
    slopes_at_equal_change,
    slopes_at_equal_loss,
)
from sweeps.findings.persistence import compare, verdicts_by_metric
from sweeps.reading.tables import Tables, open_store
from sweeps.report.persistence_text import persistence_text
from sweeps.spec import RunSpec
from sweeps.statistics.profiles import Profiles, measure
from sweeps.store.store import Store

# objective -> slope of each seed under standard, and under equal_step
PLANTED = {
    "clm": ([0.30, 0.31, 0.32], [0.20, 0.21, 0.19]),
    "classification": ([0.30, 0.31, 0.32], [0.02, -0.01, 0.01]),
    "contrastive": ([0.30, 0.31, 0.32], [-0.20, -0.21, -0.19]),
}
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
    assert row["flags"] == "1 of 2 seeds matched with a slope; 1 diverged"


def test_states_of_a_sweep_come_from_its_tables(tmp_path: Path) -> None:
    """Dose, saturation, divergence and pretraining are read, not given."""
    store = Store.at(str(tmp_path / "store"))
    idle = [1e-3 * (1 + 0.05 * i) for i in range(8)]
    pretrained = {"pretraining_loss": 5.0, "pretraining_loss_se": 0.01, "unigram_entropy": 5.1}
    cases: dict[str, dict[str, Any]] = {
        "idle": {"ratios": idle},
        "unlearned": {"facts": pretrained},
        "saturated": {},
        "unstable": {},
    }
    for model, options in cases.items():
        for seed in range(5):
            for control in ("standard", "equal_step"):
                broken = model == "unstable" and seed == 4 and control == "standard"
                lift = 0.7 if model == "saturated" else 0.0
                write_run(
                    store,
                    run_spec(model, control=control, seed=seed),
                    [lift + d + 0.01 * seed for d in line(0.3)],
                    **({"status": "diverged", "stop": 10} if broken else {}),
                    **options,
                )
    table = compare(measure(open_store(store.root)))
    assert dict(table.select("model", "verdict").rows()) == {model: model for model in cases}
    row = table.filter(model="unstable").row(0, named=True)
    assert (row["n"], row["pairs"], row["diverged"]) == (4, 5, 1)
    assert table.filter(model="idle")["dose"][0] == pytest.approx(1.35)


def test_the_probes_rows_widen_the_interval_of_matched_seeds(tmp_path: Path) -> None:
    """A slope that rests on one group of probe sequences is no finding, however alike the seeds."""
    store = Store.at(str(tmp_path / "store"))
    for seed in range(3):
        for control, kept in (("standard", 1.0), ("equal_step", 0.5)):
            slope = 0.3 * kept + 0.002 * seed
            deleted = [line(slope + (0.9 if group == 3 else 0.0)) for group in range(16)]
            run = run_spec(control=control, seed=seed)
            write_run(store, run, line(slope), deleted=deleted)
    profiles = measure(open_store(store.root))
    row = compare(profiles).row(0, named=True)
    assert row["rows"]
    assert row["verdict"] != "persists"
    without = compare(replace(profiles, without=profiles.without.clear())).row(0, named=True)
    assert not without["rows"]
    assert without["verdict"] == "persists"
    assert without["along_high"] - without["along_low"] < row["along_high"] - row["along_low"]


def test_arms_that_changed_unequally_are_judged_again_where_they_changed_alike(
    tmp_path: Path,
) -> None:
    """Under the control all changes twice as far: at equal change half of its slope is left."""
    store = Store.at(str(tmp_path / "store"))
    for seed in range(3):
        profile = [0.1 + (0.3 + 0.003 * seed) * i / 8 for i in range(1, 9)]
        write_run(store, run_spec(seed=seed), profile)
        further = [0.1 + 0.9 * 0.3 + 0.2 * (d - 0.25) for d in profile]
        write_run(store, run_spec(control="equal_step", seed=seed), further)
    tables = open_store(store.root)
    row = compare(measure(tables), paths=paths_of(tables, "procrustes")).row(0, named=True)
    ratio = np.mean([0.1 + 0.3 * 9 / 16]) / np.mean(
        [0.1 + 0.27 + 0.2 * (0.1 + 0.3 * 9 / 16 - 0.25)]
    )
    assert row["verdict_equal_loss"] == "unmatched"
    assert row["slope_control"] == pytest.approx(0.2 * row["slope_against"])
    assert (row["verdict"], ratio < 1) == ("collapses", True)
    assert row["verdict_equal_change"] == "collapses"


def test_a_slope_between_probes_is_interpolated_where_the_mean_is_reached_first() -> None:
    path = np.array([[0.0, 0.0], [0.2, 0.1], [0.6, 0.5], [0.5, 0.3]])
    assert slope_at(path, 0.0) == 0.0
    assert slope_at(path, 0.1) == pytest.approx(0.05)
    assert slope_at(path, 0.4) == pytest.approx(0.3)
    assert slope_at(path, 0.55) == pytest.approx(0.45)


def test_equal_change_is_the_smaller_of_the_two_final_ones() -> None:
    paths = {
        ("a", None): np.array([[0.0, 0.0], [0.2, 0.1], [0.4, 0.3]]),
        ("b", None): np.array([[0.0, 0.0], [0.3, 0.3]]),
    }
    found = slopes_at_equal_change(paths, ["a"], ["b"])
    assert found is not None
    assert [float(each[0]) for each in found.slopes] == [pytest.approx(0.2), pytest.approx(0.3)]
    assert found.shares == (pytest.approx(0.75), 1.0)
    assert slopes_at_equal_change(paths, ["a"], ["gone"]) is None


def evaluated_study(root: Path, ends: dict[str, float], changes: dict[str, float]) -> Tables:
    """Write arms that begin at a loss of 4 and fall in proportion to the step to ``ends``, with
    slopes ``changes``, over three seeds."""
    store = Store.at(str(root / "store"))
    for seed in range(3):
        for control, end in ends.items():
            run = evaluated(run_spec(control=control, seed=seed))

            def scores(step: int, end: float = end, run: RunSpec = run) -> dict[str, float]:
                loss = 4 - (4 - end) * step / run.steps
                return {"loss": loss, "perplexity": math.exp(loss)}

            slope = changes[control] + 0.003 * seed
            write_run(store, run, line(slope), scores=scores)
    return open_store(store.root)


def test_a_control_under_which_nothing_was_learned_is_untrained(tmp_path: Path) -> None:
    tables = evaluated_study(
        tmp_path, {"standard": 3.0, "equal_step": 4.0}, {"standard": 0.3, "equal_step": 0.01}
    )
    row = compare(measure(tables)).row(0, named=True)
    assert row["verdict"] == "untrained"
    assert (row["evaluation_loss_against"], row["evaluation_loss_control"]) == (3.0, 4.0)
    assert row["evaluation_perplexity_against"] == pytest.approx(math.exp(3.0))
    assert row["evaluation_loss_change_control"] == 0.0
    assert "evaluation_accuracy_control" not in row


def test_arms_at_a_probe_step_have_the_scores_of_that_step(tmp_path: Path) -> None:
    """The reference ends at a loss of 2 and the control unmoved; half way it is at 3."""
    tables = evaluated_study(
        tmp_path, {"standard": 2.0, "equal_step": 4.0}, {"standard": 0.3, "equal_step": 0.01}
    )
    steps = run_spec().steps
    for at in (steps // 2, steps):
        row = compare(measure(tables, at=at)).row(0, named=True)
        loss = 4 - 2 * at / steps
        assert row["evaluation_loss_against"] == pytest.approx(loss)
        assert row["evaluation_perplexity_against"] == pytest.approx(math.exp(loss))
        assert row["evaluation_loss_change_against"] == pytest.approx(loss - 4)
        assert row["evaluation_loss_control"] == 4.0
        assert row["verdict"] == "untrained"
    final = compare(measure(tables)).row(0, named=True)
    assert {name: row[name] for name in row if "evaluation" in name} == {
        name: final[name] for name in final if "evaluation" in name
    }


def test_arms_that_learned_unequally_are_judged_again_where_they_had_learned_as_much(
    tmp_path: Path,
) -> None:
    """A control that learned a quarter has a seventh of the slope; where the reference had learned
    that much, its own slope was a quarter, and more than half of that is left."""
    tables = evaluated_study(
        tmp_path, {"standard": 2.0, "equal_step": 3.5}, {"standard": 0.42, "equal_step": 0.06}
    )
    row = compare(measure(tables), paths=paths_of(tables, "procrustes")).row(0, named=True)
    assert row["verdict"] == "collapses"
    assert row["verdict_equal_loss"] == "persists"
    assert "persists at equal evaluation loss" in row["flags"]


def test_equal_loss_is_the_larger_of_the_two_final_ones() -> None:
    paths = {
        ("a", None): np.array([[0.0, 0.0, 4.0], [0.2, 0.1, 3.0], [0.4, 0.3, 2.0]]),
        ("b", None): np.array([[0.0, 0.0, 4.0], [0.3, 0.3, 2.5]]),
        ("never lower", None): np.array([[0.0, 0.0, 4.0], [0.3, 0.3, 4.0]]),
        ("not evaluated", None): np.array([[0.0, 0.0, np.nan], [0.3, 0.3, np.nan]]),
    }
    found = slopes_at_equal_loss(paths, ["a"], ["b"])
    assert found is not None
    assert [float(each[0]) for each in found.slopes] == [pytest.approx(0.2), pytest.approx(0.3)]
    assert found.shares == (pytest.approx(0.75), 1.0)
    for other in ("never lower", "not evaluated", "gone"):
        assert slopes_at_equal_loss(paths, ["a"], [other]) is None


def test_metrics_that_disagree_are_flagged(tmp_path: Path) -> None:
    store = Store.at(str(tmp_path / "store"))
    for seed in range(3):
        write_run(store, run_spec(seed=seed), line(0.3 + 0.01 * seed))
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
    assert row["flags"] == "metrics disagree"
    # What was not measured says nothing, and so contradicts nothing.
    found = {name: measure(tables, name) for name in ("procrustes", "mean_shift")}
    row = verdicts_by_metric(found).row(0, named=True)
    assert (row["verdict"], row["verdict_mean_shift"]) == ("persists", "insufficient")
    assert row["flags"] == ""


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
    assert row["flags"].startswith("no run of the reference has the same settings and seed")


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


def matched(store: Store, model: str, seeds: int, kept: float = 0.5, **options: Any) -> None:
    """Write runs of so many seeds under both controls, whose slopes hardly differ between seeds."""
    for seed in range(seeds):
        for control, share in (("standard", 1.0), ("equal_step", kept)):
            profile = line(0.3 * share + 0.002 * seed)
            write_run(store, run_spec(model, control=control, seed=seed), profile, **options)


def test_a_pair_counts_where_it_was_planned_on_both_sides(tmp_path: Path) -> None:
    """One of five pairs diverged: a fifth, however many seeds the control has beyond them."""
    store = Store.at(str(tmp_path / "store"))
    matched(store, "gpt2", 4)
    write_run(store, run_spec(seed=4), line(0.3), status="diverged", stop=10)
    for seed in range(4, 10):
        write_run(store, run_spec(control="equal_step", seed=seed), line(0.15))
    row = compare(measure(open_store(store.root))).row(0, named=True)
    assert (row["n"], row["planned"], row["pairs"], row["diverged"]) == (4, 10, 5, 1)
    assert row["verdict"] == "unstable"


def test_runs_that_have_the_rows_speak_for_those_that_do_not(tmp_path: Path) -> None:
    store = Store.at(str(tmp_path / "store"))
    for seed in range(3):
        for control, share in (("standard", 1.0), ("equal_step", 0.5)):
            slope = 0.3 * share + 0.002 * seed
            deleted = [line(slope + (0.9 if group == 3 else 0.0)) for group in range(16)]
            extra = {} if seed == 0 else {"deleted": deleted}
            write_run(store, run_spec(control=control, seed=seed), line(slope), **extra)
    tables = open_store(store.root)
    row = compare(measure(tables), paths=paths_of(tables, "procrustes")).row(0, named=True)
    assert row["rows"]
    assert row["verdict"] != "persists"
    assert row["verdict_equal_change"] != "persists"


def test_sides_cut_into_different_groups_have_no_rows_in_common(tmp_path: Path) -> None:
    store = Store.at(str(tmp_path / "store"))
    for seed in range(3):
        for control, groups in (("standard", 16), ("equal_step", 8)):
            slope = 0.3 + 0.002 * seed
            deleted = [line(slope + 0.01 * group) for group in range(groups)]
            write_run(store, run_spec(control=control, seed=seed), line(slope), deleted=deleted)
    assert not compare(measure(open_store(store.root)))["rows"][0]


def test_a_change_of_rounding_alone_is_no_slope(tmp_path: Path) -> None:
    store = Store.at(str(tmp_path / "store"))
    for seed in range(3):
        for control in ("standard", "equal_step"):
            profile = [1e-9 * d * (1 + 0.01 * seed) for d in line(0.3)]
            write_run(store, run_spec(control=control, seed=seed), profile)
    row = compare(measure(open_store(store.root))).row(0, named=True)
    assert (row["verdict"], row["flags"]) == ("no_reference", "under the numerical floor")


@pytest.mark.parametrize(("slope", "said"), [(-0.3, True), (0.0, True), (0.3, False)])
def test_a_standard_slope_that_is_not_positive_is_flagged(
    tmp_path: Path, slope: float, said: bool
) -> None:
    store = Store.at(str(tmp_path / "store"))
    for seed in range(3):
        write_run(store, run_spec(seed=seed), line(slope))
        write_run(store, run_spec(control="equal_step", seed=seed), line(0.2))
    row = compare(measure(open_store(store.root))).row(0, named=True)
    assert ("standard slope is not positive" in row["flags"]) is said


def test_without_a_dose_there_is_no_finding(tmp_path: Path) -> None:
    store = Store.at(str(tmp_path / "store"))
    matched(store, "gpt2", 3, ratios=[0.0] + [1e-3] * 7)
    row = compare(measure(open_store(store.root))).row(0, named=True)
    assert (row["dose"], row["verdict"]) == (None, "insufficient")
    assert "dose unknown" in row["flags"]
