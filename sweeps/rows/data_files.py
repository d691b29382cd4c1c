"""Which files a local dataset is: one, several, those of a folder, of a pattern, or of a dataset
that ``datasets`` has saved; in an order that no file system decides."""

from __future__ import annotations

import glob
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sweeps.errors import UserError, closest
from sweeps.rows.row_files import COMPRESSIONS, FORMATS

# What ``datasets`` leaves beside the data, of one table and of several splits.
SAVED_TABLE, SAVED_SPLITS = "state.json", "dataset_dict.json"


def data_files(path: Path, split: str | None) -> tuple[Path, ...]:
    """Return the files of the dataset at a path, sorted by name, or as a saved dataset lists them.

    A path that is there is taken for what it is; only of one that is not are ``*``, ``?`` and
    ``[…]`` a pattern. Raises UserError where there is nothing, or files of unlike formats.
    """
    if path.is_dir():
        saved = _saved(path, split)
        if saved is not None:
            return saved
        found = sorted(one for one in path.iterdir() if one.is_file() and _is_data(one))
        if not found:
            raise UserError(f"{path}: holds no data file ({', '.join(FORMATS)})")
    elif path.exists():
        found = [path]
    else:
        found = sorted(Path(one) for one in glob.glob(str(path)) if Path(one).is_file())
        if not found:
            raise UserError(f"{path}: no such file; give the path relative to the sweep file")
    if split is not None:
        raise UserError(
            f"{path}: `split` names a part of a dataset saved by `datasets`; this has none"
        )
    return require_alike(found)


def require_alike(files: Sequence[Path]) -> tuple[Path, ...]:
    """Return files of one dataset; raise UserError where their formats differ."""
    forms = {_form(path): path for path in reversed(files)}
    if len(forms) > 1:
        one, other = list(forms.values())[:2]
        raise UserError(f"{one} and {other.name} are of unlike formats; name the files of one")
    return tuple(files)


def _form(path: Path) -> str:
    suffixes = [suffix.lower() for suffix in path.suffixes if suffix.lower() not in COMPRESSIONS]
    return suffixes[-1] if suffixes else ""


def _is_data(path: Path) -> bool:
    return not path.name.startswith((".", "_")) and _form(path) in FORMATS


def _saved(folder: Path, split: str | None) -> tuple[Path, ...] | None:
    """Return the Arrow files of a dataset that was saved; None where the folder is none."""
    if (folder / SAVED_SPLITS).is_file():
        names = [str(name) for name in _json(folder / SAVED_SPLITS).get("splits", [])]
        if split is None and len(names) > 1:
            raise UserError(f"{folder}: has the splits {', '.join(names)}; say which: `split:`")
        chosen = split or (names[0] if names else "")
        if chosen not in names:
            raise UserError(f"{folder}: has no split {chosen!r}; {closest(chosen, names)}")
        return _saved(folder / chosen, None)
    if not (folder / SAVED_TABLE).is_file():
        return None
    if split is not None:
        raise UserError(f"{folder}: is one table, without splits; leave out `split`")
    listed = _json(folder / SAVED_TABLE).get("_data_files") or []
    files = tuple(folder / str(one.get("filename")) for one in listed if isinstance(one, dict))
    missing = [file.name for file in files if file.parent != folder or not file.is_file()]
    if missing or not files:
        named = missing[0] if missing else "a data file"
        raise UserError(f"{folder}: lacks {named}, which {SAVED_TABLE} names; save it again")
    return files


def _json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read: {' '.join(str(error).split())}") from None
    return value if isinstance(value, dict) else {}
