"""The pytest plugin: which contract tests run, and on what. Imports no torch where none runs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from sweeps.errors import UserError
from sweeps.plugins.bundle import bundle_of
from sweeps.plugins.catalogue import Plugin, Plugins
from sweeps.plugins.kinds import KINDS
from sweeps.plugins.opened import remember

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Subject:
    """One thing under test: what it is, its options, and rows that it may be given."""

    plugin: Plugin
    said: Mapping[str, Any]
    rows: str | None

    @property
    def options(self) -> dict[str, Any]:
        """Return all its options; raise UserError where one without a default was not given."""
        return self.plugin.mark.checked(self.said)

    def build(self, *given: Any) -> Any:
        return self.plugin.mark.build(*given, options=self.options)


SUBJECTS = pytest.StashKey[list[Subject]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("depthsweep", "code of your own for depthsweep")
    group.addoption(
        "--depthsweep-plugin",
        action="append",
        default=[],
        metavar="FILE",
        help="run the contract tests on what this file brings; repeatable",
    )
    group.addoption(
        "--depthsweep-options",
        default="{}",
        metavar="JSON",
        help="options by name, for those that have no default",
    )
    group.addoption(
        "--depthsweep-rows", metavar="FILE", help="rows that an objective is tried on (.jsonl)"
    )


def pytest_configure(config: pytest.Config) -> None:
    files = config.getoption("depthsweep_plugin")
    if not files:
        return
    try:
        options = json.loads(config.getoption("depthsweep_options"))
        bundles = [bundle_of(Path(file)) for file in files]
        remember(bundles)
        found = Plugins.of_bundles(bundles)
    except (UserError, ValueError) as error:
        raise pytest.UsageError(" ".join(str(error).split())) from None
    rows = config.getoption("depthsweep_rows")
    subjects = [
        Subject(plugin, options.get(name, {}), rows)
        for kind in KINDS
        for name in found.names(kind)
        if (plugin := found.find(kind, name)) is not None
    ]
    config.stash[SUBJECTS] = subjects
    kinds = {one.plugin.mark.kind for one in subjects}
    tests = [str(HERE / f"{kind}_contract.py") for kind in KINDS if kind in kinds]
    named = config.args_source is pytest.Config.ArgsSource.ARGS
    config.args = [*config.args, *tests] if named else tests


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Give a contract test the subjects of its kind."""
    if "subject" not in metafunc.fixturenames or SUBJECTS not in metafunc.config.stash:
        return
    kind = Path(metafunc.module.__file__).name.removesuffix("_contract.py")
    subjects = [s for s in metafunc.config.stash[SUBJECTS] if s.plugin.mark.kind == kind]
    metafunc.parametrize("subject", subjects, ids=[s.plugin.mark.name for s in subjects])
