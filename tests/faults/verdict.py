"""Are the tables of a store those of the sweep that never failed?"""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl
import polars.selectors as cs

from sweeps import open_store
from sweeps.declaration.settings import settings_of
from sweeps.errors import UserError
from sweeps.reading.run_table import HOW_IT_WENT
from sweeps.spec import MEASUREMENTS
from sweeps.store.schema import SORT_KEYS
from sweeps.store.store import Store
from sweeps.upkeep.audit import audit

# How a run went and how it was carried out: another process may do it otherwise, with one result.
BESIDE_THE_RESULT = [*HOW_IT_WENT, *(one.name for one in settings_of() if not one.decides)]


STRAY = "is accounted for by no record"


@dataclass
class Verdict:
    """What differs from the reference; all empty or 0 when nothing does.

    What ``came_late`` is no fault of anybody's: no reader counts it, and doctor removes it.
    """

    rows: int = 0
    lost: int = 0
    duplicated: int = 0
    different: list[str] = field(default_factory=list)
    not_finished: list[str] = field(default_factory=list)
    by_hand: list[str] = field(default_factory=list)
    came_late: list[str] = field(default_factory=list)

    @property
    def sound(self) -> bool:
        return not (
            self.lost or self.duplicated or self.different or self.not_finished or self.by_hand
        )


def mend(store: Store) -> list[str]:
    """Do what ``doctor --fix`` does; return its findings."""
    findings = list(audit(store))
    for finding in findings:
        if finding.mend is not None:
            finding.mend()
    return [f"{finding.run_id}: {finding.what}" for finding in findings]


def judge(reference: Path, location: str, late: bool = False) -> Verdict:
    """Compare all tables byte for byte after sorting, and look for what doctor finds now.

    ``late`` says that a server may have put something in place when nobody asked for it any more:
    what no record lists may lie there then.
    """
    verdict = Verdict()
    for finding in audit(Store.at(location)):
        said = f"{finding.run_id}: {finding.what}"
        stray = late and finding.what.endswith(STRAY)
        (verdict.came_late if stray else verdict.by_hand).append(said)
    verdict.by_hand += _litter(location)
    try:
        _compare(verdict, reference, location)
    except UserError as error:  # what a reader is told, and then has no table
        verdict.different.append(str(error))
    return verdict


def _compare(verdict: Verdict, reference: Path, location: str) -> None:
    """Take down how the tables of a store differ from those of the reference."""
    expected, found = open_store(reference), open_store(location)
    keys = {**{table: list(key) for table, key in SORT_KEYS.items()}, "runs": ["run_id"]}
    for table, key in keys.items():
        want, have = (_results(getattr(each, table)()).sort(key) for each in (expected, found))
        verdict.rows += want.height
        verdict.duplicated += have.height - have.select(key).n_unique()
        verdict.lost += want.join(have, on=key, how="anti", nulls_equal=True).height
        if _bytes(want) != _bytes(have):
            verdict.different.append(table)
    runs = found.runs().collect()
    ended = set(runs.filter(pl.col("status").is_in(["finished", "diverged"]))["run_id"])
    verdict.not_finished = sorted(set(expected.runs().collect()["run_id"]) - ended)


def _litter(location: str) -> list[str]:
    """Return what writers left aside in a folder that neither an end nor doctor would remove."""
    if "://" in location:
        return []
    runs = Path(location) / "runs"
    return [f"{path.relative_to(runs)} is left" for path in sorted(runs.rglob(".*.tmp"))]


def _results(table: pl.LazyFrame) -> pl.DataFrame:
    """Return what a run decides; measurements are of a model, and only commands make them."""
    measured = cs.starts_with(*MEASUREMENTS)
    return table.drop(BESIDE_THE_RESULT, strict=False).drop(measured).collect()


def _bytes(frame: pl.DataFrame) -> bytes:
    buffer = io.BytesIO()
    # In the oldest layout equal values have equal bytes: newer strings lie where they were read.
    frame.rechunk().write_ipc(buffer, compat_level=pl.CompatLevel.oldest())
    return buffer.getvalue()
