"""Which tests run a function: seen once, in a run without a fault, so that a trial asks only these.

For the survey each function of the files gets a line that says that it is called: a profiler, which
hears of every call of every library, takes tens of times as long.

A test that never calls the function with the fault cannot notice it. What runs at import (defaults,
constants, the bodies of classes) is in every test's reach. Functions that another process runs are
not seen here: a fault that only a test of whole processes would notice counts as a survivor, and so
does one that only a slow test beyond the first thirty seconds of tests would notice.
"""

from __future__ import annotations

import ast
import builtins
import os
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

# What a trial may take, in seconds of a processor: of the tests that reach a fault, the last ones
# are not asked beyond it.
MOST_SECONDS = 30.0
# What a function of a surveyed file calls; in processes that the tests start it is not there.
CALLED = "__called_in_a_survey__"
SAYS = f"getattr(__import__('builtins'), {CALLED!r}, str)"


class Survey:
    """A pytest plugin: how long each test takes, and which functions that tell so it calls."""

    def __init__(self) -> None:
        self._now: set[str] = set()
        setattr(builtins, CALLED, self._note)
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


def telling(text: str, file: str) -> str:
    """Return the text of a file whose functions say that they are called: file and first line."""
    lines = text.splitlines(keepends=True)
    for node in sorted(_functions(text), key=lambda node: -node.lineno):
        own = node.body[0 if ast.get_docstring(node) is None else 1 :] or node.body[-1:]
        first = own[0]
        place = min([first.lineno, *(d.lineno for d in getattr(first, "decorator_list", ()))])
        if place > node.lineno and lines[place - 1][: first.col_offset].strip() in ("", "@"):
            indent = " " * node.body[0].col_offset
            lines.insert(place - 1, f"{indent}{SAYS}({f'{file}:{_first_line(node)}'!r})\n")
    return "".join(lines)


def _functions(text: str) -> Iterator[ast.FunctionDef]:
    return (node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.FunctionDef))


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
    for node in _functions(text):
        if node.body[0].lineno <= line <= node.end_lineno:
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
