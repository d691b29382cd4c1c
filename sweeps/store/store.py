"""Where everything of a store lies.

store.json                            the store's own id, and the layout of what is below
sweeps/<name>/versions/<digest>/       every version that was run: see ``sweeps.versions``
runs/<run_id>/run.json                what ran: resolved spec, model facts, versions, hardware
runs/<run_id>/attempts/<n>.json       whose (token, node, process), started, ended, cause
runs/<run_id>/<table>/part-<first>-<last>.parquet
runs/<run_id>/DONE.json               written last: status, row counts, checksums of the parts
measurements/<work_id>/               the same of a measurement, whose DONE.json has its ``result``
cache/                                tokens, reference states, stand-ins, by content

The root is a local folder, or a URL of an object store: the same names are then keys of objects,
``ObjectPath`` takes the place of ``Path``, and the cache stays on the node.
"""

from __future__ import annotations

import os
import secrets
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweeps.declaration.expand import Sweep
from sweeps.errors import UserError, closest
from sweeps.files.objects import ObjectFiles, ObjectPath
from sweeps.files.whole_files import (
    Place,
    create_json,
    read_if_readable,
    read_json,
    remove_folder,
    write_json,
)
from sweeps.node_cache import node_cache
from sweeps.spec import is_measurement
from sweeps.store.records import Status as Status
from sweeps.store.records import attempt_record, closing_record, is_whole
from sweeps.versions.sweep_folder import SweepFolder, Version, sweep_folders
from sweeps.versions.version_id import SweepName

if TYPE_CHECKING:
    from sweeps.files.mirror import Mirror

# Of the names below a store's root, raised with any change to them.
LAYOUT = 1


