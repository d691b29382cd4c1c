"""What is wrong in a store: every record, checksum, row count and step looked at once."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from pydantic import ValidationError

from sweeps.results.attempt import is_alive
from sweeps.results.manifest import damage
from sweeps.results.schema import TABLES
from sweeps.results.store import RunFolder, Store, file_checksum, write_json
from sweeps.spec import RunSpec


@dataclass(frozen=True)
class Finding:
    """One thing wrong: where, what, and what mends it."""

    run_id: str
    what: str
    remedy: str
    mend: Callable[[], None]


def audit(store: Store) -> Iterator[Finding]:
    """Yield what is wrong with each run of a store, and with its cache."""
    for folder in store.runs():
        attempts = folder.attempts()
        if attempts and is_alive(folder, attempts[-1]):
            continue
        yield from _run(folder)
        if attempts and attempts[-1]["cause"] is None:
            yield _lost_attempt(folder, attempts[-1])
    for path in store.cache.rglob(".*"):
        yield _leftover("cache", path)


def _run(folder: RunFolder) -> Iterator[Finding]:
    for path in folder.path.rglob(".*.tmp"):
        yield _leftover(folder.run_id, path)
    done = folder.done()
    if done is None:
        if (folder.path / "DONE.json").exists():
            yield _again(folder, "DONE.json cannot be read")
            return
        if (folder.path / "run.json").exists() and folder.record() is None:
            yield Finding(
                folder.run_id,
                "run.json cannot be read",
                "removed: the next attempt writes it",
                (folder.path / "run.json").unlink,
            )
        yield from _checkpoints(folder)
        return
    wrong = next(_closed(folder, done), None)
    if wrong is not None:
        yield _again(folder, wrong)
        return
    for table in TABLES:
        for path in folder.parts(table):
            if _relative(folder, path) not in done["parts"]:
                yield Finding(
                    folder.run_id,
                    f"{_relative(folder, path)} is accounted for by no record",
                    "removed: no reader counts it",
                    path.unlink,
                )


def _closed(folder: RunFolder, done: dict[str, Any]) -> Iterator[str]:
    """Yield what contradicts a closing record."""
    for name, entry in done["parts"].items():
        path = folder.path / name
        if not path.is_file():
            yield f"{name} is missing"
        elif file_checksum(path) != entry["sha256"]:
            yield f"{name} does not match its checksum"
        elif pq.read_metadata(path).num_rows != entry["rows"]:
            yield f"{name} has other rows than its record says"
    try:
        run = RunSpec.model_validate_json(json.dumps((folder.record() or {})["spec"]))
    except (ValidationError, ValueError, KeyError):
        yield "run.json is missing or cannot be read"
        return
    if run.run_id != folder.run_id:
        yield f"run.json is of run {run.run_id}"
    last = done["step"]
    yield from _steps(folder, done, "steps", range(1, last + 1), unique=True)
    probed = [step for step in run.probe_steps if step <= last]
    if done["status"] == "diverged":
        probed = [step for step in probed if step < last]
    yield from _steps(folder, done, "profiles", probed, unique=False)
    yield from _steps(folder, done, "layers", range(1, last + 1), unique=False)


def _steps(
    folder: RunFolder, done: dict[str, Any], table: str, expected: Any, *, unique: bool
) -> Iterator[str]:
    paths = [folder.path / name for name in done["parts"] if name.startswith(f"{table}/")]
    rows: list[tuple[int, int]] = []
    for path in paths:
        part = pq.read_table(path, columns=["step"] if unique else ["step", "layer"])
        layers = [0] * len(part) if unique else part["layer"].to_pylist()
        rows += zip(part["step"].to_pylist(), layers, strict=True)
    if len(set(rows)) != len(rows):
        yield f"{table} has a row twice"
    steps = {step for step, _ in rows}
    missing = [step for step in expected if step not in steps]
    if missing:
        more = f" and {len(missing) - 1} more" if missing[1:] else ""
        yield f"{table} lacks step {missing[0]}{more}"
    beyond = steps - set(expected)
    if beyond:
        yield f"{table} has step {min(beyond)}, which the run does not"


def _checkpoints(folder: RunFolder) -> Iterator[Finding]:
    for step in folder.checkpoint_steps():
        wrong = damage(folder, step)
        if wrong is not None:
            manifest = folder.checkpoint_path(step) / "manifest.json"
            yield Finding(
                folder.run_id,
                wrong,
                f"the checkpoint of step {step} no longer counts; an older one or the start does",
                manifest.unlink,
            )


def _again(folder: RunFolder, what: str) -> Finding:
    remedy = "its result is dropped; resume runs it again"
    return Finding(folder.run_id, what, remedy, folder.forget_results)


def _leftover(run_id: str, path: Path) -> Finding:
    def remove() -> None:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)

    return Finding(run_id, f"{path.name} was left by a crash", "removed", remove)


def _lost_attempt(folder: RunFolder, attempt: dict[str, Any]) -> Finding:
    number = attempt["attempt"]

    def close() -> None:
        record = {key: value for key, value in attempt.items() if key != "attempt"}
        write_json(folder.attempt_path(number), {**record, "cause": "lost"})

    what = f"attempt {number} on {attempt['node']} ended without a word"
    return Finding(folder.run_id, what, "recorded as lost", close)


def _relative(folder: RunFolder, path: Path) -> str:
    return str(path.relative_to(folder.path))
