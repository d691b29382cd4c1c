"""Records in a folder that many may want to create or replace, and one may: the server decides.

A file system makes names exclusively and renames them once, also over a network, whatever a client
remembers of a folder. So a record is created as a hard link, which fails where the name is taken.
And beside a record that may be replaced lies its *seal*, a hidden name that ends in the record's
version:

    3.json                                      the record
    .3.json~<writer's token>~<time>-<who>       its seal

Whoever replaces the record first renames the seal from the version that was seen to a new one. Of
several who saw the same version one succeeds: the others' name is not there any more. A new version
without new content is that rename alone, which is how a heart beats. A record that will not be
replaced any more has no seal.

What is left of a crash between the two steps is a new seal beside the old content: it counts as a
record of that version, as whoever renamed it is its owner.
"""

from __future__ import annotations

import errno
import os
import secrets
import time
from pathlib import Path

from sweeps.files.whole_files import aside_of, create_aside, sync_folder

MARK = "~"
UNIQUE = 8


def create(path: Path, data: bytes, token: str | None = None) -> str | None:
    """Make a record if there is none; return its version, or None where another one is there.

    With a ``token``, the writer's own, it can be replaced, and the version is the name of its seal;
    without one the version is "". Raises OSError where the file system cannot make hard links.
    """
    aside = _seal(path, token, token) if token else aside_of(path)
    create_aside(aside, data)
    try:
        os.link(aside, path)
    except FileExistsError:
        # Over a network the answer to our own link may have been lost.
        if not _same(aside, path):
            aside.unlink(missing_ok=True)
            return None
    except BaseException:
        aside.unlink(missing_ok=True)
        raise
    if not token:
        aside.unlink(missing_ok=True)
    sync_folder(path.parent)
    return aside.name if token else ""


def replace_if(
    path: Path, data: bytes | None, version: str, by: str, *, last: bool = False
) -> str | None:
    """Replace a record if it has the version still; return the new one, or None where it has not.

    ``by`` names in the new version who made it. Without ``data`` only the version is new. After the
    ``last`` replacement there is no other, and the version is "".
    """
    if not version:
        return None
    aside = None
    if data is not None:
        aside = aside_of(path)
        try:
            create_aside(aside, data)
        except FileNotFoundError:  # the folder itself is gone
            return None
    seal = _seal(path, version.split(MARK)[1], by)
    try:
        if not _rename(path.with_name(version), seal):
            return None
        if aside is not None:
            try:
                aside.replace(path)
            except FileNotFoundError:  # put away as a leftover, or with its folder: see ``left``
                return None
            sync_folder(path.parent)
    finally:
        if aside is not None:
            aside.unlink(missing_ok=True)
    if last:
        seal.unlink(missing_ok=True)
    return "" if last else seal.name


def versions(folder: Path) -> dict[str, str]:
    """Return the version of each record of a folder that may be replaced, by its file name."""
    try:
        names = os.listdir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return {}
    # Of a claimant that died between its seal and its link the seal is left: it is another token's.
    found: dict[str, list[str]] = {}
    for name in names:
        if name.startswith(".") and name.count(MARK) == 2:
            found.setdefault(name[1:].split(MARK)[0], []).append(name)
    return {
        name: seals[0] if len(seals) == 1 else _own(folder / name, seals)
        for name, seals in found.items()
        if name in names
    }


def left(folder: Path) -> list[Path]:
    """Return what lies beside the records of a folder that none of them needs any more.

    That is what was on its way into the place of one, where nothing is expected of its writer, and
    of numbered records the seals of all but the newest: nobody replaces an older one.
    """
    try:
        names = os.listdir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return []
    numbers = {name: _number(name) for name in names if name.endswith(".json")}
    newest = max((n for name, n in numbers.items() if not name.startswith(".")), default=0)
    return [
        folder / name
        for name in sorted(names)
        if name.startswith(".")
        and (name.endswith(".tmp") or (name.count(MARK) == 2 and 0 < _number(name) < newest))
    ]


def _number(name: str) -> int:
    stem = name.lstrip(".").split(".")[0]
    return int(stem) if stem.isdecimal() else 0


def made(version: str) -> float | None:
    """Return when a version was made, in seconds since 1970 by its maker's clock."""
    try:
        return int(version.split(MARK)[2].split("-")[0][:-UNIQUE], 16) / 1e9
    except (IndexError, ValueError):
        return None


def maker(version: str) -> str | None:
    """Return who made a version."""
    return version.rpartition("-")[2] if version.count(MARK) == 2 else None


def _own(path: Path, seals: list[str]) -> str:
    """Return which of several seals is of the record, by the token that the record names."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        text = ""
    return next((seal for seal in sorted(seals) if seal.split(MARK)[1] in text), "")


def _seal(path: Path, token: str, by: str) -> Path:
    return path.with_name(f".{path.name}{MARK}{token}{MARK}{time.time_ns():x}{_unique()}-{by}")


def _unique() -> str:
    return secrets.token_hex(UNIQUE // 2)


def _rename(seen: Path, new: Path) -> bool:
    """Rename a seal; return whether it was still there, also where the answer was lost."""
    try:
        os.rename(seen, new)
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ESTALE, errno.ENOTDIR):
            raise
        return new.exists()
    return True


def _same(one: Path, other: Path) -> bool:
    try:
        return os.path.samefile(one, other)
    except FileNotFoundError:
        return False
