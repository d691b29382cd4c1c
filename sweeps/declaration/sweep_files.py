"""Where sweep files are, those that come with depthsweep too, and the claims beside them."""

from __future__ import annotations

import os
from pathlib import Path

from sweeps.errors import UserError, closest

LIBRARY = Path(__file__).resolve().parents[1] / "library"


def shipped_sweeps() -> dict[str, Path]:
    """Return the sweeps that come with depthsweep: the name and the file of each, sorted."""
    return {file.stem: file for file in sorted(LIBRARY.glob("*.yaml")) if "." not in file.stem}


def sweep_file_of(given: str | Path) -> Path:
    """Return the file that is meant: a path, or the name of one that comes with depthsweep, which
    no folder of that name hides.

    Raises UserError for a word that is neither.
    """
    path = Path(given)
    is_path = os.sep in str(given) or path.suffix or len(path.parts) != 1
    if is_path or (path.exists() and not path.is_dir()):
        return path
    shipped = shipped_sweeps()
    if path.name not in shipped:
        raise UserError(
            f"{given}: {what_is_there(given)}, and none of that name comes with depthsweep;"
            f" {closest(path.name, list(shipped))}"
        )
    return shipped[path.name]


def what_is_there(given: str | Path) -> str:
    """Return why what was typed is no sweep file, where none is of that name."""
    return "is a folder, no sweep file" if Path(given).is_dir() else "no such sweep file"


def claims_files(sweep_file: Path) -> tuple[Path, Path]:
    """Return where claims about a sweep may stand, the first that is there counts: of its own in
    ``study.claims.yaml`` beside ``study.yaml``, or in ``claims.yaml`` for all of the folder."""
    return sweep_file.with_suffix(".claims.yaml"), sweep_file.with_name("claims.yaml")


def claims_beside(sweep_file: Path) -> str | None:
    """Return the text of the claims about a sweep; None where there are none."""
    for path in claims_files(sweep_file):
        if path.is_file():
            try:
                return path.read_text(encoding="utf-8")
            except (OSError, ValueError) as error:
                raise UserError(f"{path}: cannot be read as text ({error})") from None
    return None
