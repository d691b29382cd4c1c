"""Live progress of a sweep: a table on a terminal, lines elsewhere."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from functools import cached_property
from types import TracebackType
from typing import Any, Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from orchestrator.sizing.cost import estimate
from sweeps.spec import RunSpec

LINE_SECONDS = 30.0


@dataclass
class _Running:
    work_id: str
    since: float
    # Of how many; 0 where that is not known before.
    steps: int = 0
    step: int = 0
    loss: float | None = None
    # The newest evaluation's step and scores.
    evaluation: dict[str, Any] | None = None
    # What takes long before the first step, in words.
    doing: str | None = None

    @property
    def reached(self) -> str:
        """How far it is, for people."""
        if not self.step:
            return self.doing or "preparing"
        return f"{self.step}/{self.steps}" if self.steps else f"{self.step} read"


@dataclass
class Board:
    """The state of a sweep as told by events; knows nothing of Ray or of a terminal.

    ``labels`` says of each run what it is and what tells it from the others of its sweep, and of
    each of the ``measurements`` what it is of. ``measured`` is to them what ``ended`` is to runs.
    """

    runs: dict[str, RunSpec]
    labels: dict[str, str]
    measurements: tuple[str, ...] = ()
    began: float = field(default_factory=time.monotonic)
    running: dict[str, _Running] = field(default_factory=dict)
    ended: dict[str, str] = field(default_factory=dict)
    measured: dict[str, str] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)
    # Step of the checkpoint that each run continued from, for those that did.
    resumed: dict[str, int] = field(default_factory=dict)

    def apply(self, run_id: str, kind: str, report: dict[str, Any]) -> None:
        """Take in one event of a run or measurement; see ``tuning.hearing.Event``."""
        if report.get("resumed_from"):
            self.resumed[run_id] = report["resumed_from"]
        if kind == "started":
            run = self.runs.get(run_id)
            self.running[run_id] = _Running(run_id, time.monotonic(), run.steps if run else 0)
        if run_id in self.running and report.get("step") is not None:
            self.running[run_id].step = report["step"]
            self.running[run_id].loss = report.get("loss")
            self.running[run_id].evaluation = report.get("evaluation")
            self.running[run_id].steps = report.get("steps") or self.running[run_id].steps
            self.running[run_id].doing = report.get("doing")
        if kind in ("lost", "preempted", "again"):
            self.running.pop(run_id, None)
        if kind == "ended":
            self.running.pop(run_id, None)
            ended = self.ended if run_id in self.runs else self.measured
            ended[run_id] = report.get("status") or "cancelled"
            if report.get("error"):
                self.errors[run_id] = report["error"]

    @cached_property
    def _flops(self) -> dict[str, float]:
        """Estimated once: the time left is asked for several times a second."""
        return {run_id: estimate(run).flops for run_id, run in self.runs.items()}

    def count(self, status: str) -> int:
        return sum(1 for value in self.ended.values() if value == status)

    def seconds_left(self) -> float | None:
        """Time left for runs at the pace so far, in estimated FLOPs; None before one has ended.

        Before that, what was measured is mostly what runs share: imports, a stand-in's pretraining.
        """
        if not self.ended:
            return None
        total = sum(self._flops.values())
        done = sum(self._flops[run_id] for run_id in self.ended)
        for run_id, state in list(self.running.items()):
            if state.steps:
                done += self._flops.get(run_id, 0.0) * state.step / state.steps
        elapsed = time.monotonic() - self.began
        return elapsed * (total - done) / done


class Display:
    """Shows a board: redrawn in place on a terminal, otherwise a line for each thing that ends."""

    def __init__(self, board: Board, console: Console) -> None:
        self._board = board
        self._console = console
        self._said = threading.Event()
        self._closed = threading.Event()
        self._live = (
            Live(console=console, get_renderable=self._render, refresh_per_second=4, transient=True)
            if console.is_terminal
            else None
        )

    def __enter__(self) -> Self:
        if self._live:
            self._live.start()
        else:
            threading.Thread(target=self._tick, name="progress", daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._closed.set()
        if self._live:
            self._live.stop()

    def _tick(self) -> None:
        """Say how far the sweep is whenever nothing else was said for a while."""
        while not self._closed.wait(LINE_SECONDS):
            if not self._said.is_set():
                self._console.print(self._summary(), highlight=False)
            self._said.clear()

    def event(self, run_id: str, kind: str, report: dict[str, Any]) -> None:
        """Take in one event and show what is new."""
        started = self._board.running.get(run_id)
        before = self._board.resumed.get(run_id)
        self._board.apply(run_id, kind, report)
        now = time.monotonic()
        if self._board.resumed.get(run_id) != before:
            self._say("resumed", run_id, f": goes on after step {self._board.resumed[run_id]}")
        if kind in ("lost", "again"):
            first, _, _ = str(report.get("error") or "its process is gone").partition("\n")
            self._say(kind, run_id, f": {first}; it starts again")
        elif kind == "preempted":
            self._say(kind, run_id, ": its process was told to go; what it did is kept")
        elif kind == "ended":
            seconds = now - started.since if started else 0.0
            loss = report.get("loss")
            detail = f" loss {loss:.4f}" if isinstance(loss, float) else ""
            detail += evaluation_text(report.get("evaluation"))
            how = {**self._board.ended, **self._board.measured}[run_id]
            self._say(how, run_id, f"{detail} {seconds:.0f} s")
            self._said.set()
            if report.get("error"):
                self._console.print(f"          {report['error']}", markup=False, soft_wrap=True)

    def _say(self, what: str, run_id: str, more: str) -> None:
        line = f"{what:<9} {run_id} {self._board.labels[run_id]}{more}"
        self._console.print(line, highlight=False, soft_wrap=True, markup=False)

    def _summary(self) -> str:
        board = self._board
        parts = [f"{len(board.ended)}/{len(board.runs)} runs", f"{len(board.running)} running"]
        if board.measurements:
            parts.insert(1, f"{len(board.measured)}/{len(board.measurements)} measured")
        notable = ("failed", "diverged", "stopped")
        parts += [f"{board.count(s)} {s}" for s in notable if board.count(s)]
        # One of those that wait for the same has it in hand.
        parts += sorted({state.doing for state in [*board.running.values()] if state.doing})[:2]
        left = board.seconds_left()
        if left is not None:
            parts.append(f"about {duration(left)} left")
        return ", ".join(parts)

    def _render(self) -> RenderableType:
        table = Table.grid(padding=(0, 2))
        for state in list(self._board.running.values()):
            loss = "" if state.loss is None else f"loss {state.loss:.4f}"
            loss += evaluation_text(state.evaluation)
            table.add_row(
                Text(self._board.labels[state.work_id], overflow="fold"),
                ProgressBar(total=state.steps or None, completed=state.step, width=12),
                state.reached,
                loss,
            )
        return Group(Text(self._summary(), style="bold"), table)


def evaluation_text(evaluation: dict[str, Any] | None) -> str:
    """Return what an evaluation came to, each score by name; nothing where there was none."""
    scores = {name: value for name, value in (evaluation or {}).items() if name != "step"}
    said = ", ".join(f"{name.replace('_', ' ')} {value:.4g}" for name, value in scores.items())
    return f", held-out {said}" if said else ""


def duration(seconds: float) -> str:
    """Return a time span in words: 42 seconds, 3 minutes, 2 hours 10 minutes, 3 days 4 hours."""
    minutes, hours = round(seconds / 60), round(seconds / 3600)
    if seconds < 90:
        return _words(round(seconds), "second")
    if minutes < 90:
        return _words(minutes, "minute")
    if minutes < 10 * 60:
        return _words(minutes // 60, "hour", minutes % 60, "minute")
    if hours < 48:
        return _words(hours, "hour")
    return _words(hours // 24, "day", hours % 24, "hour")


def _words(count: int, unit: str, rest: int = 0, smaller: str = "") -> str:
    said = f"{count} {unit}" + "s" * (count != 1)
    return f"{said} {_words(rest, smaller)}" if rest else said
