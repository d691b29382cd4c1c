"""The report of a sweep, made from what a store holds of it now."""

from __future__ import annotations

from datetime import UTC, datetime

from sweeps.findings.claims import read_claims
from sweeps.reading.tables import open_store
from sweeps.report.data import gather
from sweeps.report.page import render
from sweeps.statistics.profile_rows import At
from sweeps.store.sweep_records import find_claims


def page_of(
    name: str,
    store: str,
    claims_file: str | None = None,
    metric: str = "procrustes",
    at: At = "final",
    *,
    include_running: bool = False,
    live: str | None = None,
) -> str:
    """Return the report of a sweep as HTML, from what the store holds now.

    ``live`` is the state it is made from, for a page that reloads itself; see ``live_report``.
    """
    tables = open_store(store, sweep=name, include_running=include_running)
    sweep = tables.store.load_sweep(name)
    found = find_claims(tables.store, name, claims_file)
    claims = None if found is None else read_claims(found)
    data = gather(tables, name, sweep.description, sweep.text, claims, metric, at)
    return render(data, datetime.now(UTC), live)