@dataclass(frozen=True)
class Store:
    """Sweeps, runs and caches below one root; ``mirror`` where it is a copy for reading."""

    root: Place
    mirror: Mirror | None = field(default=None, compare=False, repr=False)

    @classmethod
    def at(cls, location: str, *, waits: bool = False) -> Store:
        """Return the store at a path or URL; raise UserError for what cannot be one.

        ``waits`` is for a worker: an object store that is out of reach is then waited for from the
        first request on.
        """
        if "://" in location:
            return cls(ObjectPath(ObjectFiles(location, waits=waits)))
        root = Path(location).expanduser().absolute()
        if root.exists() and not root.is_dir():
            raise UserError(f"--store {location}: is a file; give a folder")
        return cls(root)

    @property
    def location(self) -> str:
        """The path or URL of the store, also of one that is read through a mirror."""
        return str(self.root) if self.mirror is None else self.mirror.url

    def reading(self) -> Store:
        """Return this store for reading now: of an object store its newest records, copied here.

        Parts are copied by ``bring`` when they are asked for.
        """
        if isinstance(self.root, Path):
            return self
        from sweeps.files.mirror import Mirror

        mirror = Mirror(self.root, node_cache() / "mirrors")
        mirror.refresh()
        return Store(mirror.folder, mirror)

    @property
    def source(self) -> Store:
        """The store itself, also of one that is read through a mirror: what lives changes there."""
        return self if self.mirror is None else Store(self.mirror.root)

    def bring(self, parts: Iterable[str]) -> None:
        """See to it that parts, given by local path, are on this machine if the store has them."""
        if self.mirror is not None:
            self.mirror.bring(parts)

    def require_writable(self) -> None:
        """Raise UserError unless files can be made here; leaves nothing behind."""
        if isinstance(self.root, ObjectPath):
            probe = self.root / f"writable-{secrets.token_hex(8)}"
            probe.write_bytes(b"")
            probe.unlink()
            return
        folder = self.root
        while not folder.exists():
            folder = folder.parent
        try:
            with tempfile.TemporaryFile(dir=folder):
                pass
        except OSError as error:
            raise UserError(
                f"--store {self.root}: cannot be written ({error.strerror}); choose another folder"
            ) from None

    def identify(self) -> str:
        """Return the store's own id, which the first command that runs something gives it.

        A worker is told it: a folder of the same path that has another one, or none, is not this
        store but a node's own disk where the shared one is not mounted.
        """
        path = self.root / "store.json"
        new = {"id": secrets.token_hex(8), "layout": LAYOUT}
        if isinstance(path, Path):
            create_json(path, new)
        elif not path.exists():
            write_json(path, new)
        return str(read_json(path)["id"])

    def complaint(self, expected: str) -> str | None:
        """Return what is wrong with the store as this process sees it, for one that should have the
        id ``expected``, and can write it; None where nothing is. Makes no folder."""
        shared = "mount it on every node, or give a URL such as s3://bucket/prefix"
        try:
            said = read_if_readable(self.root / "store.json")
            if said is None or said.get("id") != expected:
                return f"{self.location} is not the store that the driver sees: {shared}"
            self.require_writable()
        except (OSError, UserError) as error:
            return f"{self.location}: {' '.join(str(error).split())}"
        return None

    # ------------------------------------------------------------------------------------ sweeps
    def sweep_folder(self, name: str) -> Place:
        """Return the folder of a sweep, also for ``name@digest``: a version lies in it."""
        return self.root / "sweeps" / SweepName.parse(name).name

    def sweep_names(self) -> list[str]:
        """Return the sweeps this store has run: a folder counts once its runs are recorded."""
        return [folder.name for folder in sweep_folders(self.root)]

    def versions(self) -> Iterator[Version]:
        """Yield every version of every sweep that was run, by name, the newest first."""
        for folder in sweep_folders(self.root):
            yield from folder.versions()

    def save_sweep(self, sweep: Sweep) -> None:
        """Record the sweep as written and as resolved, as the current version of its name."""
        SweepFolder(self.sweep_folder(sweep.name)).save(sweep)

    def version(self, name: str) -> Version:
        """Return the version of a sweep that ``name`` or ``name@digest`` means; without a digest
        the one that was run last. Raise UserError listing what there is."""
        wanted = SweepName.parse(name)
        found = SweepFolder(self.sweep_folder(name)).version(wanted)
        if found is None:
            names = self.sweep_names()
            hint = closest(wanted.name, names) if names else "it holds no sweep yet"
            raise UserError(f"store {self.location}: no sweep {wanted.name!r}; {hint}")
        return found

    def load_sweep(self, name: str) -> Sweep:
        """Return a sweep this store has run; raise UserError listing those it has."""
        return self.version(name).load()

    def newest_sweep(self) -> str:
        """Return the sweep that was run last; raise UserError where the store holds none."""
        found = [(folder.current(), folder.name) for folder in sweep_folders(self.root)]
        if not found:
            raise UserError(
                f"store {self.location}: it holds no sweep; --all asks every run it has"
            )
        return max((current.recorded if current else "", name) for current, name in found)[1]

    def strays(self) -> list[str]:
        """Return the runs that no version of any sweep names, by their ids in order."""
        named = {run_id for version in self.versions() for run_id in version.run_ids}
        return [folder.run_id for folder in self.runs() if folder.run_id not in named]

    # -------------------------------------------------------------------------------------- runs
    def run(self, run_id: str) -> RunFolder:
        return RunFolder(self.root / "runs" / run_id)

    def work(self, work_id: str) -> RunFolder:
        """Return the folder of a run or of a measurement, whichever the id is of."""
        room = "measurements" if is_measurement(work_id) else "runs"
        return RunFolder(self.root / room / work_id)

    def known(self, work_id: str) -> RunFolder:
        """Return what the store has a folder of; raise UserError naming the nearest otherwise."""
        measured = is_measurement(work_id)
        known = [folder.run_id for folder in (self.measurements() if measured else self.runs())]
        if work_id not in known:
            what = "measurement" if measured else "run"
            hint = closest(work_id, known) if known else f"it holds no {what} yet"
            raise UserError(f"store {self.location}: no {what} {work_id!r}; {hint}")
        return self.work(work_id)

    def runs(self) -> list[RunFolder]:
        """Return every run the store has a folder of, in order of run id."""
        return self._folders("runs")

    def measurements(self) -> list[RunFolder]:
        """Return every measurement the store has a folder of, in order of id."""
        return self._folders("measurements")

    def _folders(self, room: str) -> list[RunFolder]:
        folder = self.root / room
        if isinstance(folder, ObjectPath):
            return [RunFolder(path) for path in sorted(folder.iterdir())]
        return [RunFolder(path) for path in sorted(folder.iterdir())] if folder.is_dir() else []

    @property
    def cache(self) -> Path:
        """Where what can be made again is kept: in the store, or on this node for a URL."""
        return self.root / "cache" if isinstance(self.root, Path) else node_cache()


