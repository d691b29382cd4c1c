"""Claims against evidence: supported, contradicted, or not enough data to say.

A comparison holds when it holds at both ends of its estimate, fails when it fails at both, and is
open otherwise. So a half-finished sweep is never taken for proof, and what was not shown is never
taken for the opposite: a condition counts against a claim only where it shows another finding.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from sweeps.declaration.yaml_source import YamlSource
from sweeps.findings.claim_spec import ALIGNMENT, Claim, ClaimsFile, Measure, Range, Test
from sweeps.findings.estimate import Counted, Estimate
from sweeps.findings.evidence import Evidence
from sweeps.statistics.profiles import Profiles

SUPPORTED, CONTRADICTED, INSUFFICIENT = "supported", "contradicted", "insufficient data"
SIGNIFICANT = 0.05
# Width is a function of steepness where a profile is near to a line, so no claim sets one against
# the other while they are one number.
ONE_NUMBER = 0.9
STEEPNESS = ("steepness", "slope_normalised")


@dataclass(frozen=True)
class TestResult:
    """One comparison: what was found, what was asked, what follows."""

    __test__ = False  # pytest would take the name for a test class

    statement: str
    verdict: str
    estimate: Estimate
    than: float
    reason: str


@dataclass(frozen=True)
class ClaimResult:
    """The verdict of a claim under one metric, and under each other one beside it."""

    claim: Claim
    verdict: str
    tests: tuple[TestResult, ...]
    by_metric: dict[str, str]

    @property
    def flags(self) -> tuple[str, ...]:
        notes = [note for test in self.tests for note in test.estimate.notes]
        decided = {verdict for verdict in self.by_metric.values() if verdict != INSUFFICIENT}
        if len(decided) > 1:
            notes.append("metrics disagree")
        return tuple(dict.fromkeys(notes))


def read_claims(path: Path) -> ClaimsFile:
    """Read a claims file; raise UserError naming file, line and remedy."""
    return YamlSource.read(str(path), "the claims").validate(ClaimsFile)


def evaluate(claims: Sequence[Claim], by_metric: dict[str, Profiles]) -> list[ClaimResult]:
    """Judge each claim under the first metric, and note its verdict under every metric."""
    results = []
    evidence = {metric: Evidence(profiles) for metric, profiles in by_metric.items()}
    first = next(iter(evidence))
    for claim in claims:
        tests = {metric: _tests(claim, known) for metric, known in evidence.items()}
        verdicts = {metric: _together(found) for metric, found in tests.items()}
        results.append(ClaimResult(claim, verdicts[first], tests[first], verdicts))
    return results


def _tests(claim: Claim, evidence: Evidence) -> tuple[TestResult, ...]:
    measures = [
        measure
        for test in claim.tests
        for measure in (test.measure, test.than)
        if isinstance(measure, Measure)
    ]
    steep = next((one for one in measures if one.statistic in STEEPNESS), None)
    return tuple(_judge(test, claim.control, evidence, steep) for test in claim.tests)


def _together(tests: Sequence[TestResult]) -> str:
    verdicts = [test.verdict for test in tests]
    if CONTRADICTED in verdicts:
        return CONTRADICTED
    return INSUFFICIENT if INSUFFICIENT in verdicts else SUPPORTED


def _judge(test: Test, control: str, evidence: Evidence, steep: Measure | None) -> TestResult:
    found = evidence.estimate(test.measure, control)
    statement = describe(test.measure)
    same = _one_number(test, evidence, steep)
    if isinstance(test.than, Measure):
        other = evidence.estimate(test.than, control)
        statement += f" {_WORDS[test.is_]} {describe(test.than)}"
        apart = evidence.difference(test.measure, test.than, found, other)
        verdict, reason = _decide(apart, test.is_, 0.0, (found.p_value, other.p_value))
        notes = tuple(dict.fromkeys((*found.notes, *other.notes)))
        found, than = replace(found, notes=notes), other.value
    else:
        statement += f" {_WORDS[test.is_]} {test.than:g}"
        than, p_value = test.than, found.p_value
        # That there is nothing is not asked of a conclusion to which nothing would lead as well.
        asked = (p_value if than >= 0 else None, p_value if than <= 0 else None)
        verdict, reason = _decide(found, test.is_, than, asked)
    if same and verdict != INSUFFICIENT:
        verdict, reason = INSUFFICIENT, same
    return TestResult(statement, verdict, found, than, reason)


def _one_number(test: Test, evidence: Evidence, steep: Measure | None) -> str:
    """Return why a test on width says nothing beside one on steepness; empty where it does."""
    sides = [one for one in (test.measure, test.than) if isinstance(one, Measure)]
    wide = next((one for one in sides if one.statistic == "width"), None)
    if wide is None or steep is None:
        return ""
    rank = evidence.rank_correlation(wide, steep)
    if not abs(rank) > ONE_NUMBER:
        return ""
    return f"width and {steep.statistic} are one number here (rank correlation {rank:.3f})"


_WORDS = {"above": "above", "below": "below", "at_least": "at least", "at_most": "at most"}


def _decide(
    found: Estimate, relation: str, than: float, asked: tuple[float | None, float | None]
) -> tuple[str, str]:
    """Return verdict and reason; ``asked`` are the p values that the conclusions "larger" and
    "smaller" need beside the interval."""
    if found.counted is not None and found.counted.of:
        return _decide_count(found, found.counted, _relation(relation, than))
    if found.blocked:
        return INSUFFICIENT, found.blocked
    holds = _relation(relation, than)
    ends = {holds(found.low), holds(found.high)}
    if len(ends) > 1:
        return INSUFFICIENT, "the interval contains the threshold"
    supported = ends == {True}
    larger = supported == (relation in ("above", "at_least"))
    p_value = asked[0] if larger else asked[1]
    if p_value is not None and p_value > SIGNIFICANT:
        return INSUFFICIENT, f"permutation p {p_value:.2f}"
    return (SUPPORTED if supported else CONTRADICTED), ""


def _relation(relation: str, than: float) -> Callable[[float], bool]:
    relations: dict[str, Callable[[float], bool]] = {
        "above": lambda x: x > than,
        "below": lambda x: x < than,
        "at_least": lambda x: x >= than - 1e-12,
        "at_most": lambda x: x <= than + 1e-12,
    }
    return relations[relation]


def _decide_count(
    found: Estimate, counted: Counted, holds: Callable[[float], bool]
) -> tuple[str, str]:
    """Decide on how many units are so: between those known to be, and all but those known not to.

    Where a claim needs all of them, or none, each is taken at its own level: all must be right for
    the claim to be wrong nowhere. Where it needs one of several, or is to be contradicted, there
    were several chances, and levels are Holm's.
    """
    count = counted.of
    scale = 1 / count if counted.share else 1.0
    so = [holds(hits * scale) for hits in range(count + 1)]
    if not any(so):
        return CONTRADICTED, ""
    every = so.index(True) == count
    none = all(not one for one in so[1:])
    hits = counted.hits_each if every else counted.hits_together
    misses = counted.misses_each if none else counted.misses_together
    if all(so[hits : count - misses + 1]):
        return SUPPORTED, ""
    if not any(so[counted.hits_together : count - counted.misses_together + 1]):
        return CONTRADICTED, ""
    if found.blocked:
        return INSUFFICIENT, found.blocked
    missing = count - hits - misses
    unit = found.unit.removesuffix("s") if missing == 1 else found.unit
    return INSUFFICIENT, f"{missing} {unit} still open could decide it"


def describe(measure: Measure) -> str:
    """Return a measure in words."""
    if measure.reduce in ("share", "count"):
        what = f"{'share' if measure.reduce == 'share' else 'number'} with {_condition(measure)}"
    elif measure.reduce == "gap":
        groups = " less ".join(map(str, measure.groups or ()))
        what = f"{measure.statistic} of {measure.by} {groups}"
    elif measure.reduce == "spearman":
        what = f"rank correlation of {measure.statistic} with {measure.with_column}"
    elif measure.reduce == "variance_explained":
        what = f"variance of {measure.statistic} explained by {measure.by}"
    else:
        what = f"{measure.reduce} {measure.statistic}"
    where = ", ".join(f"{column} {_wanted(value)}" for column, value in measure.where.items())
    return f"{what} ({where})" if where else what


def _condition(measure: Measure) -> str:
    if measure.verdict is not None:
        what = "outcome" if measure.statistic == ALIGNMENT else "verdict"
        return f"{what} {measure.verdict}"
    if measure.above is not None:
        return f"{measure.statistic} above {measure.above:g}"
    return f"{measure.statistic} below {measure.below:g}"


def _wanted(value: object) -> str:
    if isinstance(value, Range):
        bounds = [
            f"{sign} {bound:g}"
            for sign, bound in (("≥", value.at_least), ("≤", value.at_most))
            if bound is not None
        ]
        return " and ".join(bounds)
    return "|".join(map(str, value)) if isinstance(value, list) else str(value)
