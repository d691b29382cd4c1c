"""``depthsweep doctor``: is everything in a store what its records say?"""

from __future__ import annotations

import json

import click

from orchestrator.display.output import wrapped
from sweeps.store.store import Store
from sweeps.store.sweep_records import strays_of

# Of a large store a migration says how far it is, every so many runs.
RUNS_A_LINE = 200


@click.command("doctor")
@click.option("--store", "location", default="./store", show_default=True, help="Results folder.")
@click.option("--fix", is_flag=True, help="Mend what can be mended, and say how.")
@click.option("--migrate", is_flag=True, help="Bring a store of an earlier layout to this one.")
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON.")
def command(location: str, fix: bool, migrate: bool, as_json: bool) -> int:
    """Check every record, checksum, row count and step of a store, and that the local models and
    data of its sweeps are what they were; 1 if something is left wrong.

    Runs that are going on are passed over. Runs that no sweep names any more are listed; they are
    nothing wrong.
    """
    from sweeps.upkeep.audit import audit, changed_sources, unreadable_records
    from sweeps.upkeep.derived import derived_findings

    store = Store.at(location)
    store.require_there()
    if migrate:
        return _migrate(store, as_json)
    findings = [
        *unreadable_records(store),
        *audit(store),
        *derived_findings(store),
        *changed_sources(store),
    ]
    mended = [one for one in findings if fix and one.mend is not None and one.mend()]
    strays = strays_of(store)
    if as_json:
        rows = [{"run_id": f.run_id, "what": f.what, "remedy": f.remedy} for f in findings]
        click.echo(json.dumps({"fixed": fix, "findings": rows, "no_sweep": strays}, indent=1))
    else:
        lines = []
        for finding in findings:
            lines += wrapped(f"{finding.run_id}: {finding.what}")
            by_hand = fix or finding.mend is None
            said = finding.remedy if by_hand else f"with --fix: {finding.remedy}"
            lines += wrapped(said, first="  ", rest="    ")
        for run_id in strays:
            lines.append(f"{run_id}: belongs to no sweep of the store; `forget {run_id}` drops it")
        click.echo("".join(f"{line}\n" for line in lines), nl=False)
        runs, measured = len(store.runs()), len(store.measurements())
        said = f", {len(mended)} mended" if fix else ""
        found = f"{len(findings)} findings{said}"
        beside = f"; {measured} measurements" if measured else ""
        click.echo(f"{runs} runs looked at, {found}, {len(strays)} of no sweep{beside}")
    return 1 if len(mended) < len(findings) else 0


def _migrate(store: Store, as_json: bool) -> int:
    from sweeps.upkeep.migration import migrate

    total, changed, wrong = len(store.runs()), 0, []
    for number, one in enumerate(migrate(store), start=1):
        changed += one.changed
        if one.wrong is not None:
            wrong.append({"run_id": one.run_id, "what": one.wrong})
        if not as_json and number % RUNS_A_LINE == 0:
            click.echo(f"{number} of {total} runs", err=True)
    if as_json:
        click.echo(json.dumps({"runs": total, "changed": changed, "left": wrong}, indent=1))
    else:
        for one_left in wrong:
            click.echo(f"{one_left['run_id']}: {one_left['what']}")
        click.echo(f"{total} runs, {changed} brought to this layout, {len(wrong)} left as they are")
    return 1 if wrong else 0
