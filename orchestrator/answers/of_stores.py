"""What commands about stores and clusters answer with ``--json``; sizes are in bytes."""

from __future__ import annotations

from typing import NotRequired

from pydantic import with_config
from typing_extensions import TypedDict

from orchestrator.answers.shape import CLOSED, ROW


@with_config(CLOSED)
class ListedVersion(TypedDict):
    """A version of a sweep that was run."""

    version: str
    recorded: str
    runs: int


@with_config(CLOSED)
class ListedSweep(TypedDict):
    """A sweep in ``ls``: its current version's runs by state, and all versions."""

    name: str
    version: str
    recorded: str
    runs: int
    states: dict[str, int]
    runs_of_older_versions: int
    versions: list[ListedVersion]
    bytes: NotRequired[dict[str, int]]
    """By kind, with --sizes."""


@with_config(CLOSED)
class ListedStore(TypedDict):
    """``ls`` without a sweep: newest first. ``orphans`` are ids of runs of no version."""

    store: str
    sweeps: list[ListedSweep]
    orphans: list[str]
    bytes: NotRequired[dict[str, int]]


@with_config(ROW)
class ListedRun(TypedDict):
    """A run in ``ls SWEEP``, with what varies among those that are listed."""

    run_id: str
    status: str
    model: str
    objective: str
    control: str
    seed: int
    bytes: NotRequired[dict[str, int]]


@with_config(CLOSED)
class ListedRuns(TypedDict):
    """``ls SWEEP``."""

    name: str
    version: str
    recorded: str
    versions: list[ListedVersion]
    runs: list[ListedRun]


@with_config(CLOSED)
class ListedRunsOfAll(TypedDict):
    """``ls --runs`` or ``ls --where`` of all sweeps."""

    sweeps: list[ListedRuns]


@with_config(CLOSED)
class Finding(TypedDict):
    """Something in a store that is not as its records say, and what mends it."""

    run_id: str
    what: str
    remedy: str


@with_config(CLOSED)
class Checked(TypedDict):
    """``doctor``; ``no_sweep`` are runs that no sweep names, which is nothing wrong."""

    fixed: bool
    findings: list[Finding]
    no_sweep: list[str]


@with_config(CLOSED)
class LeftToMigrate(TypedDict):
    """A run that could not be brought to today's layout."""

    run_id: str
    what: str


@with_config(CLOSED)
class Migrated(TypedDict):
    """``doctor --migrate``."""

    runs: int
    changed: int
    left: list[LeftToMigrate]


@with_config(CLOSED)
class Removed(TypedDict):
    """A thing that went, or would."""

    what: str
    where: str
    bytes: int


@with_config(CLOSED)
class Collected(TypedDict):
    """``gc``; ``refused`` has what this user may not remove, with the reason."""

    dry_run: bool
    removed: list[Removed]
    bytes: int
    in_use: list[str]
    refused: dict[str, str]


@with_config(CLOSED)
class PulledRun(TypedDict):
    """What became of a run of another store."""

    outcome: str
    why: NotRequired[str]


@with_config(CLOSED)
class Pulled(TypedDict):
    """``pull``, and each store of ``merge``; versions as NAME@DIGEST, runs by id."""

    source: str
    versions: list[str]
    bytes: int
    runs: dict[str, PulledRun]


@with_config(CLOSED)
class ClusterProfile(TypedDict):
    """A profile in ``cluster list``."""

    name: str
    what: str
    file: str
