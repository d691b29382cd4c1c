"""What goes along with a job: the sweep file, what it names here, the user's code and this one."""

from __future__ import annotations

import contextlib
import glob
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from sweeps.declaration.entries.plugged import CARRIED
from sweeps.declaration.expand import Sweep, SweepFile
from sweeps.declaration.sweep_files import claims_files
from sweeps.errors import UserError

# Where Ray unpacks working directories, below its own folder of a node.
IN_A_JOB = "/runtime_resources/working_dir_files/"
PACKAGES = ("sweeps", "workers", "orchestrator", "cluster")


def local_files(file: SweepFile) -> list[str]:
    """Return the files and folders a sweep names relative to itself.

    Raises UserError for one outside the sweep file's folder: it would not be found on a cluster.
    """
    spec = file.spec
    named = [entry.folder for entry in spec.models.values()]
    evaluated = (spec.evaluation, *(entry.evaluation for entry in spec.objectives.values()))
    for data in (
        spec.probe.data,
        *(entry.data for entry in spec.objectives.values()),
        *(data for entry in evaluated if entry is not None for data in entry.datasets),
    ):
        for name in data.file if isinstance(data.file, list) else [data.file]:
            named += [name] if name is None else _meant(name, file.path.parent)
    inside = []
    for name in named:
        # An absolute path is meant as it stands: a place that every node sees.
        if name is None or Path(name).expanduser().is_absolute():
            continue
        if ".." in Path(name).parts:
            raise UserError(
                f"{file.path}: {name} lies outside the folder of the sweep file and cannot go"
                " along to a cluster; move it there, or give an absolute path all nodes see"
            )
        inside.append(name)
    return sorted(set(inside))


def local_plugins(file: SweepFile) -> list[str]:
    """Return the files of the user's own code that a sweep names relative to itself. Their text
    goes along to a cluster of the Jobs API, wherever they lie."""
    return [name for name in file.spec.plugins if not Path(name).expanduser().is_absolute()]


def _meant(name: str, folder: Path) -> list[str]:
    """Return the files that a name stands for: itself, or those that match it as a pattern."""
    if Path(name).expanduser().is_absolute() or (folder / name).exists():
        return [name]
    found = glob.glob(name, root_dir=folder)
    return found or [name]


def came_along(sweep: Sweep) -> str | None:
    """Return a file of a recorded sweep that lay in a job's working directory, gone with it."""
    for run in sweep.runs:
        for source in (run.model.source, *run.datasets.values()):
            place = getattr(source, "folder", None) or getattr(source, "file", None)
            if place is not None and IN_A_JOB in place:
                return Path(place).name
    return None


@contextlib.contextmanager
def working_directory(file: SweepFile | None, with_code: bool) -> Iterator[Path]:
    """Yield a folder with what a job needs: a sweep as it was read, what it names, and
    ``with_code`` these packages."""
    with tempfile.TemporaryDirectory(prefix="depthsweep-job-") as name:
        folder = Path(name)
        if file is not None:
            (folder / file.path.name).write_text(file.source.text, encoding="utf-8")
            for path in claims_files(file.path):
                if path.is_file():
                    shutil.copy2(path, folder)
            if file.code is not None:
                (folder / CARRIED).write_text(file.code, encoding="utf-8")
            for named in local_files(file):
                # Whole but for what no digest counts: it is looked at again over there.
                _copy(file.path.parent / named, folder / named, "__pycache__", ".*")
        if with_code:
            here = Path(__file__).resolve().parents[2]
            for package in PACKAGES:
                _copy(here / package, folder / package, "__pycache__", "*.pyc", ".*", "*.png")
        yield folder


def _copy(source: Path, target: Path, *ignored: str) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        left_out = shutil.ignore_patterns(*ignored)
        shutil.copytree(source, target, ignore=left_out, dirs_exist_ok=True)
    else:
        shutil.copy2(source, target)
