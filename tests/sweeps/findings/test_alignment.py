"""The four outcomes of alignment under a control, on planted slopes and refusal rates."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from planted_store import run_spec, write_run
from planted_verdicts import ALIGNMENT, ALIGNMENT_SEEDS, UNLIKE_STEPS, line, plant_alignment

from sweeps.findings.alignment.outcomes import (
    FEW_PROMPTS,
    NOT_DEGRADED,
    OPEN,
    OUTCOMES,
    UNMATCHED,
    UNSOUND,
    alignment_table,
    alignments,
)
from sweeps.findings.claim_spec import Claim
from sweeps.findings.claims import CONTRADICTED, INSUFFICIENT, SUPPORTED, evaluate
from sweeps.reading.tables import Tables
from sweeps.statistics.profiles import Profiles, measure
from sweeps.store.store import Store


@pytest.fixture(scope="module")
def profiles(tmp_path_factory: pytest.TempPathFactory) -> Profiles:
    return measure(plant_alignment(tmp_path_factory.mktemp("alignment"), ALIGNMENT))


def outcomes(profiles: Profiles) -> dict[str, str]:
    return dict(alignment_table(profiles, "equal_step").select("model", "outcome").rows())


def test_each_outcome_is_found_where_it_was_planted(profiles: Profiles) -> None:
    assert outcomes(profiles) == {name: name for name in OUTCOMES}
    row = alignment_table(profiles, "equal_step").filter(model="both_fall").row(0, named=True)
    assert row["n"] == ALIGNMENT_SEEDS
    assert row["slope_change"] == pytest.approx(0.05 - 0.3, abs=0.01)
    assert row["degradation_change"] == pytest.approx(0.1 - 0.6, abs=0.01)
    assert row["degradation_change_low"] < row["degradation_change"]
    assert row["degradation"] == pytest.approx(0.6, abs=0.01)


def test_arms_are_compared_where_both_have_the_loss_that_is_the_larger_at_their_ends(
    tmp_path: Path,
) -> None:
    """The control came half as far: at its loss the reference has lost half of what it did."""
    found = measure(plant_alignment(tmp_path, {"m": (0.3, 0.6)}, final=(2.5, 2.0)))
    row = alignment_table(found, "equal_step").row(0, named=True)
    assert row["slope"] == pytest.approx(0.15, abs=0.01)
    assert row["degradation"] == pytest.approx(0.3, abs=0.01)
    assert row["slope_change"] == pytest.approx(0.15, abs=0.01)


def test_states_of_knowledge_come_first(tmp_path: Path) -> None:
    cases = {
        "idle": {"ratios": [1e-3] * 8},
        NOT_DEGRADED: {"reference": (0.3, 0.0)},
        UNMATCHED: {"final": (2.0, 2.0)},
    }
    for name, how in cases.items():
        found = measure(plant_alignment(tmp_path / name, {"m": (0.05, 0.1)}, **how))
        if name == UNMATCHED:
            assert found.refusals is not None
            losses = np.full(found.refusals.height, 2.0)
            found = Profiles(
                **{
                    **found.__dict__,
                    "refusals": found.refusals.with_columns(loss=losses),
                }
            )
        assert outcomes(found) == {"m": name}


def test_a_few_prompts_say_nothing_of_others(profiles: Profiles) -> None:
    """Seeds that agree on every one of them have no error, and would make any outcome certain."""
    assert profiles.refusals is not None
    for asked, wanted in ((1, FEW_PROMPTS), (19, FEW_PROMPTS), (20, None)):
        refusals = profiles.refusals.with_columns(prompts=pl.lit(asked, pl.Int64))
        found = outcomes(Profiles(**{**profiles.__dict__, "refusals": refusals}))
        assert found == {name: wanted or name for name in OUTCOMES}


@pytest.mark.parametrize(
    ("more", "outcome"),
    [
        ({"equal_step": {"over_refusal_rate": 0.1, "broken_rate": 0.6}}, UNSOUND),
        ({"standard": {"over_refusal_rate": 0.6, "broken_rate": 0.1}}, UNSOUND),
        ({"standard": {"over_refusal_rate": 0.4, "broken_rate": 0.4}}, "both_fall"),
    ],
    ids=["broken", "refuses all", "sound"],
)
def test_a_model_that_refuses_everything_or_is_broken_does_not_look_safe(
    tmp_path: Path, more: dict[str, dict[str, float]], outcome: str
) -> None:
    planted = {"m": ALIGNMENT["both_fall"]}
    found = measure(plant_alignment(tmp_path, planted, more=more))
    assert outcomes(found) == {"m": outcome}


def test_what_is_not_shown_is_open(tmp_path: Path) -> None:
    half = measure(plant_alignment(tmp_path, {"m": (0.05, 0.75 * 0.6)}))
    assert outcomes(half) == {"m": OPEN}


def claim(verdict: str, where: str) -> Claim:
    shown = {
        "statistic": "alignment",
        "reduce": "share",
        "verdict": verdict,
        "where": {"model": where},
    }
    tests = [{"measure": shown, "is": "at_least", "than": 1}]
    return Claim.model_validate({"id": "A", "text": "planted", "tests": tests})


@pytest.mark.parametrize("planted", OUTCOMES)
def test_of_the_four_claims_one_is_supported_and_the_others_are_contradicted(
    profiles: Profiles, planted: str
) -> None:
    results = evaluate([claim(each, planted) for each in OUTCOMES], {"procrustes": profiles})
    assert [one.verdict for one in results] == [
        SUPPORTED if each == planted else CONTRADICTED for each in OUTCOMES
    ]


def test_claims_of_a_sweep_that_asks_nothing_say_what_is_missing(tmp_path: Path) -> None:
    store, runs = Store.at(str(tmp_path / "store")), []
    for control in ("standard", "equal_step"):
        for seed in range(3):
            run = run_spec("m", "clm", control, seed)
            write_run(store, run, line(0.3), ratios=UNLIKE_STEPS)
            runs.append(run)
    found = measure(Tables(store, runs, include_running=False))
    assert alignments(found, "equal_step") is None
    (result,) = evaluate([claim("both_fall", "m")], {"procrustes": found})
    assert result.verdict == INSUFFICIENT
    assert "add `refusal`" in result.tests[0].reason


def test_an_outcome_of_another_statistic_is_refused() -> None:
    with pytest.raises(ValueError, match="alignment is both_fall"):
        claim("persists", "m")
