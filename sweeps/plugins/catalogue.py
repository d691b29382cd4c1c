"""What a sweep has beside depthsweep's own: the files it lists, and what is installed.

Files are carried out when the sweep is read. Installed packages are asked only for a name that
nobody else has, so that a sweep without plugins imports none of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sweeps.errors import UserError, closest
from sweeps.plugins.bundle import Bundle, bundle_of
from sweeps.plugins.executing import execute
from sweeps.plugins.kinds import KINDS
from sweeps.plugins.marks import Mark, marks_in
from sweeps.plugins.packages import installed_marks
from sweeps.spec import PluginCode


@dataclass(frozen=True)
class Plugin:
    """One thing of a user's own, and the code that it is made by."""

    mark: Mark
    code: PluginCode


@dataclass
class Plugins:
    """What the files of a sweep bring, by kind and name, and the bundles they are."""

    bundles: tuple[Bundle, ...] = ()
    _found: dict[tuple[str, str], Plugin] = field(default_factory=dict)
    _asked: bool = False

    @classmethod
    def of_bundles(cls, bundles: Iterable[Bundle]) -> Plugins:
        """Carry bundles out; raise UserError for what is wrong with one, at its file and line."""
        found = cls(tuple(bundles))
        for bundle in found.bundles:
            marks = checked_marks(bundle)
            for mark in marks:
                found._add(Plugin(mark, bundle.code))
        return found

    def find(self, kind: str, name: str) -> Plugin | None:
        """Return what of a kind has a name; None where nothing has.

        Raises UserError for what is wrong with an installed package that could have it.
        """
        if (kind, name) not in self._found and not self._asked:
            self._asked = True
            for mark, code in installed_marks():
                KINDS[mark.kind].require(mark)
                # What a file of the sweep has is meant before what happens to be installed.
                there = self._found.get((mark.kind, mark.name))
                if there is None or not there.code.of_file:
                    self._add(Plugin(mark, code))
        return self._found.get((kind, name))

    def require(self, kind: str, name: str, own: Sequence[str], which: str = "") -> Plugin:
        """Return what has a name; raise UserError with the nearest of all there are."""
        found = self.find(kind, name)
        if found is None:
            hint = closest(name, [*own, *self.names(kind)]) if [*own, *self.names(kind)] else ""
            hint = hint or "a file that has it is listed under `plugins`"
            raise UserError(f"unknown {which or kind} {name!r}; {hint}")
        return found

    def names(self, kind: str) -> list[str]:
        """Return the names there are of a kind."""
        return [name for of, name in self._found if of == kind]

    def _add(self, plugin: Plugin) -> None:
        mark = plugin.mark
        other = self._found.get((mark.kind, mark.name))
        if other is not None:
            raise mark.mistake(f"has a name that {other.mark.where} has taken: choose another")
        self._found[mark.kind, mark.name] = plugin


def read_plugins(places: Sequence[Path]) -> Plugins:
    """Return what files bring; raise UserError for what is wrong with one, at its file and line."""
    return Plugins.of_bundles([bundle_of(place) for place in places])


def checked_marks(bundle: Bundle) -> list[Mark]:
    """Carry a bundle out and return what it brings, each fit to be used.

    Raises PluginMistake for what is not, or where there is nothing.
    """
    marks = marks_in(vars(execute(bundle)))
    for mark in marks:
        KINDS[mark.kind].require(mark)
    if not marks:
        raise UserError(
            f"{bundle.main}:1: brings nothing: mark what is depthsweep's with"
            f" {', '.join(f'@{kind}' for kind in KINDS)} of sweeps.plugins"
        )
    return marks
