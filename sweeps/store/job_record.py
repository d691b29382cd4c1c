"""Which jobs of clusters were made for a sweep: sweeps/<name>/jobs/<attempt>.json.

So `status`, `logs` and `cancel` find the cluster by the sweep's name, and a submit after the
cluster has gone is the next attempt. A record names the cluster's profile; no address, no secret.
"""

from __future__ import annotations

from typing import Any

from sweeps.files.whole_files import read_json, write_json
from sweeps.store.store import Store


def record_job(store: Store, sweep: str, attempt: int, record: dict[str, Any]) -> None:
    """Write down a job: submission_id, cluster (profile), version, submitted (ISO time)."""
    write_json(store.sweep_folder(sweep) / "jobs" / f"{attempt}.json", record)


def job_records(store: Store, sweep: str) -> dict[int, dict[str, Any]]:
    """Return the jobs of a sweep by attempt, oldest first; empty where there was none."""
    found = (store.sweep_folder(sweep) / "jobs").glob("[0-9]*.json")
    numbers = sorted((int(path.stem), path) for path in found)
    return {number: read_json(path) for number, path in numbers}
