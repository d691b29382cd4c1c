"""What is wrong in a store: every record, checksum, row count and step looked at once."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from pydantic import ValidationError

from sweeps.attempts.attempt import end_for
from sweeps.attempts.living import alive_runs
from sweeps.attempts.manifest import damage
from sweeps.declaration.expand import Sweep
from sweeps.errors import UserError
from sweeps.files.mirror import Mirror
from sweeps.files.objects import scratch_folder
from sweeps.files.whole_files import Place, file_checksum, is_local, remove_folder
from sweeps.leases.lease import Vigil
from sweeps.sources.content import difference, sources_of
from sweeps.spec import RunSpec, is_measurement
from sweeps.store.records import COMPLETE
from sweeps.store.run_folder import RunFolder, name_in
from sweeps.store.schema import SORT_KEYS, TABLES
from sweeps.store.store import Store


@dataclass(frozen=True)
class Finding:
    """One thing wrong: where, what, and what mends it; ``mend`` is None where only a person can.

    ``mend`` looks again first: a store is large, and what is wrong may have been mended meanwhile,
    or its run taken up again. It returns whether it has mended anything.
    """

    run_id: str
    what: str
    remedy: str
    mend: Callable[[], bool] | None


NO_RECORD = "run.json is missing or cannot be read"


def audit(store: Store) -> Iterator[Finding]:
    """Yield what is wrong with each run and measurement of a store, and with its cache.

    Of an object store everything is fetched anew: what was fetched before proves nothing.
    """
    with _fetched(store) as fetched:
        newest = {
            folder.run_id: folder.newest_attempt()
            for folder in [*fetched.runs(), *fetched.measurements()]
        }
        open_ones = {i: one for i, one in newest.items() if one and one["cause"] is None}
        alive = alive_runs([store.work(work_id) for work_id in open_ones])
        for work_id in newest:
            if work_id not in alive:
                yield from _checked(fetched.work(work_id), store.work(work_id))
            if work_id in open_ones and work_id not in alive:
                yield _lost_attempt(store.work(work_id), open_ones[work_id])
    if is_local(store.root):
        yield from _cache(store.cache)


def _checked(folder: RunFolder, real: RunFolder) -> Iterator[Finding]:
    """Yield what is wrong with a run or measurement, mended only if it is so still then."""
    check = _measurement if is_measurement(real.run_id) else _run

    def looking_again(finding: Finding, mend: Callable[[], bool]) -> bool:
        if alive_runs([real]):
            return False
        with _fetched_one(real) as now:
            return any(one.what == finding.what for one in check(now, real)) and mend()

    for finding in check(folder, real):
        if finding.mend is not None:
            finding = replace(finding, mend=partial(looking_again, finding, finding.mend))
        yield finding


def _cache(cache: Path) -> Iterator[Finding]:
    """Yield what crashes have left in a cache; where somebody makes something, nothing is left."""
    for making in cache.rglob(".*.making"):
        if Vigil(making).look() == "gone":
            yield _leftover("cache", making)
    for path in cache.rglob(".*.tmp"):
        if ".making/" not in str(path) and not any(path.parent.glob(".*.making")):
            yield _leftover("cache", path)


def unsound_result(folder: RunFolder) -> str | None:
    """Return what is wrong with the result a run is said to have; None where it stands.

    Of an object store it is asked whether the parts are there, elsewhere their content is compared.
    """
    done = folder.done()
    if done is None:
        return "DONE.json is missing or cannot be read"
    return next(_closed(folder, done), None) if is_local(folder.path) else harmed_part(folder)


def harmed_part(folder: RunFolder) -> str | None:
    """Return which file of a closed run is not there, or not what it was; None without a result.

    Of an object store it is asked whether the parts are there, elsewhere their content is compared.
    """
    done = folder.done()
    if done is None:
        return None
    return next(_harmed_parts(folder, done), None) or (NO_RECORD if not folder.record() else None)


def _harmed_parts(folder: RunFolder, done: dict[str, Any]) -> Iterator[str]:
    there = {name_in(folder, path): path for table in TABLES for path in folder.parts(table)}
    for name, entry in done["parts"].items():
        path = there.get(name)
        if path is None:
            yield f"{name} is missing"
        elif is_local(path) and file_checksum(path) != entry["sha256"]:
            yield f"{name} does not match its checksum"


def changed_sources(store: Store) -> Iterator[Finding]:
    """Yield the models and data files of a store's sweeps that are not what they were.

    All are hashed anew, whole: what was remembered of them is what is in doubt. What is not on this
    machine is passed over.
    """
    for sweep in readable_sweeps(store):
        for what, source in sources_of(sweep.runs):
            try:
                differs = difference(source, anew=True)
            except FileNotFoundError:
                continue
            except UserError as error:
                differs = str(error)
            if differs is not None:
                yield Finding(
                    f"sweep {sweep.name}",
                    f"{what}: {differs}",
                    "put the declared content back; no run of it starts before",
                    None,
                )


def readable_sweeps(store: Store) -> Iterator[Sweep]:
    """Yield the current version of each sweep of a store whose record can be read."""
    for name in store.sweep_names():
        with suppress(UserError):
            yield store.load_sweep(name)


def unreadable_records(store: Store) -> Iterator[Finding]:
    """Yield versions of sweeps whose records cannot be read, and a store without its identity."""
    for version in store.versions():
        try:
            version.load()
        except UserError:
            what = f"{version.folder}: its record cannot be read"
            remedy = "give the sweep file to `depthsweep run` again, which writes it anew"
            yield Finding(f"sweep {version.sweep}", what, remedy, None)
        for digest in version.lost_code:
            what = f"plugins/{digest}.json: its runs' own code is not there, or not whole"
            remedy = "give the sweep file to `depthsweep run` again, with the code as it was"
            yield Finding(f"sweep {version.sweep}", what, remedy, None)
    wrong = store.wrong_identity()
    if wrong is not None:

        def mend() -> bool:
            store.identify_anew()
            return True

        yield Finding("store", f"store.json {wrong}", "written anew, with a new id", mend)


@contextmanager
def _fetched(store: Store) -> Iterator[Store]:
    if is_local(store.root):
        yield store
        return
    with scratch_folder() as folder:
        mirror = Mirror(store.root, folder)
        mirror.refresh()
        mirror.look(None, parts=True)
        yield Store(mirror.folder, mirror)


@contextmanager
def _fetched_one(real: RunFolder) -> Iterator[RunFolder]:
    """Yield a run's records and parts as they are now."""
    if is_local(real.path):
        yield real
        return
    with scratch_folder() as folder:
        copy = folder / real.run_id
        copy.mkdir()
        for name in real.path.entries():
            if name.endswith((".json", ".parquet")):
                (copy / name).parent.mkdir(parents=True, exist_ok=True)
                with suppress(FileNotFoundError):
                    real.path.files.download((real.path / name).key, copy / name)
        yield RunFolder(copy)


