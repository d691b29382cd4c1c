"""Claims on studies that are not balanced: like is compared with like, or nothing is said."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from planted_store import run_spec, save_sweep, write_run
from simulated_study import simulate

from sweeps.errors import UserError
from sweeps.findings.claim_spec import Claim
from sweeps.findings.claims import (
    CONTRADICTED,
    INSUFFICIENT,
    SUPPORTED,
    TestResult,
    evaluate,
    read_claims,
)
from sweeps.reading.tables import open_store
from sweeps.statistics import associations
from sweeps.statistics.profiles import Profiles, measure
from sweeps.store.store import Store


def ask(profiles: Profiles, measure: dict, relation: str, than: object) -> TestResult:
    claim = Claim.model_validate(
        {
            "id": "a",
            "text": "a",
            "tests": [{"measure": measure, "is": relation, "than": than}],
        }
    )
    return evaluate([claim], {"procrustes": profiles})[0].tests[0]


def frame(rows: list[dict]) -> Profiles:
    """Return profiles of these runs, of which all other columns are alike."""
    empty = simulate(None, cv=0.1, seeds=1, seed=0)
    one = empty.runs.head(1)
    names = list(rows[0])
    rest = one.drop(*names, "run_id").select(pl.all().repeat_by(len(rows)).explode())
    runs = pl.concat([pl.DataFrame(rows), rest], how="horizontal").with_columns(
        run_id=pl.Series([f"{k:012x}" for k in range(len(rows))])
    )
    return replace(empty, runs=runs.select(pl.col(n).cast(t) for n, t in one.schema.items()))


def unbalanced(effect: float) -> Profiles:
    """Twelve models: three objectives under standard, the first of them under equal steps too."""
    generator = np.random.default_rng(0)
    rows = []
    for model in range(12):
        for number, objective in enumerate(("clm", "classification", "contrastive")):
            for control in ("standard", "equal_step") if number == 0 else ("standard",):
                for seed in range(3):
                    slope = 0.5 - 0.2 * number + 0.01 * generator.standard_normal()
                    slope += effect * (control == "equal_step")
                    rows.append(
                        {
                            "model": f"m{model}",
                            "family": f"f{model // 2}",
                            "objective": objective,
                            "control": control,
                            "seed": seed,
                            "slope": slope,
                            "mean": 0.3,
                            "dose": 1.0 + model + (2.0 * number if seed else 40.0 - 5 * number),
                        }
                    )
    return frame(rows)


GAP = {
    "statistic": "slope",
    "reduce": "gap",
    "by": "control",
    "groups": ["equal_step", "standard"],
}


def test_a_gap_is_taken_over_conditions_that_differ_in_it_alone():
    """Objectives that only one control was run with make no difference between controls."""
    nothing = ask(unbalanced(0.0), GAP, "above", 0.05)
    assert nothing.verdict == CONTRADICTED
    assert nothing.estimate.value == pytest.approx(0, abs=0.02)
    assert "12 conditions" not in nothing.estimate.notes
    found = ask(unbalanced(0.1), GAP, "above", 0.05)
    assert (found.verdict, found.estimate.n) == (SUPPORTED, 12)


def test_two_means_are_compared_over_such_pairs_too():
    def mean(control: str) -> dict:
        return {"statistic": "slope", "reduce": "mean", "where": {"control": control}}

    found = ask(unbalanced(0.1), mean("equal_step"), "above", mean("standard"))
    assert found.verdict == SUPPORTED
    lower = ask(unbalanced(0.0), mean("standard"), "below", mean("equal_step"))
    assert lower.verdict == INSUFFICIENT


def test_the_share_of_a_control_that_does_nothing_is_not_that_of_its_objective():
    share = {"statistic": "slope", "reduce": "variance_explained", "by": "control"}
    found = ask(unbalanced(0.0), share, "above", 0)
    assert found.estimate.value < 0.01
    assert found.estimate.notes[-1] == "control given model, objective"


def test_noise_neither_supports_nor_contradicts_shares(monkeypatch):
    monkeypatch.setattr(associations, "RESAMPLES", 199)
    share = {"statistic": "slope", "reduce": "variance_explained"}
    family, objective = {**share, "by": "family"}, {**share, "by": "objective"}
    wrong = {"small": 0, "family": 0, "objective": 0}
    for seed in range(40):
        generator = np.random.default_rng(seed)
        rows = [
            {
                "model": f"m{m}",
                "family": f"f{m // 2}",
                "objective": o,
                "control": "standard",
                "seed": 0,
                "slope": generator.standard_normal(),
                "mean": 0.3,
            }
            for m in range(12)
            for o in ("a", "b", "c")
        ]
        noise = frame(rows)
        wrong["small"] += ask(noise, family, "below", 0.05).verdict == CONTRADICTED
        wrong["family"] += ask(noise, family, "above", objective).verdict == SUPPORTED
        wrong["objective"] += ask(noise, objective, "above", family).verdict != INSUFFICIENT
    assert max(wrong.values()) <= 4


def test_what_differs_between_seeds_is_averaged_and_not_that_of_the_first():
    """The dose of seed 0 falls with the objective's number, as the slope does; its mean rises."""
    by_dose = {
        "statistic": "slope",
        "reduce": "spearman",
        "with": "dose",
        "where": {"control": "standard"},
    }
    assert ask(unbalanced(0.0), by_dose, "above", 0).estimate.value > 0
    means = (
        unbalanced(0.0)
        .runs.filter(control="standard")
        .group_by("model", "objective")
        .agg(pl.col("dose").mean())
    )
    assert means.filter(model="m0").sort("dose")["objective"].to_list()[-1] == "clm"


