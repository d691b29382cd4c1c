"""A sweep, or all of a store, brought into another store, and what is to be said of that."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from sweeps.errors import UserError
from sweeps.files.whole_files import is_local
from sweeps.reading.closings import add_to_index
from sweeps.store.store import Store
from sweeps.upkeep.sizes import said
from sweeps.upkeep.transfer import Moved, Outcome, transfer
from sweeps.upkeep.versions_moved import bring_code, record_versions, wanted_of
from sweeps.versions.sweep_folder import Version

# Runs that are named one by one.
LISTED = 10
_WORDS: dict[Outcome, str] = {
    "brought": "brought",
    "begun": "brought without a result: they have not ended",
    "there": "there already",
    "differs": "have other rows here, which stay",
    "alive": "left: somebody is at them",
    "damaged": "left: damaged where they are",
}
# Of which the ids are said.
_NAMED: tuple[Outcome, ...] = ("differs", "alive", "damaged")


@dataclass
class Pulled:
    """What was brought from one store: versions of sweeps, and what became of each run."""

    source: str
    versions: list[Version]
    moved: list[Moved] = field(default_factory=list)

    @property
    def exit_code(self) -> int:
        return 1 if any(one.outcome == "damaged" for one in self.moved) else 0

    def page(self) -> dict[str, Any]:
        """Return it as JSON data."""
        return {
            "source": self.source,
            "versions": [f"{one.sweep}@{one.digest}" for one in self.versions],
            "bytes": sum(one.bytes for one in self.moved),
            "runs": {
                one.work_id: {"outcome": one.outcome, **({"why": one.why} if one.why else {})}
                for one in self.moved
            },
        }

    def lines(self) -> Iterator[str]:
        """Yield it in words, of any length."""
        names = sorted({one.sweep for one in self.versions})
        if names:
            count = len(self.versions)
            versions = "1 version" if count == 1 else f"{count} versions"
            yield f"from {self.source}: {versions} of {', '.join(names)}"
        else:
            yield f"from {self.source}: no version of a sweep that was not here"
        counts = Counter(one.outcome for one in self.moved)
        size = said(sum(one.bytes for one in self.moved))
        for outcome, words in _WORDS.items():
            if counts[outcome]:
                beside = f", {size}" if outcome == "brought" else ""
                yield f"{counts[outcome]:>8,} {words}{beside}{self._ids(outcome)}"
        yield from (f"{one.work_id}: {one.why}" for one in self.moved if one.why)

    def _ids(self, outcome: Outcome) -> str:
        ids = [one.work_id for one in self.moved if one.outcome == outcome]
        if outcome not in _NAMED:
            return ""
        return f": {', '.join(ids[:LISTED])}" + f" and {len(ids) - LISTED} more" * (
            len(ids) > LISTED
        )


def pull(
    source: Store,
    target: Store,
    sweep: str | None = None,
    *,
    weights: bool = False,
    watch: Callable[[Iterator[Moved], int], Iterator[Moved]] = lambda moved, _: moved,
) -> Pulled:
    """Bring a sweep, or everything, of one store into another and return what came of it.

    ``watch`` is given the outcomes as they come and how many there will be, and yields them on.
    Raises UserError where there is no such store or sweep, or both are one store.
    """
    _require_two(source, target)
    source.require_there(source.location)
    target.require_writable()
    target.identify()
    wanted = wanted_of(source.reading(), sweep)
    for version in wanted.versions:
        version.require_its_runs()
    bring_code(source, target, None if sweep is None else wanted.versions)
    pulled = Pulled(source.location, record_versions(source.reading(), target, wanted.versions))
    moved = transfer(source, target, wanted.work_ids, weights=weights)
    pulled.moved = list(watch(moved, len(wanted.work_ids)))
    add_to_index(target, [one.work_id for one in pulled.moved if one.outcome == "brought"])
    return pulled


def _require_two(source: Store, target: Store) -> None:
    """Raise UserError where two stores are one, or one lies in the other."""
    if source.location == target.location:
        raise UserError(f"{source.location}: is both stores; name two")
    if is_local(source.root) and is_local(target.root):
        one, other = source.root.resolve(), target.root.resolve()
        if one == other:
            raise UserError(f"{source.location}, {target.location}: are one store; name two")
        if one.is_relative_to(other) or other.is_relative_to(one):
            raise UserError(
                f"{source.location}, {target.location}: one lies in the other, and would count as"
                " part of it; name another folder"
            )
