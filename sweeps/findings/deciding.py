"""What a sweep can decide about its controls, before it runs: each condition's power and seeds.

Power is that of ``power``: to say ``persists`` where a stated share of the slope is
kept, and to say ``collapses`` where none is. The spread of seeds is assumed, or measured on
standard runs that finished.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median, stdev
from typing import Literal

from sweeps.declaration.matched_seeds import FEWEST_SEEDS, Condition, Key, Matched, matched_seeds
from sweeps.findings.power import (
    CORRELATION,
    CV,
    TARGET,
    failure_rate_excluded,
    power,
    seeds_needed,
)
from sweeps.findings.verdicts import DELTA
from sweeps.spec import RunSpec

# The share of the slope that is kept where the power to say so is asked for.
EFFECT = 0.5


@dataclass(frozen=True)
class Spread:
    """How far the slopes of seeds lie apart: sd over |mean| under standard training.

    ``source`` says whether it is that of the condition's own runs (``measured``, over ``seeds`` of
    them), the median over those conditions (``median``), or no run's at all (``assumed``).
    """

    cv: float
    source: Literal["measured", "median", "assumed"]
    seeds: int | None = None


@dataclass(frozen=True, eq=False)
class Outlook:
    """What one condition can decide.

    Attributes:
        persists: the probability of that verdict at the stated effect, with the seeds it has.
        collapses: the probability of that verdict where nothing is kept.
        needed: matched seeds with which both have the target; None beyond ``power.MOST``.
        lacks: seeds to add for that, under the control and under standard; None as ``needed``.
    """

    condition: Condition
    spread: Spread
    persists: float
    collapses: float
    needed: int | None
    lacks: tuple[list[int], list[int]] | None

    @property
    def n(self) -> int:
        return len(self.condition.matched)

    @property
    def runs_more(self) -> int | None:
        return None if self.lacks is None else sum(len(side) for side in self.lacks)


@dataclass(frozen=True, eq=False)
class Deciding:
    """What a sweep can decide, with all that was assumed.

    Attributes:
        standard_only: conditions that no control is asked about.
        runs_more: runs that give every condition its seeds, a standard run that two controls
            share counted once; conditions that no number of seeds helps are not in it.
    """

    rows: tuple[Outlook, ...]
    standard_only: int
    effect: float
    target: float
    correlation: float
    delta: float
    runs_more: int

    def surely(self) -> list[Outlook]:
        """Return the conditions of which either verdict has the target's probability."""
        return [one for one in self.rows if min(one.persists, one.collapses) >= self.target]

    def perhaps(self) -> list[Outlook]:
        """Return those that can have a verdict, but with less than that."""
        sure = self.surely()
        return [one for one in self.rows if one.n >= FEWEST_SEEDS and one not in sure]

    def never(self) -> list[Outlook]:
        """Return those that cannot have a verdict, whatever comes out."""
        return [one for one in self.rows if one.n < FEWEST_SEEDS]

    def failure_rates(self) -> dict[int, float]:
        """Return the failure rate that each number of seeds here, or needed, would exclude."""
        counts = {one.n for one in self.rows} | {one.needed for one in self.rows}
        return {
            n: failure_rate_excluded(n)
            for n in sorted(n for n in counts if n and n >= FEWEST_SEEDS)
        }


def deciding(
    runs: Iterable[RunSpec],
    *,
    effect: float = EFFECT,
    target: float = TARGET,
    correlation: float = CORRELATION,
    cv: float | None = None,
    slopes: Mapping[str, Mapping[str | None, float]] | None = None,
) -> Deciding:
    """Return one row for each condition planned under a control other than standard.

    Args:
        effect: share of the slope that is kept, above ``DELTA``.
        target: the probability of a verdict that is asked for.
        correlation: of the slopes of one seed under both controls.
        cv: the spread of all conditions; None measures it where ``slopes`` allow.
        slopes: slopes of finished runs, by run id and stack (None of a single one).
    """
    found = matched_seeds(runs)
    spreads = _spreads(found, slopes or {}, cv)
    rows = []
    for condition in found.conditions:
        spread = spreads[condition.key]
        n = len(condition.matched)
        both = [
            seeds_needed("persists", effect, spread.cv, target, correlation=correlation),
            seeds_needed("collapses", 0.0, spread.cv, target, correlation=correlation),
        ]
        counts = [count for count in both if count is not None]
        needed = max(counts) if len(counts) == len(both) else None
        rows.append(
            Outlook(
                condition,
                spread,
                power("persists", effect, spread.cv, n, correlation=correlation),
                power("collapses", 0.0, spread.cv, n, correlation=correlation),
                needed,
                None if needed is None else condition.lacks(needed),
            )
        )
    return Deciding(
        tuple(rows), found.standard_only, effect, target, correlation, DELTA, _runs_more(rows)
    )


def _runs_more(rows: Sequence[Outlook]) -> int:
    """Return how many distinct runs all conditions lack; those of two controls share standard."""
    own = sum(len(row.lacks[0]) for row in rows if row.lacks is not None)
    shared = {
        (row.condition.key, seed) for row in rows if row.lacks is not None for seed in row.lacks[1]
    }
    return own + len(shared)


def _spreads(
    found: Matched, slopes: Mapping[str, Mapping[str | None, float]], cv: float | None
) -> dict[Key, Spread]:
    """Return the spread of each condition: given, measured, or the median of those measured; of a
    model of several stacks that of the stack whose slopes lie farthest apart."""
    keys = {one.key for one in found.conditions}
    if cv is not None:
        return dict.fromkeys(keys, Spread(cv, "assumed"))
    measured: dict[Key, Spread] = {}
    for condition in found.conditions:
        of_stacks: dict[str | None, list[float]] = {}
        for run in condition.standard.values():
            for stack, slope in slopes.get(run.run_id, {}).items():
                if math.isfinite(slope):
                    of_stacks.setdefault(stack, []).append(slope)
        # Around a mean of 0 there is no spread relative to it.
        spreads = [
            Spread(stdev(known) / abs(fmean(known)), "measured", len(known))
            for known in of_stacks.values()
            if len(known) >= FEWEST_SEEDS and fmean(known) != 0
        ]
        if spreads:
            measured[condition.key] = max(spreads, key=lambda one: one.cv)
    others = Spread(CV, "assumed")
    if measured:
        others = Spread(median(one.cv for one in measured.values()), "median")
    return {key: measured.get(key, others) for key in keys}
