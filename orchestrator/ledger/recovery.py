"""What is left to do of a sweep: the ledger compared with the specification."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal, get_args

from sweeps.spec import Measurement, RunSpec
from sweeps.store.claim import is_alive
from sweeps.store.store import RunFolder, Store

# How a run stands in the store: its result, or what its newest attempt says.
State = Literal[
    "finished", "diverged", "running", "failed", "cancelled", "preempted", "lost", "waiting"
]
STATES: tuple[State, ...] = get_args(State)
RESULTS = ("finished", "diverged")


@dataclass(frozen=True)
class Standing:
    """What the ledger says of one run; ``checkpoint`` is the newest complete one, 0 for none."""

    state: State
    checkpoint: int = 0


@dataclass(frozen=True)
class Choice:
    """What a user asked for beyond "whatever is left".

    ``only`` restricts to runs in a state (failed, diverged, …), to one run or measurement by its
    id, or to the measurements of a kind; ``force`` does again what has a result.
    """

    only: str | None = None
    force: bool = False


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

    A finished run is skipped, and so is a diverged one: that is a result. A run that another
    process is at is run too: its attempt waits, and ends when the other has a result.
    """
    return [_decide(run, standing(run.run_id), choice) for run in runs]


def _decide(run: RunSpec, standing: Standing, choice: Choice) -> Action:
    state = standing.state
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


def ledger(store: Store) -> Callable[[str], Standing]:
    """Return the standing of runs and measurements of a store by their ids, read when asked; of an
    object store, read now."""
    store = store.reading()

    def standing(work_id: str) -> Standing:
        folder = store.work(work_id)
        done = folder.done()
        if done is not None:
            return Standing(done["status"])
        newest = folder.newest_attempt()
        if newest is None:
            return Standing("waiting")
        checkpoints = folder.checkpoint_steps()
        return Standing(state_of(folder, newest), checkpoints[-1] if checkpoints else 0)

    return standing


def state_of(folder: RunFolder, newest: dict[str, Any]) -> State:
    """Return the state of a run without a result from its newest attempt."""
    if newest["cause"] is None:
        return "running" if is_alive(folder, newest) else "lost"
    known: dict[str, State] = {"failed": "failed", "lost": "lost", "preempted": "preempted"}
    # What had a result that is there no more, as after `doctor --fix`.
    known |= dict.fromkeys(RESULTS, "lost")
    return known.get(newest["cause"], "cancelled")
