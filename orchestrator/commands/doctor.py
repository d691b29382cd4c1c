"""``depthsweep doctor``: is everything in a store what its records say?"""

from __future__ import annotations

import json

import click

from sweeps.errors import UserError
from sweeps.store.store import Store


@click.command("doctor")
@click.option("--store", "location", default="./store", show_default=True, help="Results folder.")
@click.option("--fix", is_flag=True, help="Mend what can be mended, and say how.")
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON.")
def command(location: str, fix: bool, as_json: bool) -> int:
    """Check every record, checksum, row count and step of a store, and that the local models and
    data of its sweeps are what they were; 1 if something is left wrong.

    Runs that are going on are passed over. Runs that no sweep names any more are listed; they are
    nothing wrong.
    """
    from sweeps.reading.derived import derived_findings
    from sweeps.store.audit import audit, changed_sources

    store = Store.at(location)
    if not store.root.is_dir():
        raise UserError(f"--store {location}: nothing is there")
    findings = [*audit(store), *derived_findings(store), *changed_sources(store)]
    mended = [finding for finding in findings if fix and finding.mend is not None]
    for finding in mended:
        assert finding.mend is not None
        finding.mend()
    strays = store.strays()
    if as_json:
        rows = [{"run_id": f.run_id, "what": f.what, "remedy": f.remedy} for f in findings]
        click.echo(json.dumps({"fixed": fix, "findings": rows, "no_sweep": strays}, indent=1))
    else:
        for finding in findings:
            click.echo(f"{finding.run_id}: {finding.what}")
            by_hand = fix or finding.mend is None
            click.echo(f"  {finding.remedy if by_hand else 'with --fix: ' + finding.remedy}")
        for run_id in strays:
            click.echo(f"{run_id}: belongs to no sweep of the store; `forget {run_id}` drops it")
        runs, measured = len(store.runs()), len(store.measurements())
        said = f", {len(mended)} mended" if fix else ""
        found = f"{len(findings)} findings{said}"
        beside = f"; {measured} measurements" if measured else ""
        click.echo(f"{runs} runs looked at, {found}, {len(strays)} of no sweep{beside}")
    return 1 if len(mended) < len(findings) else 0
