"""Planted truths and contradictions: every claim of the study gets the verdict it deserves."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from planted_measurements import record_distance
from planted_paper import plant_paper
from planted_store import run_spec, save_sweep, write_run

from sweeps.declaration.expand import read_sweep
from sweeps.errors import UserError
from sweeps.findings.claim_spec import Test as Comparison
from sweeps.findings.claims import (
    CONTRADICTED,
    INSUFFICIENT,
    SUPPORTED,
    ClaimResult,
    evaluate,
    read_claims,
)
from sweeps.reading.tables import open_store
from sweeps.report.claims_text import claims_text, numbers
from sweeps.statistics.profiles import Profiles, measure, measure_each
from sweeps.store.store import Store
from sweeps.store.sweep_records import find_claims

LIBRARY = Path(__file__).parents[3] / "sweeps" / "library" / "paper.claims.yaml"
# model: block type, family, parameters, L
MODELS = {
    "bert": ("sequential", "bert", 110_000_000, 12),
    "gpt2": ("sequential", "gpt2", 124_000_000, 8),
    "pythia": ("parallel", "gpt_neox", 162_000_000, 16),
    "codegen": ("parallel", "codegen", 350_000_000, 20),
    "opt-1.3b": ("sequential", "opt", 1_300_000_000, 24),
    "pythia-1.4b": ("parallel", "gpt_neox", 1_400_000_000, 24),
}
# Under standard training only: associations need ten models.
STANDARD_ONLY = {
    "bert-large": ("sequential", "bert", 335_000_000, 12),
    "gpt2-medium": ("sequential", "gpt2", 355_000_000, 8),
    "pythia-410m": ("parallel", "gpt_neox", 405_000_000, 16),
    "codegen-b": ("parallel", "codegen", 360_000_000, 20),
    "mamba": ("mixer", "mamba", 129_000_000, 4),
    "mamba-b": ("mixer", "mamba", 370_000_000, 4),
}
DISTANCE = {"clm": 0.2, "classification": 0.5, "contrastive": 0.9}
BRIEF = {"steps": 2, "probe_every": 2, "part_steps": 2}
Keeps = Callable[[str, str], float]
Planted = tuple[Path, dict[str, Profiles]]


def as_published(block: str, objective: str) -> float:
    """Slope under equal_step: parallel blocks keep it for clm alone."""
    return 0.2 if block == "sequential" or objective == "clm" else 0.0


def plant(
    root: Path,
    keeps: Keeps = as_published,
    *,
    seeds: int = 3,
    standard: Callable[[str, str], float] = lambda _model, objective: (
        0.2 + 0.3 * DISTANCE[objective]
    ),
    falling: int = 0,
    by_objective: bool = False,
    straight: bool = False,
) -> dict[str, Profiles]:
    """Write a study; the profile's width is the family's, or the objective's."""
    store = Store.at(str(root / "store"))
    for model, (block, family, parameters, layers) in {**MODELS, **STANDARD_ONLY}.items():
        facts = {"block": block, "family": family, "parameters": parameters, "layers": layers}
        for objective in DISTANCE if parameters < 1e9 else ("clm",):
            for seed in range(seeds):
                run = run_spec(model, objective, "standard", seed, **BRIEF)
                slope = standard(model, objective)
                if falling and seed < falling and model == "bert":
                    slope = -slope
                sharp = DISTANCE[objective] if by_objective else layers / 24
                sharp = 0.0 if straight else sharp
                write_run(store, run, _shaped(slope, sharp, 0.01 * seed, layers), facts=facts)
                record_distance(store, run, [1 - DISTANCE[objective]])
                if model in STANDARD_ONLY:
                    continue
                kept = keeps(block, objective)
                noise = 0.01 * (seed - (seeds - 1) / 2)
                profile = _line(kept + noise)
                write_run(
                    store,
                    run_spec(model, objective, "equal_step", seed, **BRIEF),
                    profile,
                    facts=facts,
                )
    tables = open_store(store.root)
    return {name: measure(tables, name) for name in ("procrustes", "cka_distance")}


def _line(slope: float) -> Callable[[float], float]:
    return lambda x: 0.3 + 0.5 * slope * x


def _shaped(slope: float, sharp: float, noise: float, layers: int) -> list[float]:
    """A line, with blocks alternating about it by ``sharp``, which narrows the profile."""
    return [
        0.5 + 0.5 * (slope + noise) * (i / layers - 0.5) + 0.3 * sharp * (-1) ** i
        for i in range(1, layers + 1)
    ]


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Planted:
    """A study with the published pattern: its folder, not to be written to, and its profiles."""
    folder = tmp_path_factory.mktemp("published")
    return folder, plant(folder)