def _run(folder: RunFolder, real: RunFolder) -> Iterator[Finding]:
    """Yield what is wrong with a run as read in ``folder``; mending is done to ``real``."""
    done = folder.done()
    if done is None:
        yield from _left_aside(real)
        if (folder.path / "DONE.json").exists():
            yield _again(real, "DONE.json cannot be read")
            return
        if (folder.path / "run.json").exists() and folder.record() is None:
            yield Finding(
                folder.run_id,
                "run.json cannot be read",
                "removed: the next attempt writes it",
                partial(_removed, real.path / "run.json"),
            )
        yield from _checkpoints(folder, real)
        return
    wrong = next(_closed(folder, done), None)
    if wrong is not None:
        yield _again(real, wrong)
        return
    for left in real.unlisted(folder.keeps()):
        what = f"{name_in(real, left)} is accounted for by no record"
        remedy = "removed: no reader counts it"
        yield Finding(folder.run_id, what, remedy, partial(_removed, left))


def _left_aside(real: RunFolder) -> Iterator[Finding]:
    if is_local(real.path):
        for left in real.path.rglob(".*.tmp"):
            yield _leftover(real.run_id, left)


def _measurement(folder: RunFolder, real: RunFolder) -> Iterator[Finding]:
    """Yield what is wrong with a measurement: a result that cannot be read, what a crash left."""
    yield from _left_aside(real)
    done = folder.done()
    result = None if done is None else done.get("result")
    if (folder.path / "DONE.json").exists() and not isinstance(result, dict):
        what, remedy = "DONE.json cannot be read", "its result is dropped; resume measures it"
        yield Finding(folder.run_id, what, remedy, partial(_dropped, real))


