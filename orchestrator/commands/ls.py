"""``depthsweep ls``: what a store holds, by sweep, version and run."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import click

from orchestrator.display.output import counted_aloud, terminal_width, wrapped
from orchestrator.display.plan_table import control_name
from orchestrator.ledger.recovery import STATES, Standing, ledger
from orchestrator.ledger.run_filter import matching, parse_where, require_known
from orchestrator.shell.completion import SWEEP
from sweeps.declaration.settings import control_options, text_of, varied
from sweeps.reading.text_table import Column, text_table
from sweeps.spec import RunSpec
from sweeps.store.store import Store
from sweeps.store.sweep_records import strays_of
from sweeps.upkeep.sizes import KINDS, Bytes, bytes_by_run, cache_bytes, said
from sweeps.versions.sweep_folder import SweepFolder, Version, sweep_folders

# Runs that a sweep shows unasked, and orphans that are named one by one.
SHOWN_RUNS, LISTED = 40, 10

Ledger = Callable[[str], Standing]


@click.command("ls")
@click.argument("sweep", required=False, metavar="[SWEEP[@VERSION]]", shell_complete=SWEEP)
@click.option("--store", "location", default="./store", show_default=True, help="Results folder.")
@click.option("--runs", "with_runs", is_flag=True, help="List every run, of every sweep or of one.")
@click.option(
    "--where", metavar="NAME=VALUE,…", help="List the runs that have these: status, any setting."
)
@click.option("--sizes", "with_sizes", is_flag=True, help="Also say how many bytes each takes.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object for programs.")
def command(
    sweep: str | None,
    location: str,
    with_runs: bool,
    where: str | None,
    with_sizes: bool,
    as_json: bool,
) -> int:
    """List the sweeps of a store, newest first: runs by state, versions, when each was run.

    Of one SWEEP its versions, and its runs with what varies among them. A version is meant by four
    or more of its digits, here and wherever a sweep's name is taken: demo@3f2a.
    """
    store = Store.at(location).reading()
    store.require_there()
    conditions = parse_where(where) if where else []
    found = Holdings(store, ledger(store), _sizes(store) if with_sizes else None)
    if sweep is None and not (with_runs or where):
        _show(found.page(), found.lines(), as_json)
        return 0
    versions = [store.version(name) for name in ([sweep] if sweep else store.sweep_names())]
    runs_of = [version.load().runs for version in versions]
    require_known([run for runs in runs_of for run in runs], conditions)
    pages, lines = [], []
    for version, whole in zip(versions, runs_of, strict=True):
        runs = matching(whole, conditions, found.state)
        listed = runs if with_runs or where or as_json else runs[:SHOWN_RUNS]
        pages.append(found.sweep_page(version, listed))
        lines += [*found.sweep_lines(version, whole, listed, bool(where)), ""]
        if len(listed) < len(runs):
            lines[-1:] = [f"… and {len(runs) - len(listed)} more: --runs lists them", ""]
    _show(pages[0] if sweep else {"sweeps": pages}, lines[:-1], as_json)
    return 0


def _show(page: dict[str, Any], lines: Sequence[str], as_json: bool) -> None:
    click.echo(json.dumps(page, indent=1) if as_json else "\n".join(lines))


def _sizes(store: Store) -> dict[str, Bytes]:
    return dict(counted_aloud(bytes_by_run(store), "runs measured"))


@dataclass(frozen=True)
class Holdings:
    """What a store holds: its records, its ledger, and its bytes by run where they were asked."""

    store: Store
    standing: Ledger
    sizes: dict[str, Bytes] | None

    def state(self, run_id: str) -> str:
        return self.standing(run_id).state

    # ----------------------------------------------------------------------------- the whole store
    def page(self) -> dict[str, Any]:
        """Return the sweeps of the store, newest first, as JSON data."""
        sweeps = [self._sweep(folder) for folder in sweep_folders(self.store.root)]
        sweeps.sort(key=lambda one: (one["recorded"], one["name"]), reverse=True)
        page: dict[str, Any]
        page = {"store": self.store.location, "sweeps": sweeps, "orphans": strays_of(self.store)}
        if self.sizes is not None:
            page["bytes"] = {**self._bytes(self.sizes), "cache": cache_bytes(self.store)}
        return page

    def _sweep(self, folder: SweepFolder) -> dict[str, Any]:
        versions, current = folder.versions(), folder.current()
        assert current is not None  # a folder without a version is no sweep
        every = {run_id for version in versions for run_id in version.run_ids}
        return {
            "name": folder.name,
            "version": current.digest,
            "recorded": current.recorded,
            "runs": len(current.run_ids),
            "states": self._states(current.run_ids),
            "runs_of_older_versions": len(every - set(current.run_ids)),
            "versions": [self._version(version) for version in versions],
            **({} if self.sizes is None else {"bytes": self._bytes(every)}),
        }

    def _version(self, version: Version) -> dict[str, Any]:
        return {
            "version": version.digest,
            "recorded": version.recorded,
            "runs": len(version.run_ids),
        }

    def _states(self, run_ids: Sequence[str]) -> dict[str, int]:
        looked = counted_aloud(run_ids, "runs looked at", len(run_ids))
        counts = Counter(self.state(run_id) for run_id in looked)
        return {state: counts[state] for state in STATES if counts[state]}

    def _bytes(self, work_ids: Iterable[str]) -> dict[str, int]:
        sizes = self.sizes or {}
        return {kind: sum(sizes[i][kind] for i in work_ids if i in sizes) for kind in KINDS}

    def lines(self) -> list[str]:
        """Return the sweeps of the store in lines of at most the terminal's width."""
        page = self.page()
        sweeps, orphans = page["sweeps"], page["orphans"]
        if not sweeps:
            head = [f"{page['store']} holds no sweep yet; start one with `depthsweep run`"]
        else:
            states = [s for s in STATES if any(s in one["states"] for one in sweeps)]
            columns = [
                Column("sweep", [one["name"] for one in sweeps], kept=True),
                Column("version", [one["version"][:8] for one in sweeps], rigid=True, kept=True),
                Column("run", [_when(one["recorded"]) for one in sweeps], rigid=True, kept=True),
                _numbers("of", [len(one["versions"]) for one in sweeps]),
                _numbers("runs", [one["runs"] for one in sweeps]),
                *(_numbers(s, [one["states"].get(s, 0) for one in sweeps]) for s in states),
                *(
                    Column(kind, [said(one["bytes"][kind]) for one in sweeps], right=True)
                    for kind in (KINDS if self.sizes is not None else ())
                ),
            ]
            head = _table(columns)
        older = sum(one["runs_of_older_versions"] for one in sweeps)
        if older:
            head += wrapped(f"{older} runs of older versions only: `ls SWEEP` lists the versions")
        if orphans:
            ids = ", ".join(orphans[:LISTED])
            more = f" and {len(orphans) - LISTED} more" if len(orphans) > LISTED else ""
            runs = "1 run belongs" if len(orphans) == 1 else f"{len(orphans)} runs belong"
            head += wrapped(
                f"{runs} to no version of a sweep: {ids}{more}; `gc --strays` removes such runs"
            )
        if self.sizes is not None:
            parts = [f"{said(size)} {kind}" for kind, size in page["bytes"].items()]
            head += wrapped(f"in all {', '.join(parts)}")
        return head

    # ----------------------------------------------------------------------------------- one sweep
    def sweep_page(self, version: Version, runs: Sequence[RunSpec]) -> dict[str, Any]:
        """Return a version of a sweep with runs of it as JSON data."""
        varying = _varying(runs)
        versions = SweepFolder(self.store.sweep_folder(version.sweep)).versions()
        return {
            "name": version.sweep,
            "version": version.digest,
            "recorded": version.recorded,
            "versions": [self._version(one) for one in versions],
            "runs": [
                {
                    "run_id": run.run_id,
                    "status": self.state(run.run_id),
                    "model": run.model.name,
                    "objective": run.objective.label,
                    "control": control_name(run),
                    **{one.name: one.value(run) for one in varying},
                    "seed": run.seed,
                    **({} if self.sizes is None else {"bytes": self._bytes([run.run_id])}),
                }
                for run in counted_aloud(runs, "runs looked at", len(runs))
            ],
        }

    def sweep_lines(
        self, version: Version, whole: Sequence[RunSpec], runs: Sequence[RunSpec], chosen: bool
    ) -> list[str]:
        """Return a version of a sweep, the versions there are of it, and runs, in lines."""
        page = self.sweep_page(version, runs)
        states = self._states([run.run_id for run in whole])
        counts = ", ".join(f"{count} {state}" for state, count in states.items())
        lines = wrapped(
            f"{version.sweep}@{version.digest}, run {_when(version.recorded)}: {len(whole)} runs,"
            f" {counts}"
        )
        others = [one for one in page["versions"] if one["version"] != version.digest]
        if others:
            columns = [
                Column("other versions", [one["version"] for one in others], rigid=True),
                Column("run", [_when(one["recorded"]) for one in others], rigid=True),
                _numbers("runs", [one["runs"] for one in others]),
            ]
            lines += ["", *_table(columns)]
        if chosen:
            lines += ["", f"{len(runs)} of {len(whole)} runs"]
        return [*lines, "", *self._run_lines(page["runs"])] if runs else lines

    def _run_lines(self, rows: Sequence[dict[str, Any]]) -> list[str]:
        fixed = ("run_id", "status", "bytes", "seed")
        columns = [
            Column("run", [row["run_id"] for row in rows], rigid=True, kept=True),
            Column("status", [row["status"] for row in rows], rigid=True, kept=True),
            *(
                Column(name, [text_of(row[name]) for row in rows], kept=True)
                for name in rows[0]
                if name not in fixed
            ),
            Column("seed", [str(row["seed"]) for row in rows], right=True, kept=True),
        ]
        for kind in KINDS if self.sizes is not None else ():
            columns.append(Column(kind, [said(row["bytes"][kind]) for row in rows], right=True))
        return _table(columns)


def _varying(runs: Sequence[RunSpec]) -> list[Any]:
    options = set(control_options())
    return [one for one in varied(runs) if one.name not in options]


def _numbers(name: str, values: Iterable[int]) -> Column:
    return Column(name, [str(value or "·") for value in values], right=True, kept=True)


def _table(columns: Sequence[Column]) -> list[str]:
    """Return a table, and which columns found no room."""
    lines, left_out = text_table(columns, terminal_width())
    note = f"({', '.join(left_out)} found no room: --json has all)"
    return [*lines, *(wrapped(note) if left_out else ())]


def _when(recorded: str) -> str:
    try:
        return f"{datetime.fromisoformat(recorded).astimezone():%Y-%m-%d %H:%M}"
    except ValueError:
        return "unknown"