@pytest.fixture(scope="module")
def with_one_that_falls(tmp_path_factory: pytest.TempPathFactory) -> dict[str, ClaimResult]:
    """What is claimed of a study with one seed whose profiles fall."""
    return judged(plant(tmp_path_factory.mktemp("falling"), falling=1))


@pytest.fixture(scope="module")
def paper(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Profiles]:
    """Profiles of every run of the paper's sweep."""
    store = plant_paper(tmp_path_factory.mktemp("paper") / "store", steps=8, part_steps=8)
    return measure_each(open_store(store.root, sweep="paper"), ["procrustes"])


def judged(by_metric: dict[str, Profiles]) -> dict[str, ClaimResult]:
    return {r.claim.id: r for r in evaluate(read_claims(LIBRARY).claims, by_metric)}


def test_the_published_pattern_supports_every_claim(published: Planted) -> None:
    results = judged(published[1])
    assert {name: result.verdict for name, result in results.items()} == dict.fromkeys(
        ("C2", "C3", "C4", "C5", "C6"), SUPPORTED
    )
    correlation, width = results["C6"].tests
    assert correlation.estimate.value > 0.9
    # The two mid-sized models have one objective: nothing to compare within them.
    assert (correlation.estimate.n, correlation.estimate.of) == (10, 12)
    for test in (correlation, width):
        assert (test.estimate.p_value or 1.0) < 0.05


def test_profiles_that_fall_contradict_c2(with_one_that_falls: dict[str, ClaimResult]) -> None:
    assert with_one_that_falls["C2"].verdict == CONTRADICTED
    assert with_one_that_falls["C2"].tests[0].estimate.value == pytest.approx(1 - 3 / 96)


def test_collapse_everywhere_contradicts_what_persistence_claims(tmp_path: Path) -> None:
    results = judged(plant(tmp_path, keeps=lambda _block, _objective: 0.0))
    assert [results[name].verdict for name in ("C3", "C4", "C5")] == [CONTRADICTED] * 3


@pytest.mark.slow
def test_persistence_everywhere_contradicts_c3_and_c4(tmp_path: Path) -> None:
    results = judged(plant(tmp_path, keeps=lambda _block, _objective: 0.2))
    assert [results[name].verdict for name in ("C3", "C4")] == [CONTRADICTED] * 2
    assert results["C5"].verdict == SUPPORTED


def test_steepness_against_the_distance_contradicts_c6(tmp_path: Path) -> None:
    results = judged(
        plant(tmp_path, standard=lambda _model, objective: 0.6 - 0.5 * DISTANCE[objective])
    )
    assert results["C6"].verdict == CONTRADICTED
    assert results["C6"].tests[0].estimate.high < 0


@pytest.mark.slow
def test_width_of_the_objective_contradicts_c6(tmp_path: Path) -> None:
    """Asked alone: beside steepness, with which it goes here, it would stay open."""
    by_metric = plant(tmp_path, by_objective=True)
    (claim,) = [claim for claim in read_claims(LIBRARY).claims if claim.id == "C6"]
    alone = claim.model_copy(update={"tests": claim.tests[1:]})
    assert evaluate([alone], by_metric)[0].verdict == CONTRADICTED


def test_one_seed_is_insufficient_for_every_claim_about_conditions(tmp_path: Path) -> None:
    """C6 is about models, of which there are enough."""
    results = judged(plant(tmp_path, seeds=1))
    assert {results[name].verdict for name in ("C2", "C3", "C4", "C5")} == {INSUFFICIENT}


def test_runs_still_open_leave_a_claim_open_until_they_cannot_save_it(tmp_path: Path) -> None:
    store = Store.at(str(tmp_path / "store"))
    for seed in range(3):
        write_run(store, run_spec(seed=seed), _line(0.3))
    write_run(store, run_spec(seed=3), _line(0.3), status=None, stop=10)
    [open_claim] = _c2(store)
    assert open_claim.verdict == INSUFFICIENT
    assert open_claim.tests[0].reason == "1 run still open could decide it"
    write_run(store, run_spec(seed=4), _line(-0.3))
    [lost] = _c2(store)
    assert lost.verdict == CONTRADICTED


def _c2(store: Store) -> list[ClaimResult]:
    claims = [claim for claim in read_claims(LIBRARY).claims if claim.id == "C2"]
    return evaluate(claims, {"procrustes": measure(open_store(store.root))})


