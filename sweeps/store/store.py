"""Where everything of a store lies.

store.json                            the store's own id, and the layout of what is below
sweeps/<name>/versions/<digest>/       every version that was run: see ``sweeps.versions``
runs/<run_id>/run.json                what ran: resolved spec, model facts, versions, hardware
runs/<run_id>/attempts/<n>.json       whose (token, node, process), started, ended, cause
runs/<run_id>/checkpoints/step-<step>.<attempt>/       complete when its manifest.json is there
runs/<run_id>/<table>/part-<first>-<last>.<attempt>.parquet
runs/<run_id>/DONE.json               created last and once: status, rows and checksums of the parts
measurements/<work_id>/               the same of a measurement, whose DONE.json has its ``result``
plugins/<digest>.json                 the user's own code that runs use: see ``sweeps.versions``
index/                                what is closed, made of the records: see ``sweeps.index``
cache/                                tokens, reference states, stand-ins, by content

Tables and checkpoints are named after the attempt that wrote them, as in ``a2-1f2e3d4c``: number
and token. So no attempt replaces what is another's, and what counts is what a checkpoint's manifest
or DONE.json lists; there is one part a table then. Stores of layout 1 had names without attempts.

The root is a local folder, or a URL of an object store: the same names are then keys of objects,
``ObjectPath`` takes the place of ``Path``, and the cache stays on the node.
"""

from __future__ import annotations

import secrets
import tempfile
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from sweeps.declaration.expand import Sweep
from sweeps.errors import UserError, closest
from sweeps.files.objects import ObjectFiles, ObjectPath
from sweeps.files.records import create
from sweeps.files.whole_files import (
    Place,
    children,
    is_local,
    read_if_readable,
    read_json,
)
from sweeps.leases.capability import shortcoming
from sweeps.node_cache import node_cache
from sweeps.spec import is_measurement
from sweeps.store.records import Status as Status
from sweeps.store.run_folder import RunFolder
from sweeps.versions.plugin_code import keep_code
from sweeps.versions.sweep_folder import SweepFolder, Version, sweep_folders
from sweeps.versions.version_id import SweepName

if TYPE_CHECKING:
    from sweeps.files.mirror import Mirror

# Of the names below a store's root, raised with any change to them.
LAYOUT = 2
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
        if not location.strip():
            raise UserError("--store: is empty; give a folder or a URL (. is the current folder)")
        if "://" in location:
            return cls(ObjectPath(ObjectFiles(location, waits=waits)))
        try:
            root = Path(location).expanduser().absolute()
        except RuntimeError:
            raise UserError(
                f"--store {location}: this machine knows no such user; write the folder out"
            ) from None
        if root.is_symlink() and not root.exists():
            raise UserError(
                f"--store {location}: is a link to {root.readlink()}, which is not there; make"
                " that folder, or give another one"
            )
        if root.exists() and not root.is_dir():
            raise UserError(f"--store {location}: is a file; give a folder")
        above = next((one for one in root.parents if one.exists()), None)
        if above is not None and not above.is_dir():
            raise UserError(f"--store {location}: {above} is a file; give a folder")
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
        if is_local(self.root):
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
        wrong = self.wrong_identity()
        if wrong is not None:
            raise UserError(f"{path}: {wrong}; `depthsweep doctor --fix` makes a new one")
        return str(read_json(path)["id"])

    def wrong_identity(self) -> str | None:
        """Return what is wrong with ``store.json``, None where nothing is, or it is not there."""
        path = self.root / "store.json"
        if not path.exists():
            return None
        said = read_if_readable(path) or {}
        known = isinstance(said.get("id"), str) and isinstance(said.get("layout"), int)
        return None if known else "does not say the store's id and layout"

    def identify_anew(self) -> None:
        """Write ``store.json`` again, with a new id."""
        (self.root / "store.json").unlink(missing_ok=True)
        self.identify()

    def _make_root(self) -> None:
        if is_local(self.root):
            self.root.mkdir(parents=True, exist_ok=True)

    def _layout_found(self) -> int:
        """Return the layout of what is there already: stores of layout 1 had no record at first."""
        return 1 if any(folder.is_of_layout_1() for folder in self.runs()) else LAYOUT

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
    def require_there(self, said: str | None = None) -> None:
        """Raise UserError unless this is a store that a command has written to: a name that was
        mistyped is not an empty store. ``said`` is how the user named it, by default --store."""
        said = said or f"--store {self.location}"
        if not self.root.is_dir():
            raise UserError(f"{said}: no such folder; give the store that a run wrote to")
        rooms = (self.root / "sweeps", self.root / "runs")
        if not any(room.is_dir() for room in rooms) and not self._is_empty() and not self.runs():
            raise UserError(
                f"{said}: holds neither runs/ nor sweeps/, so it is no store; give"
                " the folder that --store named when the sweep ran"
            )

    def _is_empty(self) -> bool:
        """Return whether a command has made it, and nothing was put into it yet."""
        return (self.root / "store.json").is_file()

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
        """Record the sweep as written and as resolved, as the current version of its name, once
        the code that its runs use is there."""
        keep_code(self.root, sweep.plugins)
        SweepFolder(self.sweep_folder(sweep.name)).save(sweep)

    def version(self, name: str) -> Version:
        """Return the version of a sweep that ``name`` or ``name@digest`` means; without a digest
        the one that was run last. Raise UserError listing what there is."""
        wanted = SweepName.parse(name)
        inside = "/" not in wanted.name  # else it would be a path, to wherever that leads
        found = SweepFolder(self.sweep_folder(name)).version(wanted) if inside else None
        if found is None:
            self.require_there()
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
        """Return the runs that no version of any sweep names, by their ids in order.

        Raises UserError where a version cannot be read: its runs are no strays.
        """
        versions = list(self.versions())
        for version in versions:
            version.require_its_runs()
        named = {run_id for version in versions for run_id in version.run_ids}
        return [folder.run_id for folder in self.runs() if folder.run_id not in named]

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
            self.require_there()
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
            return [RunFolder(folder / name) for name in sorted(self.mirror.names(room))]
        return [RunFolder(path) for path in children(folder)]

    @property
    def cache(self) -> Path:
        """Where what can be made again is kept: in the store, or on this node for a URL."""
        return self.root / "cache" if is_local(self.root) else node_cache()


def _place_of(work_id: str) -> str:
    """Return where a run or measurement lies below the root."""
    return f"{'measurements' if is_measurement(work_id) else 'runs'}/{work_id}"
