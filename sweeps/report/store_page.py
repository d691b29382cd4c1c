"""The report of a sweep, made from what a store holds of it now."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from sweeps.findings.claims import read_claims
from sweeps.reading.tables import open_store
from sweeps.report.data import ReportData, gather
from sweeps.report.figures.files import write_figures
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

    ``live`` is the state it is made from, for a page that reloads itself; see ``live_report``. What
    it is switched to stands in its address, and so outlives that.
    """
    data = _data_of(
        name,
        store,
        claims_file,
        metric,
        at,
        include_running=include_running,
        switch=True,
    )
    return render(data, datetime.now(UTC), live)


def figures_to(
    output: Path,
    kind: str,
    name: str,
    store: str,
    metric: str = "procrustes",
    at: At = "final",
    *,
    figures: tuple[str, ...] = (),
    millimetres: float,
) -> list[Path]:
    """Write figures of a sweep and return their files; see ``write_figures``."""
    data = _data_of(name, store, None, metric, at, include_running=False, switch=False)
    return write_figures(data, kind, output, figures, millimetres)


def _data_of(
    name: str,
    store: str,
    claims_file: str | None,
    metric: str,
    at: At,
    *,
    include_running: bool,
    switch: bool,
) -> ReportData:
    tables = open_store(store, sweep=name, include_running=include_running)
    sweep = tables.store.load_sweep(name)
    found = find_claims(tables.store, name, claims_file)
    claims = None if found is None else read_claims(found)
    return gather(tables, name, sweep.description, sweep.text, claims, metric, at, switch=switch)
