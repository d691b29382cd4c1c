"""The section on the claims that a sweep brings, judged."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

from sweeps.findings.claims import CONTRADICTED, SUPPORTED, ClaimResult
from sweeps.report.claims_text import SIGNS, numbers


def claim_cards(results: Sequence[ClaimResult], source: str) -> str:
    """Return the claims that the sweep brings, judged; nothing where it brings none."""
    if not results:
        return ""
    cards = []
    for result in results:
        tests = "".join(
            f'<li class="{_kind(test.verdict)}"><span class="verdict">{SIGNS[test.verdict]}</span>'
            f" {escape(test.statement)}{escape(_found(test))}</li>"
            for test in result.tests
        )
        others = ", ".join(
            f"{metric} {SIGNS[verdict]}" for metric, verdict in result.by_metric.items()
        )
        sensitivity = " (a sensitivity on the same runs, no replication)"
        measured = f"By metric{sensitivity if len(result.by_metric) > 1 else ''}: {others}."
        flags = f" Note: {escape('; '.join(result.flags))}." if result.flags else ""
        cards.append(
            f'<article class="claim {_kind(result.verdict)}"><h3>{escape(result.claim.id)} '
            f'<span class="verdict">{SIGNS[result.verdict]} {escape(result.verdict)}</span></h3>'
            f"<p>{escape(result.claim.text)}</p><ul>{tests}</ul>"
            f'<p class="note">{escape(measured)}{flags}</p></article>'
        )
    said = f'<p class="soft">{escape(source)}</p>' if source else ""
    return f'<section><h2>Claims</h2>{said}<div class="claims">{"".join(cards)}</div></section>'


def _found(test: Any) -> str:
    parts = [part for part in (numbers(test.estimate), test.reason) if part]
    return ": " + "; ".join(parts) if parts else ""


def _kind(verdict: str) -> str:
    return {SUPPORTED: "supported", CONTRADICTED: "contradicted"}.get(verdict, "open")
