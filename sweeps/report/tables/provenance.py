"""What runs were made with: code, versions, hardware, counted."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import polars as pl

from sweeps.reading.tables import Tables
from sweeps.store.records import PROVENANCE, VERSION


def made_with(
    tables: Tables, attempts: pl.DataFrame, run_ids: Iterable[str]
) -> dict[str, dict[str, int]]:
    """Count runs by what their attempts were made with: code, versions, hardware.

    A run with attempts of two codes counts under both. Where attempts do not say, as in a store of
    before they did, run.json does.
    """
    said: dict[str, set[tuple[str, str]]] = {}
    for row in attempts.iter_rows(named=True):
        found = {name: row[name] for name in PROVENANCE if row[name] is not None}
        if found:
            said.setdefault(row["run_id"], set()).update(_told(found))
    counts: dict[str, dict[str, int]] = {"code": {}, "versions": {}, "hardware": {}}
    for run_id in run_ids:
        record = None if run_id in said else tables.store.run(run_id).record()
        for what, value in sorted(said.get(run_id) or _told(_of_record(record or {}))):
            counts[what][value] = counts[what].get(value, 0) + 1
    return counts


def _told(found: dict[str, str]) -> set[tuple[str, str]]:
    """Return what is known of an attempt, in words, by what it is about."""
    code = {"depthsweep": "depthsweep_version", "commit": "git_commit", "code": "code_digest"}
    versions = [name for name in found if name.endswith(VERSION) and name not in code.values()]
    lines = {
        "code": ", ".join(f"{word} {found[name]}" for word, name in code.items() if name in found),
        "versions": ", ".join(f"{name.removesuffix(VERSION)} {found[name]}" for name in versions),
        "hardware": " ".join(found[name] for name in ("device", "hardware") if name in found),
    }
    return {(what, line) for what, line in lines.items() if line}


def _of_record(record: dict[str, Any]) -> dict[str, str]:
    """Return what a run.json says of how the run was made, by the names that attempts use."""
    hardware = record.get("hardware") or {}
    found = {
        "git_commit": record.get("git_commit"),
        **{f"{name}{VERSION}": said for name, said in (record.get("versions") or {}).items()},
        "device": hardware.get("device"),
        "hardware": hardware.get("name"),
    }
    return {name: str(said) for name, said in found.items() if said is not None}
