"""What commands about runs answer with ``--json``: plans, how far runs are, what was said."""

from __future__ import annotations

from typing import Any, Literal, NotRequired

from pydantic import with_config
from typing_extensions import TypedDict

from orchestrator.answers.shape import CLOSED, ROW
from orchestrator.ledger.recovery import State

Setting = str | int | float | bool | None


@with_config(CLOSED)
class PlannedRun(TypedDict):
    """A run of a sweep file, and what it takes; bytes and parameters are null where the model is
    not known here."""

    run_id: str
    model: str
    objective: str
    control: str
    control_setting: str | None
    seed: int
    flops: float
    parameters: int | None
    state_bytes: int | None
    result: str | None
    """Its status in the store that was named; null for none."""


@with_config(CLOSED)
class PlannedMeasurement(TypedDict):
    """What a sweep wants measured without training."""

    work_id: str
    label: str
    result: str | None


@with_config(CLOSED)
class Decides(TypedDict):
    """Conditions under a control, and those of them with enough seeds for a verdict."""

    conditions: int
    with_enough_seeds: int
    fewest_seeds: int


@with_config(CLOSED)
class Placed(TypedDict):
    """How a run is carried out on the GPUs that were named, and what of memory it takes, in bytes
    a GPU (``terms`` says of what) and a process of the host."""

    execution: dict[str, Any]
    gpu_bytes: float
    allocated: float
    terms: dict[str, float]
    host_bytes_per_process: float
    reason: str


@with_config(CLOSED)
class Stretch(TypedDict):
    """When and where a run would run; seconds from the beginning."""

    run_id: str
    starts: float
    ends: float
    gpus: float
    on: list[str]


@with_config(CLOSED)
class Simulation(TypedDict):
    """A simulated schedule; times in seconds."""

    makespan: float
    lower_bound: float
    ratio: float
    utilisation: float
    gpu_hours: float
    measured_estimates: int
    schedule: list[Stretch]


@with_config(CLOSED)
class Plan(TypedDict):
    """``plan`` of a sweep file."""

    sweep: str
    decides: Decides
    measurements: list[PlannedMeasurement]
    runs: list[PlannedRun]
    placement: NotRequired[dict[str, Placed]]
    """By run id, with --gpus."""
    simulation: NotRequired[Simulation]
    """With --simulate."""


@with_config(CLOSED)
class Action(TypedDict):
    """What would happen to a run or measurement, and why: ``plan NAME``, ``--dry-run``."""

    run_id: str
    action: Literal["run", "measure", "skip"]
    reason: str


@with_config(CLOSED)
class Summary(TypedDict):
    """What ``run``, ``resume`` and ``distance`` came to: statuses and errors by id."""

    sweep: str
    runs: dict[str, str]
    measurements: dict[str, str]
    errors: dict[str, str]
    skipped: int
    unsound: dict[str, str]
    """Said to have a result that the store's files do not bear out."""


@with_config(CLOSED)
class Submitted(TypedDict):
    """The job that ``submit`` or ``resume --cluster`` made, or found under way."""

    submission_id: str
    attempt: int
    attached: bool


@with_config(CLOSED)
class RunStanding(TypedDict):
    """How a run stands in a store."""

    run_id: str
    model: NotRequired[str]
    """Not of runs of no sweep, which have their id alone."""
    objective: NotRequired[str]
    control: NotRequired[str]
    settings: NotRequired[dict[str, Setting]]
    """Those that the sweep varies."""
    seed: NotRequired[int]
    state: NotRequired[State]
    checkpoint: NotRequired[int]
    """The step of the newest, 0 for none."""
    attempts: NotRequired[int]
    seconds: NotRequired[float]
    started: NotRequired[str | None]
    ended: NotRequired[str | None]
    error: NotRequired[str | None]
    """What the last attempt's error comes down to."""
    evaluation: NotRequired[dict[str, float]]
    """Scores at its end, where it is evaluated."""


@with_config(CLOSED)
class MeasurementStanding(TypedDict):
    """How a training-free measurement stands; ``refused`` is why it cannot be made."""

    work_id: str
    kind: str
    model: str
    objective: str | None
    state: State
    refused: str | None


Status = dict[str, list[RunStanding] | dict[str, list[MeasurementStanding]]]


@with_config(ROW)
class Event(TypedDict):
    """A line of a run's log: ``logs RUN_ID --json`` prints one a line. What else it has depends on
    the event."""

    time: str
    level: str
    event: str