def test_metrics_that_disagree_are_flagged(tmp_path: Path) -> None:
    store = Store.at(str(tmp_path / "store"))
    for seed in range(3):
        falling = {"cka_distance": [0.4, 0.3, 0.2], "cka_distance_debiased": [0.1, 0.2, 0.3]}
        write_run(store, run_spec(seed=seed), [0.1, 0.2, 0.3], metrics=falling)
    claims = [claim for claim in read_claims(LIBRARY).claims if claim.id == "C2"]
    tables = open_store(store.root)
    metrics = ("procrustes", "cka_distance", "cka_distance_debiased")
    [result] = evaluate(claims, {name: measure(tables, name) for name in metrics})
    assert list(result.by_metric.values()) == [SUPPORTED, CONTRADICTED, SUPPORTED]
    assert "metrics disagree" in result.flags


def test_a_user_adds_a_claim_without_code(published: Planted, tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(
        "claims:\n"
        "  - id: mine\n"
        "    text: Contrastive training is steeper than causal language modelling.\n"
        "    tests:\n"
        "      - measure: {statistic: slope, reduce: mean,"
        " where: {control: standard, objective: contrastive}}\n"
        "        is: above\n"
        "        than: {statistic: slope, reduce: mean,"
        " where: {control: standard, objective: clm}}\n"
        "      - measure: {statistic: slope, where: {control: standard}, reduce: gap,"
        " by: objective, groups: [contrastive, clm]}\n"
        "        is: above\n"
        "        than: 0.05\n"
        "      - measure: {statistic: slope, where: {control: standard}, reduce: min}\n"
        "        is: above\n"
        "        than: 0\n"
    )
    [result] = evaluate(read_claims(file).claims, published[1])
    assert result.verdict == SUPPORTED
    page = claims_text("toy", "", [result])
    assert max(map(len, page.splitlines())) <= 80
    assert "✓ mine SUPPORTED" in page


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{statistic: slop, reduce: mean}", "did you mean 'slope'"),
        ("{statistic: slope, reduce: share}", "needs one of above, below, verdict"),
        ("{statistic: slope, reduce: mean, above: 0}", "do nothing with reduce: mean"),
        ("{statistic: slope, reduce: mean, where: {colour: red}}", "no column 'colour'"),
        ("{statistic: width, reduce: gap}", "by goes with reduce: gap"),
        ("{statistic: slope, reduce: gap, by: block}", "groups: .A, B. goes with reduce: gap"),
        ("{statistic: slope, reduce: gap, by: block, groups: [a]}", "at least 2"),
        ("{statistic: persistence, reduce: share, verdict: idle}", "persists"),
        (
            "{statistic: slope, reduce: share, verdict: persists}",
            "or alignment goes",
        ),
    ],
)
def test_a_wrong_claim_is_named_with_its_line(tmp_path: Path, line: str, message: str) -> None:
    file = tmp_path / "claims.yaml"
    file.write_text(
        f"claims:\n  - id: a\n    text: b\n    tests:\n      - measure: {line}\n"
        "        is: above\n        than: 0\n"
    )
    with pytest.raises(UserError, match=message) as error:
        read_claims(file)
    assert f"{file}:5" in str(error.value)


@pytest.mark.parametrize("where", ["{parameters: abc}", "{model: {at_least: 3}}"])
def test_a_selection_of_the_wrong_type_is_a_users_mistake(tmp_path: Path, where: str) -> None:
    store = Store.at(str(tmp_path / "store"))
    write_run(store, run_spec(), [0.1, 0.2])
    file = tmp_path / "claims.yaml"
    file.write_text(
        f"claims:\n  - id: a\n    text: b\n    tests:\n      - measure: {{statistic: slope,"
        f" where: {where}, reduce: mean}}\n        is: above\n        than: 0\n"
    )
    with pytest.raises(UserError, match="claims: where"):
        evaluate(read_claims(file).claims, {"procrustes": measure(open_store(store.root))})


def test_the_claims_kept_with_a_sweep_are_found_and_others_where_given(tmp_path: Path) -> None:
    store = Store.at(str(tmp_path / "store"))
    sweep = save_sweep(store, "study", [run_spec()])
    assert find_claims(store, "study") is None
    store.save_sweep(replace(sweep, claims="claims: []"))
    found = find_claims(store, "study")
    assert found is not None
    assert found.read_text() == "claims: []"
    assert find_claims(store, "study", "given.yaml") == Path("given.yaml")


def library(*, of_alignment: bool) -> list[Path]:
    paths = sorted(LIBRARY.parent.glob("*claims.yaml"))
    return [path for path in paths if path.name.startswith("safety") == of_alignment]


