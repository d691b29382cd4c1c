"""Sweeps of one store recorded in another, every version of them, and which runs they need."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sweeps.files.records import put_new
from sweeps.files.trees import copy_file
from sweeps.spec import MEASUREMENTS, measurements_of
from sweeps.store.store import Store
from sweeps.versions.plugin_code import keep_code, kept_code, kept_digests
from sweeps.versions.sweep_folder import (
    CLAIMS,
    CURRENT,
    HEADER,
    RESOLVED,
    SPEC,
    VERSIONS,
    SweepFolder,
    Version,
)
from sweeps.versions.version_id import SweepName

# What belongs to a sweep whatever its version, and goes where it goes: see ``run_cards``.
BESIDE = ("tracking.json",)


@dataclass(frozen=True)
class Wanted:
    """The versions of sweeps that are to be brought, and the ids of all that they are about."""

    versions: tuple[Version, ...]
    work_ids: tuple[str, ...]


def wanted_of(store: Store, sweep: str | None) -> Wanted:
    """Return what there is to bring of a store: of one sweep, or of all of it with the runs and
    measurements that no sweep names.

    ``name@digest`` is that version alone. Raises UserError for a sweep that is not there.
    """
    if sweep is None:
        every = [folder.run_id for folder in (*store.runs(), *store.measurements())]
        return Wanted(tuple(store.versions()), tuple(every))
    newest = store.version(sweep)
    if SweepName.parse(sweep).version is not None:
        versions = [newest]
    else:
        versions = SweepFolder(store.sweep_folder(sweep)).versions()
    there = {folder.run_id for folder in (*store.runs(), *store.measurements())}
    ids: dict[str, None] = {}
    for version in versions:
        runs = version.load().runs
        ids |= dict.fromkeys(run.run_id for run in runs)
        ids |= dict.fromkeys(one.work_id for one in measurements_of(runs, MEASUREMENTS))
    return Wanted(tuple(versions), tuple(work_id for work_id in ids if work_id in there))


def record_versions(source: Store, target: Store, versions: Iterable[Version]) -> list[Version]:
    """Record versions of sweeps in a store that has not got them, and return those.

    A sweep that the store knows keeps its current version; of another the current one is the
    source's, if it is among them.
    """
    brought: list[Version] = []
    by_name: dict[str, list[Version]] = {}
    for version in versions:
        by_name.setdefault(version.sweep, []).append(version)
    for name, found in by_name.items():
        folder = SweepFolder(target.sweep_folder(name))
        known = {version.digest for version in folder.versions()}
        for version in found:
            if version.digest not in known:
                _record(version, folder)
                brought.append(version)
        old = SweepFolder(source.sweep_folder(name))
        beside = [*BESIDE, *(() if known or not _names_one_of(old, found) else (CURRENT,))]
        for file in beside:
            if (old.path / file).is_file():
                put_new(folder.path / file, (old.path / file).read_bytes())
    return brought


def bring_code(source: Store, target: Store, versions: Iterable[Version] | None) -> None:
    """Have a store keep the users' code that runs of versions are made by; all of the source's
    where ``versions`` is None. What is damaged there is left."""
    if versions is None:
        wanted = set(kept_digests(source.root))
    else:
        wanted = {digest for version in versions for digest in version.plugin_digests}
    found = [kept_code(source.root, digest) for digest in sorted(wanted)]
    keep_code(target.root, [bundle for bundle in found if bundle is not None])


def _names_one_of(folder: SweepFolder, versions: Sequence[Version]) -> bool:
    current = folder.current()
    return current is not None and current.digest in {version.digest for version in versions}


def _record(version: Version, folder: SweepFolder) -> None:
    """Write a version's files into its folder; the one that makes it count last."""
    place = folder.path / VERSIONS / version.digest
    for name in (SPEC, CLAIMS, HEADER, RESOLVED):
        if (version.folder / name).is_file():
            copy_file(version.folder / name, place / name)
