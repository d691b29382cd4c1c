"""The account of one sweep: what it is about to do, where, what happens, and what became of it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from orchestrator.ledger.recovery import Action, MeasureAction
from orchestrator.sizing.placement import Node, Placement
from sweeps.declaration.changes import Changes
from sweeps.declaration.expand import Sweep
from sweeps.errors import UserError
from sweeps.spec import Measurement, RunSpec, is_measurement
from sweeps.store.store import Store


@dataclass(frozen=True)
class Plan:
    """What a sweep is about to do: an action a run and one a measurement, and what changed since
    the store last ran it.

    ``changes`` is None where the store did not know the sweep; ``unreadable`` says that what it
    recorded of it cannot be read, and is written anew.
    """

    sweep: Sweep
    store: Store
    actions: list[Action]
    changes: Changes | None = None
    unreadable: bool = False
    measures: list[MeasureAction] = field(default_factory=list)
    # What has a result that the store's index of results lacks.
    unindexed: list[str] = field(default_factory=list)
    # Of those the runs whose last attempt has not ended.
    left_open: list[RunSpec] = field(default_factory=list)

    @property
    def to_run(self) -> list[RunSpec]:
        return [action.run for action in self.actions if action.kind == "run"]

    @property
    def again(self) -> list[str]:
        """The ids of what has a result that is thrown away first."""
        runs = [action.run.run_id for action in self.actions if action.again]
        return runs + [one.measurement.work_id for one in self.measures if one.again]

    @property
    def to_measure(self) -> list[Measurement]:
        return [one.measurement for one in self.measures if one.kind == "measure"]


@dataclass(frozen=True)
class Limits:
    """What a user allows a sweep: runs side by side, GPUs (or CPUs, where there are none) held
    together, runs on one GPU, and seconds in all; None for what is not limited."""

    most: int | None = None
    most_gpus: int | None = None
    runs_per_gpu: int | None = None
    seconds: float | None = None

    def __post_init__(self) -> None:
        """Raise UserError for what is no limit."""
        whole = {
            "max_concurrent": self.most,
            "max_gpus": self.most_gpus,
            "runs_per_gpu": self.runs_per_gpu,
        }
        for name, value in whole.items():
            if value is not None and (type(value) is not int or value < 1):
                raise UserError(f"{name}={value!r}: give a whole number from 1 on, or None")
        seconds = self.seconds
        number = isinstance(seconds, int | float) and not isinstance(seconds, bool)
        if seconds is not None and not (number and 0 < seconds < float("inf")):
            raise UserError(f"time_budget={seconds!r}: give seconds above 0, or None")

    def within(self, gpus: int | None) -> Limits:
        """Return them for a cluster that has, or may come to have, so many GPUs; None or 0 where
        that is not known."""
        if self.most_gpus is not None or not gpus:
            return self
        return replace(self, most_gpus=gpus)

    def as_words(self) -> list[str]:
        """Return them as the command line of another process says them."""
        said = {
            "--max-concurrent": self.most,
            "--max-gpus": self.most_gpus,
            "--runs-per-gpu": self.runs_per_gpu,
            "--time-budget": self.seconds,
        }
        return [
            word for name, value in said.items() if value is not None for word in (name, str(value))
        ]


NO_LIMITS = Limits()


@dataclass(frozen=True)
class Room:
    """Where runs will be started: what a run holds, and the nodes there are, of a cluster at an
    address."""

    placement: Placement
    nodes: Sequence[Node]
    address: str | None = None

    @property
    def size(self) -> int:
        """GPUs, or CPUs where there are none."""
        return sum(self.placement.size_of(node) for node in self.nodes)


class Listener:
    """What ``run_sweep`` says while it works; each method may be left as it is."""

    def planned(self, plan: Plan) -> None:
        """Take in what will happen to each run."""

    def starting(self, plan: Plan, room: Room) -> None:
        """Take in where runs will be started."""

    def event(self, run_id: str, kind: str, report: dict[str, Any]) -> None:
        """Take in an event of a run or measurement, by its id; see
        ``orchestrator.tuning.hearing.Event``."""

    def notice(self, text: str) -> None:
        """Take in what a person should know: what is waited for, a node that is set aside."""

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Surround the time in which events come."""
        yield


