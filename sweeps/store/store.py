"""Where everything of a store lies.

store.json                            the store's own id, and the layout of what is below
sweeps/<name>/spec.yaml, resolved.json
runs/<run_id>/run.json                what ran: resolved spec, model facts, versions, hardware
runs/<run_id>/attempts/<n>.json       whose (token, node, process), started, ended, cause
runs/<run_id>/checkpoints/step-<step>.<attempt>/       complete when its manifest.json is there
runs/<run_id>/<table>/part-<first>-<last>.<attempt>.parquet
runs/<run_id>/DONE.json               created last and once: status, rows and checksums of the parts
measurements/<work_id>/               the same of a measurement, whose DONE.json has its ``result``
cache/                                tokens, reference states, stand-ins, by content

Tables and checkpoints are named after the attempt that wrote them, as in ``a2-1f2e3d4c``: number
and token. So no attempt replaces what is another's, and what counts is what a checkpoint's manifest
or DONE.json lists; there is one part a table then. Stores of layout 1 had names without attempts.

The root is a local folder, or a URL of an object store: the same names are then keys of objects,
``ObjectPath`` takes the place of ``Path``, and the cache stays on the node.
"""

from __future__ import annotations

import json
import secrets
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweeps.declaration.expand import Sweep
from sweeps.declaration.track import Track
from sweeps.errors import UserError, closest
from sweeps.files.capability import shortcoming
from sweeps.files.objects import ObjectFiles, ObjectPath
from sweeps.files.records import create
from sweeps.files.whole_files import (
    Place,
    children,
    is_local,
    read_if_readable,
    read_json,
    write_json,
    write_text,
)
from sweeps.node_cache import node_cache
from sweeps.spec import (
    MEASUREMENTS,
    USUAL_MEASUREMENTS,
    MeasurementKind,
    RunSpec,
    is_measurement,
)
from sweeps.store.records import Status as Status
from sweeps.store.run_folder import RunFolder as RunFolder
from sweeps.store.run_folder import name_in as name_in

if TYPE_CHECKING:
    from sweeps.files.mirror import Mirror

# Of the names below a store's root, raised with any change to them.
LAYOUT = 2


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
        if is_local(self.root):
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
        if not is_local(self.root):
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
        self._make_root()
        self._require_capable()
        if not path.exists():
            create(path, {"id": secrets.token_hex(8), "layout": self._layout_found()})
        return str(read_json(path)["id"])

    def _make_root(self) -> None:
        if is_local(self.root):
            self.root.mkdir(parents=True, exist_ok=True)

    def _layout_found(self) -> int:
        """Return the layout of what is there already: stores of layout 1 had no record at first."""
        return 1 if any(children(self.root / "runs")) else LAYOUT

    def _require_capable(self) -> None:
        """Raise UserError where the place cannot keep what a store relies on."""
        try:
            lacking = shortcoming(self.root)
        except OSError as error:
            raise UserError(f"--store {self.location}: {' '.join(str(error).split())}") from None
        if lacking is not None:
            raise UserError(f"--store {lacking}")

    def complaint(self, expected: str, *, thorough: bool = False) -> str | None:
        """Return what is wrong with the store as this process sees it, for one that should have the
        id ``expected``, and can write it; None where nothing is. Makes no folder of the store.

        ``thorough`` tries all that a store relies on, as each node does once.
        """
        shared = "mount it on every node, or give a URL such as s3://bucket/prefix"
        try:
            said = read_if_readable(self.root / "store.json")
            if said is None or said.get("id") != expected:
                return f"{self.location} is not the store that the driver sees: {shared}"
            self.require_writable()
            if thorough:
                return shortcoming(self.root)
        except UserError as error:  # it says where
            return str(error).removeprefix("--store ")
        except OSError as error:
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
            resolved = read_json(folder / "resolved.json")
            runs = tuple(
                RunSpec.model_validate_json(json.dumps(entry["spec"])) for entry in resolved["runs"]
            )
            text = (folder / "spec.yaml").read_text(encoding="utf-8")
            track = Track.model_validate_json(json.dumps(resolved.get("track", {})))
            wanted = _wanted(resolved)
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
            raise UserError(
                f"store {self.location}: it holds no sweep; --all asks every run it has"
            )
        return max(names, key=lambda name: (self._resolved(name).get("recorded") or "", name))

    def strays(self) -> list[str]:
        """Return the runs that no sweep names, or names any more, by their ids in order."""
        named = {
            entry.get("run_id")
            for name in self.sweep_names()
            for entry in self._resolved(name).get("runs", ())
        }
        return [folder.run_id for folder in self.runs() if folder.run_id not in named]

    def _resolved(self, name: str) -> dict[str, Any]:
        record = read_if_readable(self.sweep_folder(name) / "resolved.json")
        return record if isinstance(record, dict) else {}

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
        return [RunFolder(path) for path in children(self.root / room)]

    @property
    def cache(self) -> Path:
        """Where what can be made again is kept: in the store, or on this node for a URL."""
        return self.root / "cache" if is_local(self.root) else node_cache()


def _wanted(resolved: dict[str, Any]) -> tuple[MeasurementKind, ...]:
    """Return what a sweep wants measured; a record of before there was a choice has no word."""
    said = resolved.get("measurements", USUAL_MEASUREMENTS)
    if unknown := set(said) - set(MEASUREMENTS):
        raise ValueError(f"measurements: {', '.join(sorted(map(str, unknown)))}")
    return tuple(kind for kind in MEASUREMENTS if kind in said)
