"""Claims on studies whose truth is known: how often noise supports or contradicts them.

The studies are simulated as their slopes, by the design of the 240 runs with more seeds where they
compare a control; the real engine judges them. ``make bench`` runs more of them.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from simulated_study import FLAT, PUBLISHED, simulate

from sweeps.findings.claim_spec import Measure
from sweeps.findings.claims import CONTRADICTED, SUPPORTED, evaluate, read_claims
from sweeps.findings.evidence import Evidence, holm

LIBRARY = Path(__file__).parents[3] / "sweeps" / "library"
CLAIMS = read_claims(LIBRARY / "paper.claims.yaml").claims
ABOUT_CONTROL = [claim for claim in CLAIMS if claim.id in ("C3", "C4", "C5")]
TIMES = 200


def verdicts(truth, *, cv: float, seeds: int, claims=ABOUT_CONTROL, times: int = TIMES):
    """Return, by claim, the verdicts of so many simulated studies."""
    found = {claim.id: [] for claim in claims}
    for k in range(times):
        profiles = simulate(truth, cv=cv, seeds=seeds, seed=k)
        for result in evaluate(claims, {"procrustes": profiles}):
            found[result.claim.id].append(result.verdict)
    return found


@pytest.mark.slow
@pytest.mark.parametrize(("cv", "seeds"), [(0.1, 3), (0.3, 5)])
def test_where_no_slope_is_there_no_claim_is_supported(cv, seeds):
    """Also C2, which asks no control: half of all slopes are then above 0."""
    about = [claim for claim in CLAIMS if claim.id != "C6"]
    found = verdicts(FLAT, cv=cv, seeds=seeds, claims=about)
    assert {name: each.count(SUPPORTED) for name, each in found.items()} == dict.fromkeys(found, 0)


@pytest.mark.slow
def test_the_papers_pattern_contradicts_no_claim_of_the_paper():
    found = verdicts(PUBLISHED, cv=0.1, seeds=5)
    assert {name: each.count(CONTRADICTED) for name, each in found.items()} == dict.fromkeys(
        found, 0
    )
    assert found["C3"].count(SUPPORTED) >= 0.8 * TIMES
    assert found["C5"].count(SUPPORTED) >= 0.9 * TIMES


@pytest.mark.slow
def test_with_noisy_seeds_the_papers_pattern_is_open_rather_than_contradicted():
    found = verdicts(PUBLISHED, cv=0.3, seeds=3)
    for name, each in found.items():
        assert each.count(CONTRADICTED) <= 0.05 * TIMES, name


@pytest.mark.slow
def test_where_all_keep_half_that_some_collapse_is_not_supported():
    found = verdicts(lambda *_: 0.5, cv=0.3, seeds=5)
    assert found["C3"].count(SUPPORTED) <= 0.05 * TIMES


@pytest.mark.parametrize("paired", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_a_gap_that_is_not_there_is_found_as_rarely_as_it_says(paired):
    """Two groups within models, and two groups of models."""
    by, groups = ("objective", ["clm", "contrastive"]) if paired else ("block", ["a", "b"])
    measure = Measure.model_validate(
        {
            "statistic": "slope",
            "reduce": "gap",
            "by": by,
            "groups": groups,
            "where": {"control": "standard"},
        }
    )
    beyond = 0
    for k in range(300):
        profiles = simulate(FLAT, cv=0.3, seeds=2, seed=k, model_spread=0.5, small=True)
        found = Evidence(profiles).estimate(measure, "equal_step")
        assert found.n == 8
        beyond += found.low > 0 or found.high < 0
    assert beyond / 300 <= 0.06


def test_holm_rejects_in_order_and_stops():
    assert holm([]) == 0
    assert holm([0.3, 1.2, 0.2]) == 2
    assert holm([0.6, 1.2, 0.2]) == 1
    assert holm([0.34, 0.34, 0.34]) == 0
    assert holm([0.99]) == 1


def test_one_of_many_conditions_by_chance_supports_nothing():
    """Holm: of 18 conditions at their boundary, one or more often shows something by itself."""
    generator = np.random.default_rng(0)
    several = [holm(list(generator.uniform(size=18) / 0.025)) for _ in range(4_000)]
    assert np.mean([count > 0 for count in several]) <= 0.03
