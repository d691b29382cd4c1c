"""What a store keeps that is made of something else, compared with what it is made of."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from functools import partial

from sweeps.errors import UserError
from sweeps.files.listing import entries
from sweeps.index import segments
from sweeps.index.closed_work import ClosedWork
from sweeps.reading.closings import closed_work
from sweeps.store.store import Store
from sweeps.upkeep.audit import Finding, readable_sweeps

# What an entry of the index is compared by; the times of files may differ in a copy of a store.
COMPARED = ("seal", "status", "step", "loss", "parts", "spec", "facts", "result")


def derived_findings(store: Store) -> Iterator[Finding]:
    """Yield what the index of a store says that its records do not, files of it that cannot be
    read, and runs that a sweep's record has under an id that is not theirs."""
    yield from _index_findings(store)
    for sweep in readable_sweeps(store):
        for run in sweep.runs:
            recorded = run.run_id
            if recorded != run.model_copy().run_id:
                what = f"its record has run {run.model_copy().run_id} under the id {recorded}"
                remedy = "give the sweep file to `depthsweep run` again, which writes it anew"
                yield Finding(f"sweep {sweep.name}", what, remedy, None)
                break


def _index_findings(store: Store) -> Iterator[Finding]:
    index = segments.read(store.root)
    remedy = "the index is dropped; the next sweep makes another"
    drop = partial(_done, partial(segments.drop, store.root))
    for name in entries(store.root / segments.FOLDER):
        if name.startswith("."):
            left = store.root / segments.FOLDER / name
            yield Finding(
                "index", f"{name} was left by a crash", "removed", partial(_done, left.unlink)
            )
    for name in index.damaged:
        yield Finding("index", f"{name} cannot be read", remedy, drop)
    reading = store.reading()
    local = reading.mirror is None
    wrong = {}
    for work_id, entry in index.entries.items():
        there = None
        with contextlib.suppress(ValueError, UserError):
            there = closed_work(reading.work(work_id), marked=local)
        if local and (there is None or there.seal != entry.seal):
            continue  # readers see that it does not stand
        said = _contradiction(entry, there)
        if said is not None:
            wrong[work_id] = said
    if wrong:
        first, said = next(iter(wrong.items()))
        more = f", and so of {len(wrong) - 1} more" if wrong.keys() - {first} else ""
        yield Finding("index", f"{said} of {first}{more}", remedy, drop)


def _contradiction(entry: ClosedWork, there: ClosedWork | None) -> str | None:
    if there is None:
        return "it has a result that is not there,"
    marks = [None if one.mark is None else one.mark[2] for one in (entry, there)]
    if marks[0] == marks[1] and entry.attempts != there.attempts:
        return "it has other attempts than there are"
    said, found = entry.said(), there.said()
    differs = [name for name in COMPARED if said[name] != found[name]]
    return f"it has another {differs[0]} than the records" if differs else None


def _done(mend: Callable[[], object]) -> bool:
    mend()
    return True
