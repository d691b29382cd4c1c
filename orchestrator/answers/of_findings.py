"""What commands about findings answer with ``--json``. Bounds of 95 % intervals end in _low and
_high; a number that is not defined is null."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import with_config
from typing_extensions import TypedDict

from orchestrator.answers.shape import CLOSED, ROW

Number = float | None
At = Literal["final"] | int


@with_config(ROW)
class ProfileCondition(TypedDict):
    """A condition of ``profile``: its settings, seeds, slope, and every other quantity of a profile
    with its interval (``centre_of_mass``, ``width``, ``spearman`` ...)."""

    n: int
    """Finished runs."""
    seeds: int
    diverged: int
    missing: int
    mean: Number
    null: Number
    """The mean change that unrelated rows give."""
    dose: Number
    slope: Number
    slope_low: Number
    slope_high: Number
    slope_normalised: Number
    centre_of_mass: Number
    width: Number
    propagation: Number
    slope_beyond_propagation: Number
    beyond_propagation: bool | None
    flags: str


@with_config(ROW)
class ProfileBlock(TypedDict):
    """The change of a block in a condition, mean over seeds."""

    blocks: int
    layer: int
    depth: float
    n: int
    value: Number
    low: Number
    high: Number
    null: Number


@with_config(ROW)
class LeftOut(TypedDict):
    """A run without a profile, and the reason."""

    run_id: str
    reason: str


@with_config(CLOSED)
class Profile(TypedDict):
    """``profile``: conditions, and each one's blocks."""

    sweep: str
    metric: str
    at: At
    block_class: str | None
    by: list[str]
    conditions: list[ProfileCondition]
    blocks: list[ProfileBlock]
    left_out: list[LeftOut]


@with_config(ROW)
class Verdict(TypedDict):
    """A condition of ``compare``: its settings, both slopes, what is kept and the verdict; a
    ``verdict_*`` each under other distances, thresholds and at equal change."""

    n: int
    """Matched seeds."""
    planned: int
    diverged: int
    dose: Number
    slope_against: Number
    slope_control: Number
    retained: Number
    retained_low: Number
    retained_high: Number
    retained_unbounded: bool | None
    verdict: str
    flags: str


@with_config(ROW)
class Outcome(TypedDict):
    """A condition of ``compare`` whose runs answer prompts: what falls under the control at equal
    evaluation loss, with the reference's means and their changes."""

    n: int
    prompts: int | None
    outcome: str
    slope: Number
    slope_change: Number
    degradation: Number
    degradation_change: Number


@with_config(CLOSED)
class Comparison(TypedDict):
    """``compare``: what becomes of slopes under a control."""

    sweep: str
    control: str
    against: str
    metrics: list[str]
    at: str
    conditions: list[Verdict]
    alignment: list[Outcome]
    """Empty where no run answers prompts."""


@with_config(CLOSED)
class DifferingSetting(TypedDict):
    """A setting in which runs of two sweeps differ, and how many do."""

    name: str
    first: Any
    second: Any
    runs: int


@with_config(CLOSED)
class DifferingFinding(TypedDict):
    """A condition that either sweep has: each value of the first, then of the second."""

    condition: dict[str, Any]
    n: list[int | None]
    slope_against: list[Number]
    retained: list[Number]
    verdict: list[str | None]


@with_config(CLOSED)
class Difference(TypedDict):
    """``diff``: runs that both have, that differ in settings, that only one has; then findings,
    null where a side has none."""

    first: str
    second: str
    both: int
    differ: int
    only_first: list[str]
    only_second: int
    settings: list[DifferingSetting]
    conditions: list[DifferingFinding] | None


@with_config(CLOSED)
class ClaimTest(TypedDict):
    """A statement of a claim: its estimate over ``n`` units, and what it is compared with."""

    statement: str
    verdict: str
    reason: str | None
    value: Number
    low: Number
    high: Number
    than: Number
    n: int
    of: int | None
    unit: str
    p_value: Number


@with_config(CLOSED)
class Claim(TypedDict):
    """A claim: supported, contradicted or open, and so under each distance."""

    id: str
    text: str
    verdict: str
    by_metric: dict[str, str]
    flags: list[str]
    tests: list[ClaimTest]


@with_config(CLOSED)
class Claims(TypedDict):
    """``claims``."""

    sweep: str
    source: str
    metric: str
    at: str
    claims: list[Claim]


@with_config(CLOSED)
class PowerCondition(TypedDict):
    """A condition under a control: planned seeds, the probability of verdicts, what it lacks."""

    model: str
    objective: str
    control: str
    control_setting: str | None
    settings: dict[str, Any]
    n: int
    cv: Number
    cv_source: str
    cv_seeds: int | None
    persists: Number
    collapses: Number
    seeds_needed: int | None
    runs_more: int | None
    seeds_to_add: dict[str, list[int]] | None
    reason: str | None


@with_config(CLOSED)
class Power(TypedDict):
    """``power``: what a sweep can decide."""

    sweep: str
    effect: float
    target: float
    delta: float
    correlation: float
    fewest_seeds: int
    decided: int
    standard_only: int
    runs_more: int | None
    failure_rate_excluded: dict[str, float]
    conditions: list[PowerCondition]


@with_config(CLOSED)
class TableDigest(TypedDict):
    """The checksum of a table in ``digest``: equal for equal rows."""

    table: str
    rows: int
    sha256: str


# ``query``: a row of the answer, its columns those of the question.
AnswerRow = dict[str, Any]
