"""``depthsweep claims``: what a sweep says of the claims of a study."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

import click

from orchestrator.options import moment
from orchestrator.shell.completion import SWEEP
from sweeps.errors import UserError

if TYPE_CHECKING:
    from sweeps.findings.claims import ClaimResult


@click.command()
@click.argument("name", shell_complete=SWEEP)
@click.option("--store", default="./store", show_default=True, help="Folder of the store.")
@click.option("--claims", "file", metavar="FILE", help="Default: those the sweep came with.")
@click.option("--metric", default="procrustes", show_default=True, help="Which change decides.")
@click.option("--at", default="final", show_default=True, help="final, or a probe step.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object for programs.")
def command(name: str, store: str, file: str | None, metric: str, at: str, as_json: bool) -> None:
    """Judge the claims that sweep NAME brings, or those of a file.

    Each is supported, contradicted, or open for want of data, with the numbers behind it and the
    verdict under every distance. Claims are data: NAME.claims.yaml beside the sweep file, for
    instance sweeps/library/paper.claims.yaml.
    """
    from orchestrator.display.output import terminal_width
    from sweeps.findings.claims import evaluate, read_claims
    from sweeps.reading.tables import open_store
    from sweeps.report.claims_text import claims_text
    from sweeps.statistics.profiles import measure_each
    from sweeps.store.schema import NULL_METRICS
    from sweeps.store.sweep_records import find_claims
    from sweeps.versions.version_id import SweepName

    tables = open_store(store, sweep=name)
    found = find_claims(tables.store, name, file)
    if found is None:
        file = f"{SweepName.parse(name).name}.claims.yaml"
        raise UserError(
            f"sweep {name!r} came with no claims: write {file} beside its sweep file and run it"
            " again, or give a file with --claims FILE"
        )
    claims = read_claims(found)
    metrics = [metric, *[other for other in NULL_METRICS if other != metric]]
    results = evaluate(claims.claims, measure_each(tables, metrics, moment(at)))
    if as_json:
        page = {
            "sweep": name,
            "source": claims.source,
            "metric": metric,
            "at": at,
            "claims": [plain(r) for r in results],
        }
        click.echo(json.dumps(page, indent=1))
    else:
        click.echo(claims_text(name, claims.source, results, terminal_width()), nl=False)


def plain(result: ClaimResult) -> dict[str, Any]:
    """Return a result as JSON data; a number that is not defined is null."""
    return {
        "id": result.claim.id,
        "text": result.claim.text,
        "verdict": result.verdict,
        "by_metric": result.by_metric,
        "flags": list(result.flags),
        "tests": [
            {
                "statement": test.statement,
                "verdict": test.verdict,
                "reason": test.reason,
                "value": _number(test.estimate.value),
                "low": _number(test.estimate.low),
                "high": _number(test.estimate.high),
                "than": _number(test.than),
                "n": test.estimate.n,
                "of": test.estimate.of,
                "unit": test.estimate.unit,
                "p_value": test.estimate.p_value,
            }
            for test in result.tests
        ],
    }


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None
