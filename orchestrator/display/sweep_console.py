"""What a sweep says while it runs and when it ends, in lines for a person or as JSON."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
from collections import Counter
from collections.abc import Iterator
from typing import Any

import click
from rich.console import Console

from orchestrator.display.actions_text import measure_lines, summary_lines
from orchestrator.display.progress import Board, Display
from orchestrator.ledger.sweep_account import Listener, Plan, Room, SweepResult
from sweeps.declaration.settings import run_labels, text_of
from sweeps.files.whole_files import is_local
from sweeps.store.store import Store

# Steps of interrupted runs are named up to so many.
NAMED = 8


class SweepConsole(Listener):
    """Listens to ``run_sweep``; on standard error where standard output is for JSON."""

    def __init__(self, as_json: bool) -> None:
        self._as_json = as_json
        self._console = Console(stderr=as_json, highlight=False, markup=False)
        # What a command on this store says beside the name, unless it is the usual one.
        self._there = ""

    def planned(self, plan: Plan) -> None:
        """Say what will happen to each run, and what changed since the store last ran the sweep."""
        place = location_of(plan.store)
        self._there = "" if place == "./store" else f" --store {shlex.quote(place)}"
        self._console.print(
            f"{plan.sweep.name}: {len(plan.sweep.runs)} runs in {location_of(plan.store)}"
        )
        for line in (*change_lines(plan), *summary_lines(plan.actions), *measure_lines(plan)):
            self._console.print(f"  {line}", markup=False)
        if not plan.to_run and not plan.to_measure:
            self._console.print("  nothing to do: every run has a result")

    def starting(self, plan: Plan, room: Room) -> None:
        """Say where runs will be started."""
        measured = {one.work_id: one.label for one in plan.to_measure}
        self._board = Board(
            {run.run_id: run for run in plan.to_run},
            {**run_labels(plan.sweep.runs), **measured},
            tuple(measured),
        )
        self._display = Display(self._board, self._console)
        if room.address is not None:
            where = f"  on the Ray cluster at {room.address}: {len(room.nodes)} nodes"
            self._console.print(where, markup=False)
        side = f"on {room.size} GPUs"
        if not room.placement.gpus:
            side = f"{min(room.size, len(plan.to_run) + len(plan.to_measure))} side by side"
        said = [f"{len(plan.to_run)} to run"] if plan.to_run else []
        said += [f"{len(plan.to_measure)} to measure"] if plan.to_measure else []
        self._console.print(f"  {', '.join(said)}, {side}")

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Show progress meanwhile."""
        with self._display:
            yield

    def event(self, run_id: str, kind: str, report: dict[str, Any]) -> None:
        """Show what is new of a run or measurement."""
        self._display.event(run_id, kind, report)

    def notice(self, text: str) -> None:
        """Say what a person should know, among the lines of runs."""
        self._console.print(f"  {text}", markup=False, soft_wrap=True)

    def ended(self, result: SweepResult) -> None:
        """Say what became of the runs."""
        if result.resumed:
            span = _span("step", sorted(result.resumed.values()))
            runs = "1 run" if len(result.resumed) == 1 else f"{len(result.resumed)} runs"
            self._console.print(f"{runs} resumed from checkpoints of {span}")
        if self._as_json:
            summary = {
                "sweep": result.sweep,
                "runs": result.ended,
                "measurements": result.measured,
                "errors": result.errors,
                "skipped": result.skipped,
                "unsound": result.unsound,
            }
            click.echo(json.dumps(summary, indent=1))
        if result.ended:
            skipped = f", {result.skipped} skipped" if result.skipped else ""
            self._console.print(f"{result.sweep}: {_counts(result.ended)}{skipped}")
        if result.measured:
            said = f"{result.sweep}: measurements: {_counts(result.measured)}"
            if result.refused:
                said += f"; {len(result.refused)} cannot be made: `depthsweep status` says why"
            self._console.print(said)
        for run_id, why in list(result.unsound.items())[:NAMED]:
            said = f"run {run_id} is said to have a result, but {why}"
            self._console.print(said, markup=False, soft_wrap=True)
        if result.unsound:
            said = (
                f"{len(result.unsound)} results are not whole: `depthsweep doctor --fix` drops"
                " them, then the same command runs them again"
            )
            self._console.print(said, soft_wrap=True)
        if result.interrupted is not None:
            said = "interrupted: finished runs are kept; the same command runs the rest"
            self._console.print(said)
            for line in _kept(sorted(result.kept.values())):
                self._console.print(line, markup=False)
        elif "failed" in (*result.ended.values(), *result.measured.values()):
            said = (
                f"which failed and why: `depthsweep status {result.sweep}{self._there}`; all that"
                f" one said: `depthsweep logs ID{self._there}`"
            )
            self._console.print(said, markup=False, soft_wrap=True)


def _counts(statuses: dict[str, str]) -> str:
    """Return how many have each status: 1 failed, 4 finished."""
    counts = sorted(Counter(statuses.values()).items())
    return ", ".join(f"{count} {status}" for status, count in counts)


def _span(word: str, numbers: list[int]) -> str:
    if numbers[0] == numbers[-1]:
        return f"{word} {numbers[0]}"
    return f"{word}s {numbers[0]} to {numbers[-1]}"


def _kept(steps: list[int]) -> Iterator[str]:
    """Yield a line that says up to where the runs that were stopped have been kept."""
    if steps:
        named = ", ".join(map(str, steps[:NAMED]))
        more = f" and {len(steps) - NAMED} more" if steps[NAMED:] else ""
        yield f"{len(steps)} running: kept up to step {named}{more}"


def change_lines(plan: Plan) -> Iterator[str]:
    """Yield what changed since the store last ran this sweep, a line each."""
    if plan.unreadable:
        yield "what the store recorded of this sweep cannot be read: it is written anew"
    changes = plan.changes
    if changes is None or not changes.any:
        return
    yield (
        f"the sweep has changed: {changes.same} runs as before, {changes.changed} changed,"
        f" {changes.added} added, {len(changes.gone)} no longer in it (kept in the store)"
    )
    for change in changes.fields:
        runs = "1 run" if change.runs == 1 else f"{change.runs} runs"
        yield f"  {change.name}: {text_of(change.old)} -> {text_of(change.new)} in {runs}"


def location_of(store: Store) -> str:
    """Return the store's place as a person would write it here."""
    if not is_local(store.root):
        return store.location
    relative = os.path.relpath(store.root)
    return str(store.root) if relative.startswith("..") else f"./{relative}"