def _closed(folder: RunFolder, done: dict[str, Any]) -> Iterator[str]:
    """Yield what contradicts a closing record."""
    harmed = list(_harmed_parts(folder, done))
    if harmed:  # what is not there cannot be read any further
        yield from harmed
        return
    for name, entry in done["parts"].items():
        if pq.read_metadata(_local(folder) / name).num_rows != entry["rows"]:
            yield f"{name} has other rows than its record says"
    try:
        run = RunSpec.model_validate_json(json.dumps((folder.record() or {})["spec"]))
    except (ValidationError, ValueError, KeyError):
        yield NO_RECORD
        return
    if run.run_id != folder.run_id:
        yield f"run.json is of run {run.run_id}"
    last = done["step"]
    # The step that a run ends with is recorded, whatever it is.
    recorded = {*run.recorded_steps.until(last), *([last] if last else [])}
    yield from _steps(folder, done, "steps", recorded)
    # One that stops early is probed and evaluated where it does.
    stopped = {last} if done["status"] == "stopped" else set[int]()
    probed = {step for step in run.probe_steps if step <= last} | stopped
    # A run may diverge before the probe of its last step, or because of what that probe has seen.
    certain = probed - {last} if done["status"] == "diverged" else probed
    yield from _steps(folder, done, "profiles", certain, possible=probed)
    yield from _steps(folder, done, "layers", recorded)
    # Only the last probe of a run that finished has it. A run that finished before there was this
    # table has none of its parts, and is sound.
    final = {last} if done["status"] in COMPLETE else set()
    there = any(name.startswith("jackknife/") for name in done["parts"])
    yield from _steps(folder, done, "jackknife", final if there else (), possible=final)
    scored = {step for step in run.evaluation_steps if step <= last}
    certain = scored - {last} if done["status"] == "diverged" else scored
    yield from _steps(folder, done, "evaluations", certain, possible=scored)
    asked = run.evaluation is not None and run.evaluation.refusal is not None
    answered = certain if asked else set[int]()
    yield from _steps(folder, done, "answers", answered, possible=scored if asked else answered)
    selected = run.selection.kind != "all"
    yield from _steps(folder, done, "samples", range(1, last + 1) if selected else ())


def _steps(
    folder: RunFolder,
    done: dict[str, Any],
    table: str,
    expected: Collection[int],
    *,
    possible: Collection[int] | None = None,
) -> Iterator[str]:
    paths = [_local(folder) / name for name in done["parts"] if name.startswith(f"{table}/")]
    key = [name for name in SORT_KEYS[table] if name != "run_id"]
    rows: list[tuple[Any, ...]] = []
    for path in paths:
        # A folder named step=3 on the way is no column.
        # A part of before there was a column has none of it, which is null, as readers have it.
        there = [name for name in key if name in pq.read_schema(path).names]
        part = pq.read_table(path, columns=there, partitioning=None)
        rows += zip(*(part[name].to_pylist() for name in there), strict=True)
    if len(set(rows)) != len(rows):
        yield f"{table} has a row twice"
    steps = {step for step, *_ in rows}
    missing = sorted(step for step in expected if step not in steps)
    if missing:
        more = f" and {len(missing) - 1} more" if missing[1:] else ""
        yield f"{table} lacks step {missing[0]}{more}"
    beyond = steps - set(expected if possible is None else possible)
    if beyond:
        yield f"{table} has step {min(beyond)}, which the run does not"


def _checkpoints(folder: RunFolder, real: RunFolder) -> Iterator[Finding]:
    for path in real.checkpoints():
        wrong = damage(real, path)
        if wrong is not None:
            step = folder.step_of(path)
            yield Finding(
                folder.run_id,
                wrong,
                f"the checkpoint of step {step} no longer counts; an older one or the start does",
                partial(_removed, path / "manifest.json"),
            )


def _again(folder: RunFolder, what: str) -> Finding:
    remedy = "its result is dropped; resume runs it again"
    return Finding(folder.run_id, what, remedy, partial(_dropped, folder))


def _dropped(folder: RunFolder) -> bool:
    folder.forget_results()
    if folder.record() is None:
        (folder.path / "run.json").unlink(missing_ok=True)
    return True


def _leftover(run_id: str, path: Path) -> Finding:
    return Finding(run_id, f"{path.name} was left by a crash", "removed", partial(_removed, path))


def _removed(path: Place) -> bool:
    if path.is_dir():
        remove_folder(path)
    else:
        path.unlink(missing_ok=True)
    return True


def _lost_attempt(folder: RunFolder, attempt: dict[str, Any]) -> Finding:
    what = f"attempt {attempt['attempt']} on {attempt['node']} ended without a word"
    close = partial(end_for, folder, attempt, "lost")
    return Finding(folder.run_id, what, "recorded as lost", close)


def _local(folder: RunFolder) -> Path:
    assert is_local(folder.path)
    return folder.path
