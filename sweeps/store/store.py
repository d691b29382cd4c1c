"""Where everything of a store lies.

store.json                            the store's own id, and the layout of what is below
sweeps/<name>/spec.yaml, resolved.json
runs/<run_id>/run.json                what ran: resolved spec, model facts, versions, hardware
runs/<run_id>/attempts/<n>.json       whose (token, node, process), started, ended, cause
runs/<run_id>/<table>/part-<first>-<last>.parquet
runs/<run_id>/DONE.json               written last: status, row counts, checksums of the parts
measurements/<work_id>/               the same of a measurement, whose DONE.json has its ``result``
index/                                what is closed, made of the records: see ``sweeps.index``
cache/                                tokens, reference states, stand-ins, by content

The root is a local folder, or a URL of an object store: the same names are then keys of objects,
``ObjectPath`` takes the place of ``Path``, and the cache stays on the node.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import tempfile
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweeps.declaration.expand import Sweep
from sweeps.declaration.recorded_runs import RecordedRuns, sweep_record, wanted_measurements
from sweeps.declaration.track import Track
from sweeps.errors import UserError, closest
from sweeps.files.objects import ObjectFiles, ObjectPath
from sweeps.files.whole_files import (
    Place,
    create_json,
    read_if_readable,
    read_json,
    remove_folder,
    write_json,
    write_text,
)
from sweeps.node_cache import node_cache
from sweeps.spec import is_measurement
from sweeps.store.records import Status as Status
from sweeps.store.records import attempt_record, bury_result, closing_record, is_whole

if TYPE_CHECKING:
    from sweeps.files.mirror import Mirror

# Of the names below a store's root, raised with any change to them.
LAYOUT = 1
Ids = Collection[str] | None


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

    def reading(self, works: Ids = None) -> Store:
        """Return this store for reading now: of an object store its newest records, copied here.

        The records of ``works`` alone, by id, where it is given, and those of sweeps and the index:
        what the copy has of other runs may be old. Parts are copied when they are asked for.
        """
        if isinstance(self.root, Path):
            return self
        from sweeps.files.mirror import Mirror

        mirror = Mirror(self.root, node_cache() / "mirrors")
        mirror.refresh()
        store = Store(mirror.folder, mirror)
        store.look(works)
        return store

    def look(self, works: Ids, but: Collection[str] = (), *, parts: bool = False) -> None:
        """Bring the records of more work, and its ``parts`` if so, to a store that ``reading``
        returned: of all but some where ``works`` is None."""
        if self.mirror is not None:
            wanted = None if works is None else [_place_of(work_id) for work_id in works]
            self.mirror.look(wanted, {_place_of(work_id) for work_id in but}, parts=parts)

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
        return self.root / "sweeps" / name

    def sweep_names(self) -> list[str]:
        """Return the sweeps this store has run: a folder counts once its runs are recorded."""
        return sorted(path.parent.name for path in self.root.glob("sweeps/*/resolved.json"))

    def save_sweep(self, sweep: Sweep) -> None:
        """Record the sweep as written and as resolved; a later version replaces it."""
        folder = self.sweep_folder(sweep.name)
        write_text(folder / "spec.yaml", sweep.text)
        resolved = {
            "name": sweep.name,
            "recorded": datetime.now(UTC).isoformat(),
            "description": sweep.description,
            "measurements": list(sweep.measurements),
            "track": sweep.track.model_dump(mode="json", exclude_none=True),
            "runs": [
                {"run_id": run.run_id, "spec": run.model_dump(mode="json")} for run in sweep.runs
            ],
        }
        write_json(folder / "resolved.json", resolved)

    def load_sweep(self, name: str) -> Sweep:
        """Return a sweep this store has run; raise UserError listing those it has."""
        folder = self.sweep_folder(name)
        if not (folder / "resolved.json").is_file():
            names = self.sweep_names()
            hint = closest(name, names) if names else "it holds no sweep yet"
            raise UserError(f"store {self.location}: no sweep {name!r}; {hint}")
        try:
            resolved = sweep_record((folder / "resolved.json").read_bytes())
            runs = tuple(RecordedRuns(resolved["runs"]))
            text = (folder / "spec.yaml").read_text(encoding="utf-8")
            track = Track.model_validate_json(json.dumps(resolved.get("track", {})))
            wanted = wanted_measurements(resolved)
            return Sweep(name, resolved["description"], text, runs, wanted, track=track)
        except (OSError, ValueError, KeyError, TypeError) as error:
            detail = " ".join(str(error).split())[:200]
            raise UserError(
                f"{folder}: the record of sweep {name} cannot be read ({detail}); give the sweep"
                " file to `depthsweep run` again, which writes it anew"
            ) from None

    def newest_sweep(self) -> str:
        """Return the sweep that was run last; raise UserError where the store holds none."""
        names = self.sweep_names()
        if not names:
            why = "it holds no sweep; --all asks every run it has"
            raise UserError(f"store {self.location}: {why}")
        if len(names) == 1:
            return names[0]
        return max(names, key=lambda name: (self.sweep_record(name).get("recorded") or "", name))

    def strays(self) -> list[str]:
        """Return the runs that no sweep names, or names any more, by their ids in order."""
        named = {
            entry.get("run_id")
            for name in self.sweep_names()
            for entry in self.sweep_record(name).get("runs", ())
        }
        return [folder.run_id for folder in self.runs() if folder.run_id not in named]

    def sweep_record(self, name: str) -> dict[str, Any]:
        """Return what is recorded of a sweep; empty where it cannot be read."""
        with contextlib.suppress(OSError, ValueError):
            return sweep_record((self.sweep_folder(name) / "resolved.json").read_bytes())
        return {}

    # -------------------------------------------------------------------------------------- runs
    def run(self, run_id: str) -> RunFolder:
        return RunFolder(self.root / "runs" / run_id)

    def work(self, work_id: str) -> RunFolder:
        """Return the folder of a run or of a measurement, whichever the id is of."""
        return RunFolder(self.root / _place_of(work_id))

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
        if self.mirror is not None:  # the copy has but what was asked for
            names = self.mirror.names(room)
        elif isinstance(folder, ObjectPath):
            names = folder.names()
        else:
            names = os.listdir(folder) if folder.is_dir() else []
        return [RunFolder(folder / name) for name in sorted(names)]

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
        bury_result(self.path)
        (self.path / "DONE.json").unlink(missing_ok=True)
        self.forget_checkpoints()
        self.forget_rows_after(0)


def _place_of(work_id: str) -> str:
    """Return where a run or measurement lies below the root."""
    return f"{'measurements' if is_measurement(work_id) else 'runs'}/{work_id}"


def name_in(folder: RunFolder, path: Place) -> str:
    """Return the path of a run's file as the run's records name it: steps/part-…."""
    return str(path).removeprefix(f"{folder.path}/")
