"""What is left to do of a sweep: the ledger compared with the specification."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from typing import Any, Literal, get_args

from sweeps.attempts.living import Vigil, alive_runs
from sweeps.declaration.expand import Sweep
from sweeps.reading.closings import Closings
from sweeps.spec import Measurement, RunSpec
from sweeps.store.records import RESULTS, Status, state_after
from sweeps.store.store import Store

# How a run stands in the store: its result, or what its newest attempt says.
State = Literal[
    "finished",
    "stopped",
    "diverged",
    "running",
    "failed",
    "cancelled",
    "preempted",
    "lost",
    "waiting",
]
STATES: tuple[State, ...] = get_args(State)


@dataclass(frozen=True)
class Standing:
    """What the ledger says of one run; ``checkpoint`` is the newest complete one, 0 for none."""

    state: State
    checkpoint: int = 0


@dataclass(frozen=True)
class Choice:
    """What a user asked for beyond "whatever is left".

    ``only`` restricts to runs in a state (failed, diverged, …), to one run or measurement by its
    id, or to the measurements of a kind; ``force`` does again what has a result. ``runs`` are the
    ids of those that are meant (None: all), of which the first ``most`` that are left are done;
    what is measured is then what they share.
    """

    only: str | None = None
    force: bool = False
    runs: frozenset[str] | None = None
    most: int | None = None


EVERYTHING = Choice()


@dataclass(frozen=True)
class Action:
    """What happens to one run, and why.

    ``again`` throws a result away first; ``start`` is the step of the checkpoint that a run which
    was tried before continues from, 0 for the beginning.
    """

    run: RunSpec
    kind: Literal["run", "skip"]
    why: str
    again: bool = False
    start: int | None = None

    @property
    def reason(self) -> str:
        if self.start is None:
            return self.why
        origin = f"from step {self.start}" if self.start else "from the start"
        return f"{self.why}, continues {origin}"


@dataclass(frozen=True)
class MeasureAction:
    """What happens to one measurement, and why; ``again`` throws a result away first."""

    measurement: Measurement
    kind: Literal["measure", "skip"]
    why: str
    again: bool = False


def decide(
    runs: Iterable[RunSpec], standing: Callable[[str], Standing], choice: Choice = EVERYTHING
) -> list[Action]:
    """Return the action of each run, in order.

    A finished run is skipped, and so is one that stopped early or diverged: that is a result. A run
    that another process is at is run too: its attempt waits, and ends when the other has a result.
    """
    actions = [_decide(run, standing(run.run_id), choice) for run in runs]
    return actions if choice.most is None else _first(actions, choice.most)


def _first(actions: Iterable[Action], most: int) -> list[Action]:
    """Return actions of which so many, the first, run anything."""
    found, left = [], most
    for action in actions:
        left -= action.kind == "run"
        over = action.kind == "run" and left < 0
        found.append(Action(action.run, "skip", f"beyond the first {most}") if over else action)
    return found


def _decide(run: RunSpec, standing: Standing, choice: Choice) -> Action:
    state = standing.state
    if choice.runs is not None and run.run_id not in choice.runs:
        return Action(run, "skip", "not asked for")
    if choice.only not in (None, run.run_id, state):
        return Action(run, "skip", f"{state}, not asked for")
    if state in RESULTS:
        if choice.force or choice.only == state == "diverged":
            return Action(run, "run", f"{state}, run again as asked", again=True)
        return Action(run, "skip", state)
    if state == "waiting":
        return Action(run, "run", "new")
    if state == "running":
        return Action(run, "run", "another process is at it: its result is waited for")
    return Action(run, "run", state, start=standing.checkpoint)


def decide_measurements(
    measurements: Iterable[Measurement],
    standing: Callable[[str], Standing],
    choice: Choice = EVERYTHING,
) -> list[MeasureAction]:
    """Return the action of each measurement, in order; one has no checkpoint to continue from."""
    return [_decide_measurement(one, standing(one.work_id), choice) for one in measurements]


def _decide_measurement(
    measurement: Measurement, standing: Standing, choice: Choice
) -> MeasureAction:
    state = standing.state
    if choice.only not in (None, measurement.work_id, measurement.kind, state):
        return MeasureAction(measurement, "skip", f"{state}, not asked for")
    if state in RESULTS:
        if choice.force:
            return MeasureAction(measurement, "measure", "measured again as asked", again=True)
        return MeasureAction(measurement, "skip", state)
    return MeasureAction(measurement, "measure", "new" if state == "waiting" else state)


class Ledger:
    """The standing of runs and measurements of a store by their ids, read when asked; of an object
    store, read now.

    Where only watching tells whether an attempt lives, the first question takes up to
    ``stale_seconds``, for all that are open together. ``closings`` has what the store says of each.
    """

    def __init__(self, store: Store, works: Collection[str] | None = None) -> None:
        self.closings = Closings(store, works)
        self._living = _Living(self.closings)

    def __call__(self, work_id: str) -> Standing:
        status = self.closings.status(work_id)
        if status is not None:
            return _ENDED[status]
        folder = self.closings.folder(work_id)
        newest = folder.newest_attempt()
        if newest is None:
            return _WAITING
        checkpoints = folder.checkpoint_steps()
        checkpoint = checkpoints[-1] if checkpoints else 0
        if newest["cause"] is None:
            return Standing("running" if self._living.has(work_id, newest) else "lost", checkpoint)
        return Standing(state_after(newest["cause"]), checkpoint)


_ENDED = {status: Standing(status) for status in get_args(Status)}
_WAITING = Standing("waiting")


def ledger(store: Store, works: Collection[str] | None = None) -> Ledger:
    """Return the standing of what a store has; of an object store ``works`` alone are asked for,
    which takes few requests where they are closed."""
    return Ledger(store, works)


def ledger_of(store: Store, sweep: Sweep) -> Ledger:
    """Return the standing of a sweep's runs and of the measurements that it wants."""
    return Ledger(store, works_of(sweep))


def works_of(sweep: Sweep) -> list[str]:
    """Return the ids of a sweep's runs, then of the measurements that it wants."""
    return [run.run_id for run in sweep.runs] + [one.work_id for one in sweep.to_measure]


class _Living:
    """Which of a store's open attempts live; those that have to be watched are, all at once."""

    def __init__(self, closings: Closings) -> None:
        self._closings = closings
        self._source = closings.store.source
        self._judged: dict[tuple[str, int], bool] = {}

    def has(self, work_id: str, newest: dict[str, Any]) -> bool:
        key = (work_id, newest["attempt"])
        if key not in self._judged:
            look = Vigil(self._source.work(work_id)).look()
            if look == "unsure":
                self._watch(key)
            else:
                self._judged[key] = look == "alive"
        return self._judged[key]

    def _watch(self, asked: tuple[str, int]) -> None:
        numbers = dict([asked])
        for work_id in self._closings.ids():
            if self._closings.status(work_id) is not None:
                continue
            newest = self._closings.folder(work_id).newest_attempt()
            if newest is None or newest["cause"] is not None:
                continue
            if (work_id, newest["attempt"]) not in self._judged:
                numbers.setdefault(work_id, newest["attempt"])
        alive = alive_runs([self._source.work(work_id) for work_id in numbers])
        self._judged |= {(i, number): i in alive for i, number in numbers.items()}