def test_seeds_of_a_condition_are_no_groups():
    gap = {"statistic": "slope", "reduce": "gap", "by": "seed", "groups": [0, 1]}
    assert ask(unbalanced(0), gap, "above", 0).reason == (
        "seed differs between the seeds of a condition"
    )


def test_each_model_a_value_of_its_own_explains_nothing():
    share = {"statistic": "slope", "reduce": "variance_explained", "by": "model"}
    found = ask(unbalanced(0.0), share, "above", 0)
    assert found.reason == "every model has a model of its own"


def test_models_of_two_groups_are_compared_where_all_of_them_were_run():
    """One group was also run with an objective that makes steeper profiles."""
    rows = [
        {
            "model": f"m{m}",
            "block": "ab"[m % 2],
            "objective": o,
            "control": "standard",
            "seed": s,
            "slope": 0.2 + 0.5 * (o == "extra") + 0.01 * ((7 * m + s) % 5),
            "mean": 0.3,
        }
        for m in range(8)
        for o in (("clm", "extra") if m % 2 else ("clm",))
        for s in range(3)
    ]
    gap = {"statistic": "slope", "reduce": "gap", "by": "block", "groups": ["b", "a"]}
    found = ask(frame(rows), gap, "above", 0.1)
    assert found.verdict == CONTRADICTED
    assert found.estimate.n == 8


def test_a_correlation_with_text_is_refused_with_its_line(tmp_path: Path):
    file = tmp_path / "claims.yaml"
    file.write_text(
        "claims:\n  - id: a\n    text: b\n    tests:\n"
        "      - measure: {statistic: slope, reduce: spearman, with: family}\n"
        "        is: above\n        than: 0\n"
    )
    with pytest.raises(UserError, match=r"claims.yaml:5: .*family is text"):
        read_claims(file)


def test_a_noisy_distance_selects_nothing_either():
    rows = [
        {
            "model": f"m{m}",
            "objective": "clm",
            "control": "standard",
            "seed": s,
            "slope": 0.2,
            "mean": 0.3,
            "objective_distance": 0.5,
            "objective_distance_noisy": m > 2,
            "objective_distance_common": 0.5,
            "objective_distance_common_noisy": m > 1,
        }
        for m in range(12)
        for s in range(3)
    ]
    where = {"objective_distance": {"at_least": 0}}
    share = {"statistic": "slope", "reduce": "share", "above": 0, "where": where}
    assert ask(frame(rows), share, "above", 0.5).estimate.of == 9
    common = {"statistic": "slope", "reduce": "spearman", "with": "objective_distance_common"}
    found = ask(frame(rows), common, "above", 0)
    assert "10 with a noisy objective_distance_common: left out" in found.estimate.notes


