"""How likely a verdict on a control is, at a stated effect, spread of seeds and number of them.

The rule is that of ``verdicts``: of matched seeds, c is the slope under the control and r the
one under standard training, z⁻ = c − δr and z⁺ = c + δr. ``persists``: the lower 97.5 % t-bound of
the mean z⁻ lies above 0. ``collapses``: the upper 95 % bound of z⁻ lies below 0 and the lower 95 %
bound of z⁺ above 0. The model: r ~ N(1, cv²), c ~ N(kept, cv²), correlated within a seed.

What comes before the verdict (a diverged pair, an idle control, nothing learned) is not in it, so
these are probabilities for a sweep in which none of that happens.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy.special import chdtri, ndtr, stdtrit

from sweeps.declaration.matched_seeds import FEWEST_SEEDS
from sweeps.findings.verdicts import DELTA, EQUIVALENCE, ONE_BOUND

Verdict = Literal["persists", "collapses"]
Floats = npt.NDArray[np.float64]

# Of the slopes of one seed under both controls; assumed.
CORRELATION = 0.5
# sd over mean of the slope over seeds, where none was measured: that of the median condition of
# runs in miniature is 0.07 to 0.08, of the upper quarter 0.15.
CV = 0.1
TARGET = 0.8
MOST = 50

# Standard error of a simulated probability: 0.0025 at most.
_DRAWS = 40_000
# Of a distribution that is averaged over: the error of a probability is then below 1e-5.
_PARTS = 20_000
_FAR = 1e5


def power(
    verdict: Verdict,
    kept: float,
    cv: float,
    n: int,
    *,
    correlation: float = CORRELATION,
) -> float:
    """Return the probability of a verdict.

    Args:
        verdict: ``persists`` is exact (noncentral t); ``collapses`` is simulated from a fixed seed,
            by the distribution of means and covariances, so that n costs nothing.
        kept: true mean of c over that of r.
        cv: sd of either over the mean of r; at 0 there is no doubt.
        n: matched seeds; 0.0 below ``FEWEST_SEEDS``.
        correlation: of c and r within a seed, in [−1, 1].
    """
    if n < FEWEST_SEEDS:
        return 0.0
    if cv == 0:
        return float(kept > DELTA if verdict == "persists" else -DELTA < kept < DELTA)
    below = math.sqrt(1 + DELTA**2 - 2 * correlation * DELTA)
    above = math.sqrt(1 + DELTA**2 + 2 * correlation * DELTA)
    # The means of z⁻ and z⁺ in standard errors; beyond any quantile, farther is the same.
    low, high = (
        max(-_FAR, min(_FAR, math.sqrt(n) * mean / (cv * spread)))
        for mean, spread in ((kept - DELTA, below), (kept + DELTA, above))
    )
    if verdict == "persists":
        return _beyond(n - 1, low, float(stdtrit(n - 1, 1 - ONE_BOUND)))
    return _collapses(n, low, high, min((1 - DELTA**2) / (below * above), 1.0))


def _beyond(freedom: int, centre: float, quantile: float) -> float:
    """Return P(T > quantile) of the noncentral t: a normal exceeds the quantile times the root of
    an independent χ² over its degrees of freedom, averaged over that.

    By hand, since scipy's ``nctdtr`` is NaN here and there where the centre is far out.
    """
    return float(np.mean(ndtr(centre - quantile * _roots(freedom))))


@lru_cache(maxsize=64)
def _roots(freedom: int) -> Floats:
    """Return √(χ²/freedom) at the midpoints of so many equal parts of its probability."""
    parts = (np.arange(_PARTS) + 0.5) / _PARTS
    return np.asarray(np.sqrt(chdtri(freedom, parts) / freedom))


@lru_cache(maxsize=4096)
def _collapses(n: int, low: float, high: float, mixed: float) -> float:
    """Return P(upper bound of z⁻ < 0 < lower bound of z⁺), their correlation being ``mixed``."""
    first, second, diagonal, corner, last = _draws(n)
    rest = math.sqrt(1 - mixed**2)
    bound = float(stdtrit(n - 1, 1 - EQUIVALENCE)) / math.sqrt(n - 1)
    # Bartlett: the sample covariance is L A Aᵀ Lᵀ / (n − 1) with L that of the true correlation.
    spread = np.hypot(mixed * diagonal + rest * corner, rest * last)
    under = first + low + bound * diagonal < 0
    over = mixed * first + rest * second + high - bound * spread > 0
    return float(np.mean(under & over))


@lru_cache(maxsize=16)
def _draws(n: int) -> tuple[Floats, ...]:
    """Return two independent standard means and the three entries of Bartlett's triangle."""
    generator = np.random.default_rng([20260417, n])
    first, second, corner = generator.standard_normal((3, _DRAWS))
    diagonal, last = (np.sqrt(2 * generator.standard_gamma((n - k) / 2, _DRAWS)) for k in (1, 2))
    return first, second, diagonal, corner, last


def seeds_needed(
    verdict: Verdict,
    kept: float,
    cv: float,
    target: float = TARGET,
    *,
    correlation: float = CORRELATION,
    most: int = MOST,
) -> int | None:
    """Return the fewest matched seeds with which a verdict has probability ``target``.

    None where ``most`` of them have less.
    """

    def enough(n: int) -> bool:
        return power(verdict, kept, cv, n, correlation=correlation) >= target

    if not enough(most):
        return None
    # More seeds never make a verdict that is true less likely.
    least, fewest = FEWEST_SEEDS - 1, most
    while fewest - least > 1:
        middle = (least + fewest) // 2
        least, fewest = (least, middle) if enough(middle) else (middle, fewest)
    return fewest


def failure_rate_excluded(n: int) -> float:
    """Return the rate of failing seeds above which n of them that agree are unlikely (5 %)."""
    return float(1 - 0.05 ** (1 / n))