@dataclass(frozen=True)
class RunFolder:
    """What the store holds of one run, or of one measurement."""

    path: Place

    @property
    def run_id(self) -> str:
        """The id of the run, or of the measurement."""
        return self.path.name

    def record(self) -> dict[str, Any] | None:
        """Return what ran, or None where no attempt got that far or it cannot be read."""
        record = read_if_readable(self.path / "run.json")
        if record is None or not is_whole(record):
            return None
        return record if all(isinstance(record.get(k), dict) for k in ("spec", "facts")) else None

    def done(self) -> dict[str, Any] | None:
        """Return the closing record, or None where there is none that can be read."""
        return closing_record(read_if_readable(self.path / "DONE.json"))

    def attempts(self) -> list[dict[str, Any]]:
        """Return the attempts in order, each with its number under ``attempt``."""
        return [self.attempt(number) for number in self.attempt_numbers()]

    def newest_attempt(self) -> dict[str, Any] | None:
        """Return the last of ``attempts`` without reading the others."""
        numbers = self.attempt_numbers()
        return self.attempt(numbers[-1]) if numbers else None

    def attempt_numbers(self) -> list[int]:
        place = self.path / "attempts"
        try:
            names = (
                os.listdir(place) if isinstance(place, Path) else place.files.children(place.key)
            )
        except FileNotFoundError:
            return []
        stems = [name.removesuffix(".json") for name in names if name.endswith(".json")]
        return sorted(int(stem) for stem in stems if stem.isdecimal())

    def attempt(self, number: int) -> dict[str, Any]:
        """Return one of ``attempts``; what is not there, or cannot be read, says nothing."""
        return attempt_record(number, read_if_readable(self.attempt_path(number)))

    def attempt_path(self, number: int) -> Place:
        return self.path / "attempts" / f"{number}.json"

    def log_path(self, number: int) -> Place:
        return self.path / "logs" / f"attempt-{number}.log"

    def part_path(self, table: str, first: int, last: int) -> Place:
        return self.path / table / f"part-{first:06d}-{last:06d}.parquet"

    def parts(self, table: str) -> list[Place]:
        return sorted((self.path / table).glob("part-*.parquet"))

    def checkpoint_path(self, step: int) -> Place:
        return self.path / "checkpoints" / f"step-{step:06d}"

    def checkpoint_steps(self) -> list[int]:
        """Return the steps of complete checkpoints, oldest first: those that have a manifest."""
        folder = self.path / "checkpoints"
        if isinstance(folder, ObjectPath):
            manifests = folder.glob("step-*/manifest.json")
            return sorted(int(path.parent.name.removeprefix("step-")) for path in manifests)
        try:  # a glob takes ten times as long, and recovery asks this of every unfinished run
            names = [name for name in os.listdir(folder) if name.startswith("step-")]
        except FileNotFoundError:
            return []
        complete = [name for name in names if os.path.exists(f"{folder}/{name}/manifest.json")]
        return sorted(int(name.removeprefix("step-")) for name in complete)

    @staticmethod
    def last_step_of(part: Place) -> int:
        """Return the last step whose rows a part holds, from its name."""
        return int(part.stem.split("-")[2])

    def forget_rows_after(self, step: int) -> None:
        """Remove parts with rows beyond ``step``, whole or torn: the next attempt writes them."""
        from sweeps.store.schema import TABLES

        for table in TABLES:
            for path in [*self.parts(table), *(self.path / table).glob(".*.tmp")]:
                if path.suffix == ".tmp" or self.last_step_of(path) > step:
                    path.unlink(missing_ok=True)

    def fence(self) -> None:
        """Take from earlier attempts what they are about to put in place.

        A writer asks whether it still owns the run between writing a temporary file and renaming
        it. One that was stopped there, for however long, finds its file gone when it goes on. On
        an object store there is nothing to take: the PUT follows the question at once.
        """
        if isinstance(self.path, ObjectPath):
            return
        for path in self.path.rglob(".*.tmp"):
            if path.parent.name != "attempts":  # others may be claiming a number just now
                path.unlink(missing_ok=True)
        for path in (self.path / "checkpoints").glob(".step-*"):
            shutil.rmtree(path, ignore_errors=True)

    def forget_checkpoints(self) -> None:
        remove_folder(self.path / "checkpoints")

    def forget(self) -> None:
        """Remove everything; from the first moment on, no reader counts what is being removed."""
        self.forget_results()
        remove_folder(self.path)

    def forget_results(self) -> None:
        """Remove the closing record, then all that a run from the start replaces."""
        (self.path / "DONE.json").unlink(missing_ok=True)
        self.forget_checkpoints()
        self.forget_rows_after(0)


def name_in(folder: RunFolder, path: Place) -> str:
    """Return the path of a run's file as the run's records name it: steps/part-…."""
    return str(path).removeprefix(f"{folder.path}/")
