"""Which tests run a function: seen once, in a run without a fault, so that a trial asks only these.

Each function of the files says that it is called, by a line that is added to it as the file is
imported: a profiler, which hears of every call of every library, takes tens of times as long.

A test that never calls the function with the fault cannot notice it. What runs at import (defaults,
constants, the bodies of classes) is in every test's reach. Functions that another process runs are
not seen here: a fault that only a test of whole processes would notice counts as a survivor, and so
does one that only a slow test beyond the first thirty seconds of tests would notice.
"""

from __future__ import annotations

import ast
import builtins
import os
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import CodeType

import pytest

# What a trial may take, in seconds of a processor: of the tests that reach a fault, the last ones
# are not asked beyond it.
MOST_SECONDS = 30.0
# What a function of a surveyed file calls.
CALLED = "__called_in_a_survey__"


class Survey:
    """A pytest plugin: how long each test takes, and which functions of some files it calls."""

    def __init__(self, root: Path, files: Collection[str]) -> None:
        self._now: set[str] = set()
        _say_what_is_called({str(root / file): file for file in files}, self._note)
        self._of_fixture: dict[str, set[str]] = {}
        self.tests: dict[str, tuple[float, list[str]]] = {}
        self.failed: list[str] = []

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef) -> Iterator[None]:
        """A fixture of a session runs once: what it calls counts for all who use it."""
        with self._recorded() as called:
            result = yield
        self._of_fixture.setdefault(fixturedef.argname, set()).update(called)
        return result

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item) -> Iterator[None]:
        began = processor_seconds()
        with self._recorded() as called:
            result = yield
        called |= {one for name in item.fixturenames for one in self._of_fixture.get(name, ())}
        self.tests[item.nodeid] = (processor_seconds() - began, sorted(called))
        return result

    def pytest_runtest_logreport(self, report) -> None:
        if report.failed:
            self.failed.append(report.nodeid)

    @contextmanager
    def _recorded(self) -> Iterator[set[str]]:
        before, self._now = self._now, set()
        called = self._now
        try:
            yield called
        finally:
            before |= called
            self._now = before

    def _note(self, function: str) -> None:
        self._now.add(function)


def _say_what_is_called(paths: dict[str, str], say: Callable[[str], None]) -> None:
    """Have the functions of files, imported from now on, say their file and first line."""
    setattr(builtins, CALLED, say)
    get_code = SourceFileLoader.get_code

    def told(loader: SourceFileLoader, name: str) -> CodeType | None:
        path = loader.get_filename(name)
        if path not in paths:
            return get_code(loader, name)
        # Not through compiled files: those are for all who import the module.
        return compile(_telling(Path(path).read_text(), paths[path]), path, "exec")

    SourceFileLoader.get_code = told


def _telling(text: str, file: str) -> ast.Module:
    tree = ast.parse(text)
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            line = ast.parse(f"{CALLED}({f'{file}:{_first_line(node)}'!r})").body[0]
            for part in ast.walk(line):
                ast.copy_location(part, node.body[0])
            node.body.insert(1 if ast.get_docstring(node) is not None else 0, line)
    return tree


def _first_line(node: ast.FunctionDef) -> int:
    """Return the line of a function's first decorator, or of its name."""
    return min([node.lineno, *(d.lineno for d in node.decorator_list)])


def processor_seconds() -> float:
    """Return what this process and those it has waited for have used: no machine is idle."""
    used = os.times()
    return used.user + used.system + used.children_user + used.children_system


class Chosen:
    """A pytest plugin that runs the tests it is given, in that order, and any that is new."""

    def __init__(self, wanted: Sequence[str], known: Collection[str]) -> None:
        self._place = {test: k for k, test in enumerate(wanted)}
        self._known = known

    def pytest_collection_modifyitems(self, items) -> None:
        kept = [one for one in items if one.nodeid in self._place or one.nodeid not in self._known]
        items[:] = sorted(kept, key=lambda one: self._place.get(one.nodeid, -1))


def function_of(text: str, line: int) -> int | None:
    """Return the first line (a decorator's, if any) of the function whose body has a line.

    Nothing for a line that runs at import.
    """
    found = None
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef) and node.body[0].lineno <= line <= node.end_lineno:
            found = max(found or 0, _first_line(node))
    return found


def tests_for(
    tests: dict[str, tuple[float, list[str]]], file: str, function: int | None
) -> list[str]:
    """Return the tests that reach a function, quick ones first, before them those of its file."""
    named = f"test_{Path(file).stem}"

    def order(test: str) -> tuple[bool, float]:
        return not Path(test.partition("::")[0]).stem.startswith(named), tests[test][0]

    reached = [
        test
        for test, (_, called) in tests.items()
        if function is None or f"{file}:{function}" in called
    ]
    asked, seconds = [], 0.0
    for test in sorted(reached, key=order):
        seconds += tests[test][0]
        if asked and seconds > MOST_SECONDS:
            break
        asked.append(test)
    return asked
