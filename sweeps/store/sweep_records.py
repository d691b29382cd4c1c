"""What a store keeps of a sweep beside its runs: the claims made about it, the jobs made for it.

    sweeps/<name>/versions/<digest>/claims.yaml    the claims that came with the sweep file
    sweeps/<name>/jobs/<attempt>.json              which cluster was given it, so that `status`,
                                                   `logs` and `cancel` find it by the sweep's name

A sweep that brings no claims is judged by none. A record of a job names the cluster's profile; no
address, no secret.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sweeps.declaration.recorded_runs import RecordedRuns
from sweeps.errors import UserError
from sweeps.files.whole_files import is_local, read_json, write_json
from sweeps.store.store import Store
from sweeps.versions.sweep_folder import CLAIMS


def find_claims(store: Store, sweep: str, given: str | None = None) -> Path | None:
    """Return the claims file of a sweep: the one given, or the one its version came with; None
    where it brought none.

    ``store`` is one for reading: see ``Store.reading``.
    """
    if given is not None:
        return Path(given)
    kept = store.version(sweep).folder / CLAIMS
    return kept if is_local(kept) and kept.is_file() else None


def recorded_runs(store: Store, sweep: str) -> RecordedRuns:
    """Return the runs of a sweep that a store has run, each read when it is asked for; raise
    UserError as ``Store.load_sweep`` does."""
    version = store.version(sweep)

    def entries() -> list[dict[str, Any]]:
        try:
            runs: list[dict[str, Any]] = version.record()["runs"]
        except (KeyError, TypeError, ValueError, OSError):
            version.load()  # says what is wrong
            raise
        return runs

    return (
        RecordedRuns.named(version.run_ids, entries)
        if version.run_ids
        else (RecordedRuns(entries()))
    )


def record_job(store: Store, sweep: str, attempt: int, record: dict[str, Any]) -> None:
    """Write down a job: submission_id, cluster (profile), version, submitted (ISO time)."""
    write_json(store.sweep_folder(sweep) / "jobs" / f"{attempt}.json", record)


def job_records(store: Store, sweep: str) -> dict[int, dict[str, Any]]:
    """Return the jobs of a sweep by attempt, oldest first; empty where there was none.

    A submit after the cluster has gone is the next attempt.
    """
    found = (store.sweep_folder(sweep) / "jobs").glob("[0-9]*.json")
    numbers = sorted((int(path.stem), path) for path in found)
    return {number: read_json(path) for number, path in numbers}


def strays_of(store: Store) -> list[str]:
    """Return the runs that no version of any sweep names, as far as that can be told: none while
    the record of a version cannot be read, whose runs they may be."""
    try:
        return store.strays()
    except UserError:
        return []
