"""A user's file with what it imports beside itself: as text, by content, to be sent anywhere.

What is beside a file is what Python would find there first: ``import near`` is ``near.py`` or the
folder ``near`` in the file's own folder. Of a folder every ``.py`` file goes along. Modules of the
standard library and of depthsweep are never beside.
"""

from __future__ import annotations

import ast
import hashlib
import json
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from sweeps.errors import UserError
from sweeps.plugins.marks import PluginMistake
from sweeps.spec import PluginCode

# Of which a study in a checkout of depthsweep has folders beside it.
OURS = ("sweeps", "workers", "orchestrator", "cluster")
MOST_BYTES = 4 * 2**20


@dataclass(frozen=True)
class Bundle:
    """A file and what it imports beside itself.

    Attributes:
        main: the file, in full; where it came from, for messages.
        files: the text of each file by its path below the main file's folder; "" is the main one.
    """

    main: str
    files: dict[str, str] = field(repr=False)

    @cached_property
    def digest(self) -> str:
        """SHA-256 over the names of what lies beside, and all contents; not what it is called or
        where it lies itself."""
        digest = hashlib.sha256()
        for name, text in sorted(self.files.items()):
            for part in (name.encode(), text.encode()):
                digest.update(len(part).to_bytes(8, "big") + part)
        return digest.hexdigest()

    @property
    def code(self) -> PluginCode:
        return PluginCode(plugin=self.main, plugin_digest=self.digest)

    @property
    def folder(self) -> Path:
        return Path(self.main).parent

    def path_of(self, name: str) -> str:
        """Return the path that one of its files had."""
        return str(self.folder / name) if name else self.main

    @property
    def module(self) -> str:
        """The name of the main file as a module's."""
        return re.sub(r"\W", "_", Path(self.main).stem)

    @property
    def beside(self) -> frozenset[str]:
        """The modules that it imports from beside itself, and itself."""
        found = {name.split("/")[0].removesuffix(".py") for name in self.files if name}
        return frozenset(found | ({self.module} - {*OURS, *sys.stdlib_module_names}))

    def as_text(self) -> str:
        return json.dumps({"main": self.main, "files": self.files}, indent=1, sort_keys=True) + "\n"

    @classmethod
    def of_text(cls, text: str) -> Bundle:
        """Return the bundle that ``as_text`` wrote; raise ValueError where it did not."""
        data = json.loads(text)
        if not isinstance(data, dict) or not isinstance(data.get("files"), dict):
            raise ValueError("not the code of a plugin")
        files = data["files"]
        if "" not in files or not all(isinstance(one, str) for one in files.values()):
            raise ValueError("not the code of a plugin")
        return cls(str(data["main"]), files)


def bundle_of(path: Path) -> Bundle:
    """Read a file and what it imports beside itself.

    Raises UserError where one of them cannot be read, or is not Python, with its line.
    """
    main = path.absolute()
    files = {"": _text_of(main)}
    waiting = [""]
    while waiting:
        name = waiting.pop()
        here = main if not name else main.parent / name
        for module in _imported(files[name], here, name):
            for found in _beside(main, module):
                if found not in files:
                    files[found] = _text_of(main.parent / found)
                    waiting.append(found)
        if sum(map(len, files.values())) > MOST_BYTES:
            raise UserError(f"{main}: with what it imports beside itself it has more than 4 MiB")
    return Bundle(str(main), files)


def _text_of(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8")
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; give the path of a .py file") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: is not UTF-8 text; save it as such") from None


def _imported(text: str, path: Path, name: str) -> Iterator[str]:
    """Yield the first word of each module that a text imports from the main file's folder."""
    try:
        tree = ast.parse(text, str(path))
    except (SyntaxError, ValueError) as error:
        line = getattr(error, "lineno", None) or 1
        said = getattr(error, "msg", None) or str(error)
        raise PluginMistake(f"{path}:{line}: not Python: {said}") from None
    inside = name.count("/")
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.module.split(".")[0]
        elif isinstance(node, ast.ImportFrom) and node.level == inside + 1:
            names = [node.module] if node.module else [alias.name for alias in node.names]
            yield from (one.split(".")[0] for one in names)


def _beside(main: Path, module: str) -> list[str]:
    """Return the files that a module of this name is beside the main file; none where it is not."""
    if module in OURS or module in sys.stdlib_module_names or module == main.stem:
        return []
    folder = main.parent / module
    if folder.is_dir():
        inside = sorted(folder.rglob("*.py"))
        found = [path.relative_to(main.parent) for path in inside]
        shown = [one.as_posix() for one in found if not any(p.startswith(".") for p in one.parts)]
        if shown:
            return shown
    return [f"{module}.py"] if (main.parent / f"{module}.py").is_file() else []
