"""Plugins of installed packages: what they offer under ``depthsweep.plugins``, and their digest."""

from __future__ import annotations

import hashlib
import importlib
import importlib.metadata
import importlib.util
from collections.abc import Iterator
from pathlib import Path

from sweeps.errors import UserError
from sweeps.plugins.marks import Mark, PluginMistake, marks_in, on_one_line
from sweeps.spec import PluginCode

GROUP = "depthsweep.plugins"


def installed_marks() -> Iterator[tuple[Mark, PluginCode]]:
    """Yield what installed packages offer; raise UserError for one that cannot be imported."""
    for entry in entry_points():
        code = code_of(entry)
        for mark in marks_of(entry):
            yield mark, code


def entry_points() -> list[importlib.metadata.EntryPoint]:
    """Return the entry points there are, in the order of their packages and names."""
    found = importlib.metadata.entry_points(group=GROUP)
    return sorted(found, key=lambda entry: (distribution_of(entry), entry.name))


def distribution_of(entry: importlib.metadata.EntryPoint) -> str:
    """Return the name of the installed package that has an entry point."""
    return entry.dist.name if entry.dist is not None else entry.module.split(".")[0]


def marks_of(entry: importlib.metadata.EntryPoint) -> list[Mark]:
    """Import what an entry point names, and return what it brings."""
    try:
        module = importlib.import_module(entry.module)
    except PluginMistake:
        raise
    except (Exception, SystemExit) as error:
        raise UserError(
            f"package {distribution_of(entry)}: its plugins ({entry.value}) cannot be imported:"
            f" {on_one_line(error)}; mend or uninstall it"
        ) from error
    return marks_in(vars(module))


def code_of(entry: importlib.metadata.EntryPoint) -> PluginCode:
    """Return the code of an entry point: its package's version, and every file of the folder that
    its module is in, whether it is installed or linked to."""
    digest = hashlib.sha256()
    version = entry.dist.version if entry.dist is not None else ""
    for name, content in [("", version.encode()), *_files_of(entry)]:
        for part in (name.encode(), content):
            digest.update(len(part).to_bytes(8, "big") + part)
    return PluginCode(plugin=distribution_of(entry), plugin_digest=digest.hexdigest())


def _files_of(entry: importlib.metadata.EntryPoint) -> Iterator[tuple[str, bytes]]:
    top = entry.module.split(".")[0]
    spec = importlib.util.find_spec(top)
    if spec is None:
        raise UserError(f"package {distribution_of(entry)}: {top}, which it offers, is not there")
    folders = [Path(place) for place in spec.submodule_search_locations or ()]
    if not folders and spec.origin is not None:
        yield f"{top}.py", Path(spec.origin).read_bytes()
    for folder in folders:
        for path in sorted(folder.rglob("*")):
            inside = path.relative_to(folder)
            hidden = any(part.startswith(".") or part == "__pycache__" for part in inside.parts)
            if path.is_file() and not hidden and path.suffix != ".pyc":
                yield inside.as_posix(), path.read_bytes()


def marks_of_code(code: PluginCode) -> list[Mark]:
    """Return what the installed package brings that a run was planned with; raise UserError as
    ``require_installed`` does."""
    return [mark for entry in require_installed(code) for mark in marks_of(entry)]


def require_installed(code: PluginCode) -> list[importlib.metadata.EntryPoint]:
    """Return the entry points of the code that a run was planned with, importing none of it.

    Raises UserError where its package is not installed here, or is another version.
    """
    entries = [entry for entry in entry_points() if distribution_of(entry) == code.plugin]
    if not entries:
        raise UserError(
            f"package {code.plugin}, whose plugins the run uses, is not installed here: install it"
            " on every node"
        )
    alike = [entry for entry in entries if code_of(entry).plugin_digest == code.plugin_digest]
    if not alike:
        raise UserError(
            f"package {code.plugin} is another one here than the run was planned with; install"
            " that on every node, or run the sweep file again, which makes new runs of it"
        )
    return alike
