"""Bringing a store of an earlier layout to this one, run by run.

Layout 1 named parts and checkpoints without their attempts, and kept all parts of a run. It is read
as it is, and its open runs are continued as they are. What this changes are its closed runs: one
part a table, and a closing record that lists it. A run is either as it was or as it is to be at
each moment, so this may be stopped anywhere and started again.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from sweeps.attempts.compaction import compact, names_of
from sweeps.errors import UserError
from sweeps.files.whole_files import read_json, whole_file, write_json
from sweeps.leases.lease import Lease, now, owner
from sweeps.liveness.watch import stale_seconds
from sweeps.store.records import SEAL, bury_result, sealed
from sweeps.store.run_folder import RunFolder, name_in
from sweeps.store.schema import TABLES
from sweeps.store.store import LAYOUT, Store
from sweeps.upkeep.audit import harmed_part


@dataclass(frozen=True)
class Migrated:
    """What became of one run: ``changed``, or ``wrong`` says why it was left as it is."""

    run_id: str
    changed: bool
    wrong: str | None = None


def migrate(store: Store) -> Iterator[Migrated]:
    """Bring every closed run of a store to this layout, yielding after each.

    Raises UserError where another process is at it, or the store is of a later layout.
    """
    store.identify()
    record = read_json(store.root / "store.json")
    if record["layout"] > LAYOUT:
        raise UserError(
            f"store {store.location}: is of layout {record['layout']}, and this depthsweep knows"
            f" layout {LAYOUT}; install a newer one"
        )
    with _alone(store):
        whole = True
        for folder in store.runs():
            migrated = _migrated(folder)
            whole = whole and migrated.wrong is None
            yield migrated
        if whole and record["layout"] < LAYOUT:
            write_json(store.root / "store.json", {**record, "layout": LAYOUT})


def _migrated(folder: RunFolder) -> Migrated:
    done = folder.done()
    many = done is not None and any(
        len(names_of(folder, table, done["parts"])) > 1 for table in TABLES
    )
    if done is None or not many:
        return Migrated(folder.run_id, changed=False)
    wrong = harmed_part(folder)
    if wrong is not None:
        return Migrated(folder.run_id, False, f"{wrong}; `depthsweep doctor --fix` first")
    label = f"a{max(folder.attempt_numbers(), default=1)}-{secrets.token_hex(4)}"
    parts: dict[str, Any] = {}
    for table in TABLES:
        names = names_of(folder, table, done["parts"])
        if names:
            last = folder.last_step_of(folder.path / names[-1])
            path = folder.part_path(table, 0, last, label)
            entry = compact(folder, table, done["parts"], whole_file(path, within=folder.path))
            parts[name_in(folder, path)] = {"rows": entry["rows"], "sha256": entry["sha256"]}
    closing = {name: value for name, value in done.items() if name != SEAL}
    bury_result(folder.path)
    write_json(folder.path / "DONE.json", sealed({**closing, "parts": parts}), within=folder.path)
    folder.remove_unlisted("final")
    return Migrated(folder.run_id, changed=True)


@contextmanager
def _alone(store: Store) -> Iterator[None]:
    """Be the only one who migrates the store."""
    record = {**owner(), "cause": None}
    lease = Lease(store.root / "migration", record, within=store.root)
    until = time.monotonic() + 2 * stale_seconds()
    if lease.take(lambda: time.monotonic() < until) is None:
        raise UserError(f"store {store.location}: another process is migrating it; let it end")
    try:
        with lease.beating():
            yield
    finally:
        record |= {"ended": now(), "cause": "ended"}
        lease.end()
