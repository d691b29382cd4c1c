"""What matched seeds say of one condition: does its depth profile outlive a control?

Definition ("Profile", persistence). c_s and r_s are the slopes under the control and under the
reference of seed s, all other settings equal, both times the sign of mean r. With δ = 0.25,
z⁻ = c − δr and z⁺ = c + δr. Before a finding come states of knowledge, in which nothing was found:

    insufficient   fewer than 3 matched seeds, or a dose that is not known
    unstable       a fifth or more of the planned pairs diverged
    saturated      in half of the blocks or more the change is that of unrelated rows
    unlearned      a stand-in whose pretraining taught it nothing
    untrained      fine-tuning did not lower the evaluation loss, in one of the arms
    idle           the reference moves its blocks almost alike: nothing was there to take away
    no_reference   the reference itself has no slope, or one arm changed by no more than rounding

Then the findings. To be near 0 is shown, not inferred from a wide interval:

    persists       mean z⁻ > 0 at level 0.025
    reverses       mean z⁺ < 0 at level 0.025
    collapses      mean z⁻ < 0 and mean z⁺ > 0 at level 0.05 each (two one-sided tests)
    inconclusive   none of these
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sweeps.declaration.matched_seeds import FEWEST_SEEDS
from sweeps.statistics.intervals import Floats, Mean, Ratio, mean_of, ratio_of

FINDINGS = ("persists", "collapses", "reverses")
STATES = (
    *("insufficient", "unstable", "saturated", "unlearned", "untrained", "idle"),
    "no_reference",
)
VERDICTS = (*FINDINGS, "inconclusive", *STATES)

# The share of the reference slope below which what is left counts as near 0, and two others that
# show how much rests on that choice.
DELTA = 0.25
SENSITIVITY = (0.1, 0.5)
LEAST_DOSE = 1.5
MOST_DIVERGED = 0.2
MOST_SATURATED = 0.5
# Nats a token below the entropy of single tokens that a stand-in must have learned.
LEARNED = 0.2
# The level of a verdict: of one bound, and of each of the two tests of "near 0".
ONE_BOUND, EQUIVALENCE = 0.025, 0.05
LEVELS = {"persists": ONE_BOUND, "reverses": ONE_BOUND, "collapses": EQUIVALENCE}


@dataclass(frozen=True)
class Pair:
    """Slopes of one condition over matched seeds, (n,) each.

    ``deleted`` has, where the probe's rows were measured so, how the means move when each of G
    groups of probe sequences is left out: (G,) under the control and (G,) under the reference.
    """

    controlled: Floats
    reference: Floats
    deleted: tuple[Floats, Floats] | None = None


@dataclass(frozen=True)
class Circumstances:
    """What decides whether there is anything to find; None where it is not known.

    Attributes:
        pairs: how many were planned; ``diverged`` of them have a run that diverged.
        saturated: share of blocks whose change reaches 0.95 of the row-shuffled null, in the arm
            that has more of them.
        pretraining: of a stand-in, its held-out loss, the standard error of that, and the entropy
            of single tokens, in nats.
        loss_change: final less first evaluation loss of each arm.
        dose: max R_l / min R_l over the blocks of the reference arm. Without it nobody has looked
            whether there was anything to take away.
        rounding: an arm's mean change is below the numerical floor of the metric.
    """

    pairs: int
    diverged: int = 0
    saturated: float | None = None
    pretraining: tuple[float, float, float] | None = None
    loss_change: tuple[Mean, ...] = ()
    dose: float | None = None
    rounding: bool = False


@dataclass(frozen=True)
class Persistence:
    """What matched seeds say.

    Attributes:
        verdict: one of ``VERDICTS``.
        p: one-sided p of each finding but for Holm's correction; that of ``collapses`` is the
            larger of its two. Empty where a state of knowledge comes first.
        along: mean controlled slope along the reference's sign.
        reference: mean slope of the reference, along its own sign.
        retained: ratio of the two.
        sensitivity: the verdict with each δ of ``SENSITIVITY``.
    """

    verdict: str
    p: dict[str, float]
    along: Mean
    reference: Mean
    retained: Ratio
    sensitivity: tuple[str, ...]


@dataclass(frozen=True)
class Judgement:
    """What was found of a condition at the same step and, where it was asked and can be said, at
    equal mean change and at equal evaluation loss."""

    found: Persistence
    equal_change: Persistence | None = None
    equal_loss: Persistence | None = None


_NO_MEAN = Mean(np.nan, np.nan, np.nan)


def judge(pair: Pair, known: Circumstances) -> Persistence:
    """Return the verdict of one condition."""
    if len(pair.controlled) == 0:
        nothing = Ratio(np.nan, np.nan, np.nan)
        return Persistence("insufficient", {}, _NO_MEAN, _NO_MEAN, nothing, ("insufficient",) * 2)
    sign = -1.0 if pair.reference.mean() < 0 else 1.0
    pair = Pair(
        sign * pair.controlled,
        sign * pair.reference,
        None if pair.deleted is None else (sign * pair.deleted[0], sign * pair.deleted[1]),
    )
    deleted = pair.deleted or (None, None)
    along = mean_of(pair.controlled, deleted[0])
    reference = mean_of(pair.reference, deleted[1])
    state = state_of(len(pair.controlled), reference, known)
    p = {} if state else p_values(pair, DELTA)
    return Persistence(
        state or finding_of(p),
        p,
        along,
        reference,
        ratio_of(pair.controlled, pair.reference, pair.deleted),
        tuple(state or finding_of(p_values(pair, delta)) for delta in SENSITIVITY),
    )


def state_of(n: int, reference: Mean, known: Circumstances) -> str | None:
    """Return the first state of knowledge that stands before a finding; None where none does."""
    if n < FEWEST_SEEDS or known.dose is None:
        return "insufficient"
    if known.pairs and known.diverged >= MOST_DIVERGED * known.pairs:
        return "unstable"
    if known.saturated is not None and known.saturated >= MOST_SATURATED:
        return "saturated"
    if known.pretraining is not None and unlearned(*known.pretraining):
        return "unlearned"
    if any(not change.interval[1] < 0 for change in known.loss_change):
        return "untrained"
    if known.dose < LEAST_DOSE:
        return "idle"
    return None if reference.interval[0] > 0 and not known.rounding else "no_reference"


def unlearned(loss: float, standard_error: float, entropy: float) -> bool:
    """Return whether a held-out loss is not clearly below the entropy of single tokens."""
    return not loss + 2 * standard_error < entropy - LEARNED


def p_values(pair: Pair, delta: float) -> dict[str, float]:
    """Return the one-sided p of each finding; slopes are along the reference's sign."""
    below, above = (_combined(pair, -delta), _combined(pair, delta))
    return {
        "persists": below.p_above(),
        "reverses": above.p_below(),
        "collapses": max(below.p_below(), above.p_above()),
    }


def _combined(pair: Pair, share: float) -> Mean:
    """Return the mean of c + share·r."""
    deleted = None if pair.deleted is None else pair.deleted[0] + share * pair.deleted[1]
    return mean_of(pair.controlled + share * pair.reference, deleted)


def finding_of(p: dict[str, float]) -> str:
    """Return what p values show, each at its level."""
    shown = (finding for finding, level in LEVELS.items() if p[finding] < level)
    return next(shown, "inconclusive")