def test_the_smallest_of_conditions_has_the_error_of_the_rows(tmp_path: Path):
    """And its ends are numbers or null in JSON, also where a condition has two seeds."""
    store = Store.at(str(tmp_path / "store"))
    runs = []
    for model, seeds in (("gpt2", 3), ("opt", 2)):
        for seed in range(seeds):
            run = run_spec(model, seed=seed)
            deleted = [[0.3 + (0.2 + 2 * (g == 3)) * i / 8 for i in range(1, 9)] for g in range(16)]
            profile = [0.3 + (0.2 + 0.001 * seed) * i / 8 for i in range(1, 9)]
            write_run(store, run, profile, deleted=deleted)
            runs.append(run)
    save_sweep(store, "toy", runs)
    file = tmp_path / "claims.yaml"
    line = "      - measure: {statistic: slope, reduce: min, where: {model: MODEL}}\n"
    claims = "".join(
        f"  - id: {model}\n    text: b\n    tests:\n{line.replace('MODEL', model)}"
        "        is: above\n        than: 0\n"
        for model in ("gpt2", "opt")
    )
    file.write_text(f"claims:\n{claims}")
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "orchestrator",
            "claims",
            "toy",
            "--store",
            str(store.root),
            "--claims",
            str(file),
            "--json",
        ],
        capture_output=True,
        text=True,
        check=True,
    )

    def refuse(text: str) -> None:
        raise AssertionError(f"{text} is no JSON")

    page = json.loads(done.stdout, parse_constant=refuse)
    assert (page["metric"], page["at"]) == ("procrustes", "final")
    (three,), (two,) = (claim["tests"] for claim in page["claims"])
    assert three["verdict"] == two["verdict"] == INSUFFICIENT
    assert three["low"] < 0 < three["value"]
    assert two["low"] is None


def test_a_condition_that_has_not_run_yet_may_hold_the_extreme():
    study = unbalanced(0.0)
    gone = pl.col("objective") == "contrastive"
    left = study.runs.filter(gone).select(study.left_out.columns[:-1])
    half = replace(
        study,
        runs=study.runs.filter(~gone),
        left_out=left.with_columns(reason=pl.lit("pending"), status=pl.lit("pending")),
    )
    least = {"statistic": "slope", "reduce": "min"}
    assert ask(half, least, "above", 0).verdict == INSUFFICIENT
    assert ask(study, least, "above", 0).verdict == SUPPORTED


def test_means_are_paired_where_both_select_the_same():
    """Of one objective the control was not run: it is compared with no other one."""

    def mean(control: str) -> dict:
        both = ["clm", "classification"]
        where = {"control": control, "objective": both}
        return {"statistic": "slope", "reduce": "mean", "where": where}

    found = ask(unbalanced(0.0), mean("standard"), "below", mean("equal_step"))
    assert found.verdict == INSUFFICIENT


def test_groups_of_numbers_are_numbers():
    rows = [
        {
            "model": f"m{m}",
            "objective": "clm",
            "control": "standard",
            "seed": s,
            "mean": 0.3,
            "learning_rate": rate,
            "slope": 0.2 + 0.1 * (rate > 1e-4) + 0.01 * ((3 * m + s) % 4),
        }
        for m in range(5)
        for rate in (1e-3, 1e-5)
        for s in range(3)
    ]
    gap = {"statistic": "slope", "reduce": "gap", "by": "learning_rate", "groups": [0.001, 1e-5]}
    assert ask(frame(rows), gap, "above", 0.05).verdict == SUPPORTED
    texts = {**gap, "groups": ["high", "low"]}
    assert ask(frame(rows), texts, "above", 0).reason == "no condition has learning_rate high"


def test_what_is_not_defined_is_called_so():
    steep = {"statistic": "steepness", "reduce": "mean", "where": {"control": "equal_step"}}
    assert ask(unbalanced(0.0), steep, "above", 0).reason.startswith(
        "steepness is that of standard"
    )


def test_the_option_of_a_control_selects_among_its_own_runs(tmp_path: Path):
    store = Store.at(str(tmp_path / "store"))
    for seed in range(3):
        for control, kept in (("standard", 1.0), ("layer_clip", 0.8)):
            profile = [0.3 + (0.3 * kept + 0.002 * seed) * i / 8 for i in range(1, 9)]
            write_run(store, run_spec(control=control, seed=seed), profile)
    claim = Claim.model_validate(
        {
            "id": "a",
            "text": "a",
            "control": "layer_clip",
            "tests": [
                {
                    "measure": {
                        "statistic": "persistence",
                        "where": {"max_norm": 0.1},
                        "reduce": "share",
                        "verdict": "persists",
                    },
                    "is": "at_least",
                    "than": 1,
                }
            ],
        }
    )
    profiles = {"procrustes": measure(open_store(store.root))}
    assert evaluate([claim], profiles)[0].verdict == SUPPORTED
