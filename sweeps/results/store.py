"""Where everything of a store lies, and how a file gets there whole or not at all.

sweeps/<name>/spec.yaml, resolved.json
runs/<run_id>/run.json                what ran: resolved spec, model facts, versions, hardware
runs/<run_id>/attempts/<n>.json       started, node, ended, cause
runs/<run_id>/<table>/part-<first>-<last>.parquet
runs/<run_id>/DONE.json               written last: status, row counts, checksums of the parts
cache/                                tokens, reference states, stand-ins, by content
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from sweeps.errors import UserError, closest
from sweeps.expand import Sweep
from sweeps.spec import RunSpec

Status = Literal["finished", "diverged", "failed"]


@dataclass(frozen=True)
class Store:
    """A folder of sweeps, runs and caches."""

    root: Path

    @classmethod
    def at(cls, location: str) -> Store:
        """Return the store at a path; raise UserError for what cannot be one."""
        if "://" in location:
            raise UserError(f"--store {location}: a store is a local folder; give its path")
        root = Path(location).expanduser().absolute()
        if root.exists() and not root.is_dir():
            raise UserError(f"--store {location}: is a file; give a folder")
        return cls(root)

    def require_writable(self) -> None:
        """Raise UserError unless files can be made here; leaves nothing behind."""
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

    # ------------------------------------------------------------------------------------ sweeps
    def sweep_folder(self, name: str) -> Path:
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
            "description": sweep.description,
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
            raise UserError(f"store {self.root}: no sweep {name!r}; {hint}")
        resolved = read_json(folder / "resolved.json")
        runs = tuple(
            RunSpec.model_validate_json(json.dumps(entry["spec"])) for entry in resolved["runs"]
        )
        text = (folder / "spec.yaml").read_text(encoding="utf-8")
        return Sweep(name, resolved["description"], text, runs)

    # -------------------------------------------------------------------------------------- runs
    def run(self, run_id: str) -> RunFolder:
        return RunFolder(self.root / "runs" / run_id)

    def known_run(self, run_id: str) -> RunFolder:
        """Return a run the store has a folder of; raise UserError naming the nearest otherwise."""
        known = [folder.run_id for folder in self.runs()]
        if run_id not in known:
            hint = closest(run_id, known) if known else "it holds no run yet"
            raise UserError(f"store {self.root}: no run {run_id!r}; {hint}")
        return self.run(run_id)

    def runs(self) -> list[RunFolder]:
        """Return every run the store has a folder of, in order of run id."""
        folder = self.root / "runs"
        return [RunFolder(path) for path in sorted(folder.iterdir())] if folder.is_dir() else []

    @property
    def cache(self) -> Path:
        return self.root / "cache"


@dataclass(frozen=True)
class RunFolder:
    """What the store holds of one run."""

    path: Path

    @property
    def run_id(self) -> str:
        return self.path.name

    def record(self) -> dict[str, Any] | None:
        return _read_if_there(self.path / "run.json")

    def done(self) -> dict[str, Any] | None:
        """Return the closing record, or None while the run has not ended."""
        return _read_if_there(self.path / "DONE.json")

    def attempts(self) -> list[dict[str, Any]]:
        """Return the attempts in order, each with its number under ``attempt``."""
        found = (self.path / "attempts").glob("[0-9]*.json")
        paths = sorted(found, key=lambda path: int(path.stem))
        return [{"attempt": int(path.stem), **read_json(path)} for path in paths]

    def attempt_path(self, number: int) -> Path:
        return self.path / "attempts" / f"{number}.json"

    def log_path(self, number: int) -> Path:
        return self.path / "logs" / f"attempt-{number}.log"

    def part_path(self, table: str, first: int, last: int) -> Path:
        return self.path / table / f"part-{first:06d}-{last:06d}.parquet"

    def parts(self, table: str) -> list[Path]:
        return sorted((self.path / table).glob("part-*.parquet"))

    def checkpoint_path(self, step: int) -> Path:
        return self.path / "checkpoints" / f"step-{step:06d}"

    def checkpoint_steps(self) -> list[int]:
        """Return the steps of complete checkpoints, oldest first: those that have a manifest."""
        manifests = (self.path / "checkpoints").glob("step-*/manifest.json")
        return sorted(int(path.parent.name.removeprefix("step-")) for path in manifests)

    @staticmethod
    def last_step_of(part: Path) -> int:
        """Return the last step whose rows a part holds, from its name."""
        return int(part.stem.split("-")[2])

    def forget_rows_after(self, step: int) -> None:
        """Remove parts with rows beyond ``step``, whole or torn: the next attempt writes them."""
        from sweeps.results.schema import TABLES

        for table in TABLES:
            for path in [*self.parts(table), *(self.path / table).glob(".*.tmp")]:
                if path.suffix == ".tmp" or self.last_step_of(path) > step:
                    path.unlink(missing_ok=True)

    def forget_checkpoints(self) -> None:
        shutil.rmtree(self.path / "checkpoints", ignore_errors=True)

    def forget_results(self) -> None:
        """Remove the closing record, then all that a run from the start replaces."""
        (self.path / "DONE.json").unlink(missing_ok=True)
        self.forget_checkpoints()
        self.forget_rows_after(0)


# ------------------------------------------------------------------------------ whole files only
@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; on success it is synced and takes its place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder beside ``path``; it takes its place, unless one is there by then."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    try:
        yield temporary
        if not path.exists():
            temporary.replace(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_text(path: Path, text: str) -> None:
    with whole_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, data: Any) -> None:
    write_text(path, json.dumps(data, indent=1, sort_keys=True) + "\n")


def create_json(path: Path, data: Any) -> bool:
    """Write a file whole if no other is there; return whether it is ours.

    Of several that try at once exactly one succeeds: a hard link to an existing name fails.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump(data, file, indent=1, sort_keys=True)
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())
        os.link(name, path)
    except FileExistsError:
        return False
    finally:
        os.unlink(name)
    return True


def read_json(path: Path) -> dict[str, Any]:
    data = json.loads(path.read_text(encoding="utf-8"))
    assert isinstance(data, dict)
    return data


def _read_if_there(path: Path) -> dict[str, Any] | None:
    return read_json(path) if path.is_file() else None


def file_checksum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
