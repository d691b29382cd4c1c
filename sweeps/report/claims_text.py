"""Verdicts on claims as text, with the numbers behind each."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence

from sweeps.findings.claims import CONTRADICTED, INSUFFICIENT, SUPPORTED, ClaimResult, TestResult
from sweeps.findings.estimate import Estimate

SIGNS = {SUPPORTED: "✓", CONTRADICTED: "✗", INSUFFICIENT: "?"}


def claims_text(name: str, source: str, results: Sequence[ClaimResult], width: int = 80) -> str:
    """Return every claim with its verdict, its tests and what weakens it."""
    lines = textwrap.fill(f"{name}: claims of {source}" if source else f"{name}: claims", width)
    page = [lines]
    for result in results:
        page.append("")
        head = f"{SIGNS[result.verdict]} {result.claim.id} {result.verdict.upper()}"
        page.append(head)
        page.append(_fold(result.claim.text, width, "  "))
        for test in result.tests:
            page.append(_fold(_line(test), width, f"  {SIGNS[test.verdict]} "))
        others = list(result.by_metric.items())
        if len(others) > 1:
            said = ", ".join(f"{metric} {SIGNS[verdict]}" for metric, verdict in others)
            page.append(_fold(said, width, "  under "))
        if result.flags:
            page.append(_fold("; ".join(result.flags), width, "  ! "))
    counts = [
        f"{sum(result.verdict == verdict for result in results)} {verdict}"
        for verdict in (SUPPORTED, CONTRADICTED, INSUFFICIENT)
    ]
    return "\n".join([*page, "", ", ".join(counts)]) + "\n"


def _line(test: TestResult) -> str:
    found = numbers(test.estimate)
    if not isinstance(test.than, float) or math.isnan(test.than):
        against = ""
    else:
        against = f" against {test.than:.3g}" if " that of " in test.statement else ""
    why = f"; {test.reason}" if test.reason else ""
    return f"{test.statement}: {found}{against}{why}" if found else f"{test.statement}{why}"


def numbers(found: Estimate) -> str:
    """Return an estimate in words: a count with what is open, or a number with its interval."""
    if found.blocked:
        return ""
    resting = f"n = {found.n}" + (f" of {found.of}" if found.of != found.n else "")
    unit = found.unit.removesuffix("s") if found.n == found.of == 1 else found.unit
    if found.counted is not None:
        selected = f", {found.of} selected" if found.of != found.n else ""
        if found.counted.share:
            return f"{found.value:.4g} ({found.counted.hits_each} of {found.n} {unit}{selected})"
        return f"{found.value:.4g} ({resting} {unit})"
    p_value = "" if found.p_value is None else f", permutation p = {found.p_value:.2g}"
    return f"{found.value:.3g} [{found.low:.3g}, {found.high:.3g}] ({resting} {unit}{p_value})"


def _fold(text: str, width: int, lead: str) -> str:
    return textwrap.fill(
        text, width, initial_indent=lead, subsequent_indent=" " * len(lead), break_long_words=False
    )