@pytest.mark.parametrize("path", library(of_alignment=True), ids=lambda p: p.name)
def test_claims_on_alignment_say_what_a_sweep_without_prompts_lacks(
    path: Path, paper: dict[str, Profiles]
) -> None:
    claims = [
        claim.model_copy(update={"tests": [_of_everything(test) for test in claim.tests]})
        for claim in read_claims(path).claims
    ]
    results = evaluate(claims, paper)
    assert [one.claim.id for one in results] == ["S1", "S2", "S3", "S4"]
    assert {one.verdict for one in results} == {INSUFFICIENT}
    assert all("add `refusal`" in one.tests[0].reason for one in results)


def _of_everything(test: Comparison) -> Comparison:
    return test.model_copy(update={"measure": test.measure.model_copy(update={"where": {}})})


@pytest.mark.parametrize("path", library(of_alignment=False), ids=lambda p: p.name)
def test_the_library_holds_the_study_on_any_sweep(path: Path, paper: dict[str, Profiles]) -> None:
    claims = read_claims(path).claims
    verdicts = {result.claim.id: result.verdict for result in evaluate(claims, paper)}
    # Two seeds of the mid-sized models decide nothing; no run has the miniature's second arm.
    open_ones = {"C3", "C4", "C5"} if path.name.startswith("replica-verdicts") else {"C5"}
    assert verdicts == {
        name: INSUFFICIENT if name in open_ones else SUPPORTED
        for name in ("C2", "C3", "C4", "C5", "C6")
        if name in verdicts
    }
    assert set(verdicts) >= {"C3", "C4", "C5"}


def test_what_lacks_is_what_is_named(tmp_path: Path) -> None:
    store = Store.at(str(tmp_path / "store"))
    for seed in range(3):
        write_run(store, run_spec("gpt2", "clm", seed=seed, **BRIEF), _line(0.3))
        write_run(store, run_spec("gpt2", "contrastive", seed=seed, **BRIEF), _line(0.3))
    profiles = {"procrustes": measure(open_store(store.root))}
    correlation = judged(profiles)["C6"].tests[0].estimate
    assert correlation.blocked == (
        "no condition has objective_distance; `depthsweep distance` measures it"
    )
    assert correlation.notes == ("2 without objective_distance",)
    record_distance(store, run_spec("gpt2", "clm", **BRIEF), [0.5])
    profiles = {"procrustes": measure(open_store(store.root))}
    correlation = judged(profiles)["C6"].tests[0].estimate
    assert correlation.blocked == "1 model has objective_distance: intervals need 10"
    assert correlation.notes == ("1 without objective_distance",)


def test_no_claim_rests_on_a_noisy_distance(published: Planted, tmp_path: Path) -> None:
    shutil.copytree(published[0], tmp_path, dirs_exist_ok=True)
    store = Store.at(str(tmp_path / "store"))
    for model in MODELS:
        record_distance(store, run_spec(model, "clm", **BRIEF), [0.9], noisy=True)
    found = measure(open_store(store.root), "procrustes")
    test = judged({"procrustes": found})["C6"].tests[0]
    assert "6 with a noisy objective_distance: left out" in test.estimate.notes
    sure = judged(published[1])["C6"].tests[0]
    assert "noisy" not in " ".join(sure.estimate.notes)


def test_width_is_not_set_against_steepness_where_they_are_one_number(tmp_path: Path) -> None:
    """A straight profile's width is a function of its steepness: both cannot go with two causes."""
    by_metric = plant(tmp_path, straight=True)
    width = judged(by_metric)["C6"].tests[1]
    assert width.verdict == INSUFFICIENT
    assert width.reason.startswith("width and steepness are one number here (rank correlation -")


def test_the_sweeps_of_the_library_bring_the_claims_that_are_about_them(tmp_path: Path) -> None:
    store = Store.at(str(tmp_path / "store"))
    brought = {}
    for name in ("paper", "paper-verdicts", "replica", "replica-verdicts", "demo"):
        store.save_sweep(replace(read_sweep(LIBRARY.with_name(f"{name}.yaml")), name=name))
        found = find_claims(store, name)
        brought[name] = None if found is None else len(read_claims(found).claims)
    assert brought == {
        "paper": 5,
        "paper-verdicts": 3,
        "replica": 5,
        "replica-verdicts": 5,
        "demo": None,
    }


def test_a_share_says_how_many_of_how_many(with_one_that_falls: dict[str, ClaimResult]) -> None:
    (test,) = with_one_that_falls["C2"].tests
    counted = numbers(test.estimate)
    runs = test.estimate.n
    assert test.estimate.counted is not None
    hits = test.estimate.counted.hits_each
    assert counted.endswith(f"({hits} of {runs} runs)")
    assert hits == round(test.estimate.value * runs) < runs