class Listeners(Listener):
    """Several that hear the same, in order."""

    def __init__(self, *listeners: Listener) -> None:
        self._listeners = listeners

    def planned(self, plan: Plan) -> None:
        """Tell each what will happen."""
        for one in self._listeners:
            one.planned(plan)

    def starting(self, plan: Plan, room: Room) -> None:
        """Tell each where runs will be started."""
        for one in self._listeners:
            one.starting(plan, room)

    def event(self, run_id: str, kind: str, report: dict[str, Any]) -> None:
        """Tell each of an event."""
        for one in self._listeners:
            one.event(run_id, kind, report)

    def notice(self, text: str) -> None:
        """Tell each what a person should know."""
        for one in self._listeners:
            one.notice(text)

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Let each surround the time in which events come."""
        with contextlib.ExitStack() as until_done:
            for one in self._listeners:
                until_done.enter_context(one.running())
            yield


@dataclass
class SweepResult:
    """What became of the runs that were started, by run id.

    ``ended`` has a status for each; ``cancelled`` and ``not started`` are of a sweep that was
    interrupted. ``resumed`` and ``kept`` have the steps of checkpoints: those that runs continued
    from, and those up to which interrupted ones are kept. ``skipped`` counts the runs not started.
    ``mistakes`` are the failed runs of which what was wrong is the user's to mend, such as a file
    that was edited meanwhile. ``unsound`` has what is wrong with runs that are said to have a
    result and whose files are not what their record says, of this time or an earlier one.
    ``measured`` has a status for each measurement that was started, by its id, and is no part of
    ``ended``; what is said of errors and mistakes is said of them, too. ``stopped`` is why the
    sweep ended before its runs: runs in a row that failed alike, or its time. ``grid`` is Tune's
    ``ResultGrid``, a row a run that was started; None where none was.
    """

    sweep: str
    skipped: int
    ended: dict[str, str] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)
    resumed: dict[str, int] = field(default_factory=dict)
    kept: dict[str, int] = field(default_factory=dict)
    mistakes: set[str] = field(default_factory=set)
    unsound: dict[str, str] = field(default_factory=dict)
    interrupted: int | None = None
    measured: dict[str, str] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    stopped: str | None = None
    grid: Any = None

    def status_of(self, work_id: str) -> dict[str, str]:
        """Return where the status of a run, or of a measurement, is kept."""
        return self.measured if is_measurement(work_id) else self.ended

    @property
    def frame(self) -> Any:
        """A Polars frame with a row a run and measurement that was started: its status, what was
        wrong, and the steps of the checkpoints it continued from and is kept up to."""
        import polars as pl

        rows = [
            {
                "run_id": work_id,
                "status": status,
                "error": self.errors.get(work_id) or self.unsound.get(work_id),
                "resumed_from": self.resumed.get(work_id),
                "kept_up_to": self.kept.get(work_id),
            }
            for work_id, status in {**self.ended, **self.measured}.items()
        ]
        kinds = {"run_id": pl.String, "status": pl.String, "error": pl.String}
        return pl.DataFrame(rows, {**kinds, "resumed_from": pl.Int64, "kept_up_to": pl.Int64})

    @property
    def exit_code(self) -> int:
        """0 when every run and measurement has a result, 1 otherwise; 2 where nothing but mistakes
        of the user's stands in the way; 130 interrupted, 143 terminated."""
        if self.interrupted is not None:
            return self.interrupted
        if self.stopped is not None:
            return 1
        statuses = {**self.ended, **self.measured}
        failed = {work_id for work_id, status in statuses.items() if status == "failed"}
        if self.unsound or failed - self.mistakes:
            return 1
        return 2 if failed else 0
