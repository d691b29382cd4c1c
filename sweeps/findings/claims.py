"""Claims against evidence: supported, contradicted, or not enough data to say.

A comparison holds when it holds at both ends of its estimate, fails when it fails at both, and is
open otherwise. So a half-finished sweep is never taken for proof, and is taken for refutation only
where the rest could not save the claim.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from sweeps.declaration.yaml_source import YamlSource
from sweeps.findings.claim_spec import Claim, ClaimsFile, Measure, Range, Test
from sweeps.findings.evidence import Estimate, Evidence, difference
from sweeps.statistics.profiles import Profiles

SUPPORTED, CONTRADICTED, INSUFFICIENT = "supported", "contradicted", "insufficient data"
SIGNIFICANT = 0.05


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
    return YamlSource.read(str(path)).validate(ClaimsFile)


def evaluate(claims: Sequence[Claim], by_metric: dict[str, Profiles]) -> list[ClaimResult]:
    """Judge each claim under the first metric, and note its verdict under every metric."""
    results = []
    evidence = {metric: Evidence(profiles) for metric, profiles in by_metric.items()}
    first = next(iter(evidence))
    for claim in claims:
        tests = {
            metric: tuple(_judge(test, claim.control, known) for test in claim.tests)
            for metric, known in evidence.items()
        }
        verdicts = {metric: _together(found) for metric, found in tests.items()}
        results.append(ClaimResult(claim, verdicts[first], tests[first], verdicts))
    return results


def _together(tests: Sequence[TestResult]) -> str:
    verdicts = [test.verdict for test in tests]
    if CONTRADICTED in verdicts:
        return CONTRADICTED
    return INSUFFICIENT if INSUFFICIENT in verdicts else SUPPORTED


def _judge(test: Test, control: str, evidence: Evidence) -> TestResult:
    found = evidence.estimate(test.measure, control)
    statement = describe(test.measure)
    if isinstance(test.than, Measure):
        other = evidence.estimate(test.than, control, tested=False)
        statement += f" {_WORDS[test.is_]} that of {describe(test.than)}"
        verdict, reason = _decide(difference(found, other), test.is_, 0.0)
        if verdict == SUPPORTED and (found.p_value or 0) > SIGNIFICANT:
            verdict, reason = INSUFFICIENT, f"permutation p {found.p_value:.2f}"
        notes = tuple(dict.fromkeys((*found.notes, *other.notes)))
        return TestResult(statement, verdict, replace(found, notes=notes), other.value, reason)
    statement += f" {_WORDS[test.is_]} {test.than:g}"
    verdict, reason = _decide(found, test.is_, test.than)
    return TestResult(statement, verdict, found, test.than, reason)


_WORDS = {"above": "above", "below": "below", "at_least": "at least", "at_most": "at most"}


def _decide(found: Estimate, relation: str, than: float) -> tuple[str, str]:
    if found.blocked:
        return INSUFFICIENT, found.blocked
    relations: dict[str, Callable[[float], bool]] = {
        "above": lambda x: x > than,
        "below": lambda x: x < than,
        "at_least": lambda x: x >= than - 1e-12,
        "at_most": lambda x: x <= than + 1e-12,
    }
    holds = relations[relation]
    ends = {holds(found.low), holds(found.high)}
    if ends == {True}:
        return SUPPORTED, ""
    if ends == {False}:
        return CONTRADICTED, ""
    if found.draws is None:
        missing = found.of - found.n
        unit = found.unit.removesuffix("s") if missing == 1 else found.unit
        return INSUFFICIENT, f"{missing} {unit} still open could decide it"
    return INSUFFICIENT, "the interval contains the threshold"


def describe(measure: Measure) -> str:
    """Return a measure in words."""
    if measure.reduce in ("share", "count"):
        what = f"{'share' if measure.reduce == 'share' else 'number'} with {_condition(measure)}"
    elif measure.reduce == "gap":
        what = f"{measure.statistic} gap between values of {measure.by}"
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
        return f"verdict {measure.verdict}"
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
