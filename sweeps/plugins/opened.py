"""The plugins of this process, by the digest of their code: read once, then at hand.

A worker is told a digest. The code comes from what this process has read, else from whoever knows
where it is kept; it is looked at again before it is used.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from sweeps.errors import UserError
from sweeps.plugins.bundle import Bundle, bundle_of
from sweeps.plugins.catalogue import checked_marks
from sweeps.plugins.marks import Mark, PluginMistake, on_one_line
from sweeps.plugins.packages import marks_of_code, require_installed
from sweeps.spec import PluginCode, RunSpec

Fetch = Callable[[str], Bundle | None]
_bundles: dict[str, Bundle] = {}
_marks: dict[str, list[Mark]] = {}


def remember(bundles: Iterable[Bundle]) -> None:
    """Have bundles at hand, without carrying them out."""
    for bundle in bundles:
        _bundles.setdefault(bundle.digest, bundle)


def bundles_of(run: RunSpec) -> list[Bundle]:
    """Return the bundles that a run needs, as far as they are at hand."""
    return [_bundles[c.plugin_digest] for c in codes_of(run) if c.plugin_digest in _bundles]


def codes_of(part: Any) -> list[PluginCode]:
    """Return the code that a specification names anywhere in it, each once."""
    found: dict[str, PluginCode] = {}
    for code in _walk(part):
        found.setdefault(code.plugin_digest, code)
    return list(found.values())


def _walk(part: Any) -> Iterator[PluginCode]:
    if isinstance(part, PluginCode):
        yield part
    elif isinstance(part, BaseModel):
        for name in type(part).model_fields:
            yield from _walk(getattr(part, name))
    elif isinstance(part, tuple):
        for one in part:
            yield from _walk(one)


def open_plugins(run: RunSpec, fetch: Fetch) -> None:
    """Carry out the code that a run needs, where this process has not.

    ``fetch`` returns a bundle by its digest, or None. Raises UserError for code that is not to be
    found, is not what the run was planned with, or does not work here.
    """
    for code in codes_of(run):
        if code.plugin_digest in _marks:
            continue
        if not code.of_file:
            _marks[code.plugin_digest] = marks_of_code(code)
            continue
        bundle = _bundles.get(code.plugin_digest) or fetch(code.plugin_digest) or _beside(code)
        if bundle is None:
            raise _gone(code)
        if bundle.digest != code.plugin_digest:
            raise UserError(
                f"{code.plugin}: its code in the store is not what the run was planned with; run"
                " the sweep file again, which puts it there"
            )
        remember([bundle])
        _marks[code.plugin_digest] = checked_marks(bundle)


def require_at_hand(runs: Iterable[RunSpec]) -> None:
    """Raise UserError unless this process could open the code that runs need; opens none of it."""
    codes = {code.plugin_digest: code for run in runs for code in codes_of(run)}
    for code in codes.values():
        if not code.of_file:
            require_installed(code)
        elif code.plugin_digest not in _bundles and _beside(code) is None:
            raise _gone(code)


def _gone(code: PluginCode) -> UserError:
    return UserError(
        f"{code.plugin}: the code that the run was planned with is not in the store; run the sweep"
        " file again, which puts it there"
    )


def _beside(code: PluginCode) -> Bundle | None:
    """Return the file itself, where it is here and still says what it said."""
    try:
        found = bundle_of(Path(code.plugin))
    except UserError:
        return None
    return found if found.digest == code.plugin_digest else None


def opened(code: PluginCode, kind: str, name: str) -> Mark:
    """Return what of a kind has a name in code that is open; raise UserError where nothing has."""
    for mark in _marks.get(code.plugin_digest, ()):
        if (mark.kind, mark.name) == (kind, name):
            return mark
    if code.plugin_digest not in _marks and code.plugin_digest in _bundles:
        _marks[code.plugin_digest] = checked_marks(_bundles[code.plugin_digest])
        return opened(code, kind, name)
    raise UserError(f"{code.plugin}: has no {kind} {name!r}")


@contextmanager
def naming_own_code(run: RunSpec) -> Iterator[None]:
    """Surround what uses the code of a run: an exception that arose in it says in which file and
    line. What only the machine is to blame for, as memory that is full, stays what it was."""
    try:
        yield
    except (UserError, MemoryError, OSError):
        raise
    except Exception as error:
        place = _place_in(run, error)
        if place is None or type(error).__name__ == "OutOfMemoryError":
            raise
        raise PluginMistake(f"{place}: {on_one_line(error)}") from error


def _place_in(run: RunSpec, error: Exception) -> str | None:
    """Return the innermost file and line of a run's own code that an error passed through."""
    own = {mark.file for code in codes_of(run) for mark in _marks.get(code.plugin_digest, ())}
    for bundle in bundles_of(run):
        own |= {bundle.path_of(name) for name in bundle.files}
    inside = [f for f in traceback.extract_tb(error.__traceback__) if f.filename in own]
    return f"{inside[-1].filename}:{inside[-1].lineno}" if inside else None
