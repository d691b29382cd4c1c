"""A bundle's code carried out from its text, and from nothing else.

What runs is what was digested: no file is read again, none that is not in the bundle is found, and
two versions of one file live side by side in a process, since each is a package of its own name.
"""

from __future__ import annotations

import builtins
import contextlib
import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import sys
import traceback
from collections.abc import Mapping, Sequence
from types import CodeType, ModuleType
from typing import Any

from sweeps.plugins.bundle import Bundle
from sweeps.plugins.marks import PluginMistake, on_one_line

PREFIX = "depthsweep_plugin_"
_bundles: dict[str, Bundle] = {}


def package_of(bundle: Bundle) -> str:
    """Return the name of the package that a bundle's modules are in."""
    return f"{PREFIX}{bundle.digest[:20]}"


def execute(bundle: Bundle) -> ModuleType:
    """Return the main module of a bundle, carried out once a process.

    Raises PluginMistake, with file and line, for whatever it raises.
    """
    package = package_of(bundle)
    main = f"{package}.{bundle.module}"
    if main in sys.modules:
        return sys.modules[main]
    _bundles[package] = bundle
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())
    try:
        # What it prints is no answer of a command; where it goes, no path of a user's leads from.
        with contextlib.redirect_stdout(sys.stderr), contextlib.chdir("."):
            return importlib.import_module(main)
    except PluginMistake:
        _forget(package)
        raise
    except (Exception, SystemExit) as error:
        _forget(package)
        raise PluginMistake(f"{_place(error, bundle)}: {on_one_line(error)}") from error


def _forget(package: str) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == package]:
        del sys.modules[name]


def _place(error: BaseException, bundle: Bundle) -> str:
    """Return the file and line of a bundle at which an error arose."""
    own = {bundle.path_of(name) for name in bundle.files}
    if isinstance(error, SyntaxError) and error.filename in own:
        return f"{error.filename}:{error.lineno or 1}"
    frames = traceback.extract_tb(error.__traceback__)
    inside = [frame for frame in frames if frame.filename in own]
    return f"{inside[-1].filename}:{inside[-1].lineno}" if inside else f"{bundle.main}:1"


class _Finder(importlib.abc.MetaPathFinder):
    """Finds the modules of bundles by the package they are in."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        del path, target
        package, *inner = fullname.split(".")
        bundle = _bundles.get(package)
        if bundle is None:
            return None
        name = _file_of(bundle, inner)
        folder = "/".join(inner)
        is_folder = name == f"{folder}/__init__.py" or not inner
        if name is None and any(file.startswith(f"{folder}/") for file in bundle.files):
            is_folder = True
        elif name is None and inner:
            return None
        loader = _Loader(bundle, name)
        return importlib.util.spec_from_loader(fullname, loader, is_package=is_folder)


def _file_of(bundle: Bundle, inner: Sequence[str]) -> str | None:
    """Return the name in a bundle of a module of its package; None where it is no file."""
    if not inner:
        return None
    if list(inner) == [bundle.module]:
        return ""
    path = "/".join(inner)
    return next((n for n in (f"{path}/__init__.py", f"{path}.py") if n in bundle.files), None)


class _Loader(importlib.abc.InspectLoader):
    """Loads one module from a bundle's text; a folder without ``__init__.py`` has none."""

    def __init__(self, bundle: Bundle, name: str | None) -> None:
        self._bundle, self._name = bundle, name

    def is_package(self, fullname: str) -> bool:
        del fullname
        return self._name is None or self._name.endswith("/__init__.py")

    def get_source(self, fullname: str) -> str:
        """Return the text, also for whoever shows lines of it."""
        del fullname
        return "" if self._name is None else self._bundle.files[self._name]

    def get_code(self, fullname: str) -> CodeType:
        path = self._bundle.path_of(self._name or "")
        return compile(self.get_source(fullname), path, "exec", dont_inherit=True)

    def exec_module(self, module: ModuleType) -> None:
        # Names that a statement imports are looked for beside the file first, and only there
        # where they are: another version's module of the same name is another module.
        names = {**vars(builtins), "__import__": _importer(self._bundle)}
        module.__dict__["__builtins__"] = names
        exec(self.get_code(module.__name__), module.__dict__)


def _importer(bundle: Bundle) -> Any:
    package, beside = package_of(bundle), bundle.beside

    def import_beside(
        name: str,
        globals: Mapping[str, Any] | None = None,
        locals: Mapping[str, Any] | None = None,
        fromlist: Sequence[str] | None = (),
        level: int = 0,
    ) -> ModuleType:
        first = name.partition(".")[0]
        if level or first not in beside:
            return builtins.__import__(name, globals, locals, fromlist or (), level)
        own = f"{package}.{name}"
        if fromlist:
            return builtins.__import__(own, globals, locals, fromlist, 0)
        importlib.import_module(own)
        return sys.modules[f"{package}.{first}"]

    return import_beside
