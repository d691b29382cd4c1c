"""How a quantity of conditions goes with what they are, with the model as the unit.

Conditions of one model are not exchangeable with those of another: what is the same within a model
(its family) is permuted over models, what varies within it (the objective) within models, and
intervals come from resampling models. With fewer than ``FEWEST_MODELS`` there is no interval.

Shapes, here and below:
    C  conditions
    R  resamples or permutations
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sweeps.statistics.intervals import LEVEL, Floats

RESAMPLES = 1_999
SEED = 20260417
FEWEST_MODELS = 10
Codes = NDArray[np.int64]


def codes_of(values: Sequence[Any]) -> Codes:
    """Return (C,) numbers that are equal where values are."""
    return np.unique([str(value) for value in values], return_inverse=True)[1].astype(np.int64)


def varies_within(factor: Codes, models: Codes) -> bool:
    """Return whether some model has two values of a factor."""
    pairs = len(np.unique(np.stack([factor, models]), axis=1).T)
    return pairs > len(np.unique(models))


# --------------------------------------------------------------------------- shares of variance
def unique_share(y: Floats, factor: Codes, given: Sequence[Codes]) -> float:
    """Return R²(factor + given) − R²(given) of one additive fit to (C,) values; NaN where they do
    not vary."""
    total = float(np.square(y - y.mean()).sum())
    if total <= 0:
        return float("nan")
    base = np.hstack([np.ones((len(y), 1)), *map(_dummies, given)])
    both = np.hstack([base, _dummies(factor)])
    return (_unexplained(y, base) - _unexplained(y, both)) / total


def unique_share_by_chance(
    y: Floats, factor: Codes, given: Sequence[Codes], models: Codes, blocks: Codes
) -> tuple[float, float]:
    """Return how a share stands to those of a permuted factor: the part of them that is at least as
    large (p), and their mean, which is what such a factor explains by chance.

    A factor that varies within ``blocks``, conditions alike in all else, is permuted within them;
    one that varies within models only, there; another one over models.
    """
    observed = unique_share(y, factor, given)
    drawn = [unique_share(y, other, given) for other in _permuted(factor, models, blocks)]
    return _share_beyond(observed, iter(drawn)), float(np.mean(drawn))


def permutations(values: NDArray[Any], blocks: Codes) -> Iterator[NDArray[Any]]:
    """Yield R permutations of (C,) values, each within its block."""
    generator = np.random.default_rng([SEED, len(values)])
    places = [np.flatnonzero(blocks == block) for block in np.unique(blocks)]
    for _ in range(RESAMPLES):
        shuffled = values.copy()
        for own in places:
            shuffled[own] = values[generator.permutation(own)]
        yield shuffled


def _permuted(factor: Codes, models: Codes, blocks: Codes) -> Iterator[Codes]:
    """Yield permutations of a factor; over models each is given the value of another one."""
    for within in (blocks, models):
        if varies_within(factor, within):
            yield from permutations(factor, within)
            return
    distinct, first, inverse = np.unique(models, return_index=True, return_inverse=True)
    for of_model in permutations(factor[first], np.zeros(len(distinct), np.int64)):
        yield of_model[inverse]


# --------------------------------------------------------------------------------- associations
@dataclass(frozen=True)
class Ranked:
    """Values of conditions as ranks within their model, centred there: (C,).

    Where a value is the same for all conditions of every model there is nothing to compare within
    one: then they are the ranks of model means, (models,), and ``models`` has one of each.
    """

    ranks: Floats
    models: Codes


def ranked(values: Floats, models: Codes, *, within: bool) -> Ranked:
    """Return the ranks of (C,) values, within models or of their means."""
    distinct = np.unique(models)
    if not within:
        means = np.array([values[models == model].mean() for model in distinct])
        return Ranked(_centred_ranks(means), distinct)
    found = np.empty(len(values))
    for model in distinct:
        found[models == model] = _centred_ranks(values[models == model])
    return Ranked(found, models)


def rank_association(x: Floats, y: Floats, models: Codes) -> float:
    """Return the rank correlation of (C,) values within models; of model means where ``x`` does not
    vary within any. NaN where nothing varies."""
    within = varies_within(codes_of(list(x)), models)
    a, b = (ranked(values, models, within=within).ranks for values in (x, y))
    return _cosine(a, b)


def partial_rank_association(x: Floats, y: Floats, z: Floats, models: Codes) -> float:
    """Return the association of x and y with that of z taken out of both; NaN where z decides one
    of them."""
    within = varies_within(codes_of(list(x)), models)
    a, b, c = (ranked(values, models, within=within).ranks for values in (x, y, z))
    ab, ac, bc = _cosine(a, b), _cosine(a, c), _cosine(b, c)
    rest = (1 - ac**2) * (1 - bc**2)
    return (ab - ac * bc) / float(np.sqrt(rest)) if rest > 1e-12 else float("nan")


def rank_association_p(x: Floats, y: Floats, models: Codes) -> float:
    """Return the two-sided p of ``rank_association``, x permuted within models, or over them where
    it does not vary within any."""
    within = varies_within(codes_of(list(x)), models)
    a, b = (ranked(values, models, within=within) for values in (x, y))
    observed = _cosine(a.ranks, b.ranks)
    if np.isnan(observed):
        return float("nan")
    blocks = a.models if within else np.zeros(len(a.ranks), np.int64)
    drawn = (abs(_cosine(other, b.ranks)) for other in permutations(a.ranks, blocks))
    return _share_beyond(abs(observed), drawn)


def rank_association_draws(x: Floats, y: Floats, models: Codes) -> Floats:
    """Return (R,) values of ``rank_association`` over resampled models; empty with too few."""
    within = varies_within(codes_of(list(x)), models)
    if not within:
        means = [ranked(values, models, within=False) for values in (x, y)]
        distinct = means[0].models
        level = [np.array([v[models == m].mean() for m in distinct]) for v in (x, y)]
        return over_models(
            lambda places, _: _cosine(*(_centred_ranks(v[places]) for v in level)),
            np.arange(len(distinct)),
        )
    a, b = (ranked(values, models, within=True).ranks for values in (x, y))
    return over_models(lambda places, _: _cosine(a[places], b[places]), models)


def _centred_ranks(values: Floats) -> Floats:
    """Return average ranks less their mean; ties share one."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[inverse]
    return np.asarray(ranks - ranks.mean())


def _cosine(a: Floats, b: Floats) -> float:
    scale = float(np.sqrt(np.square(a).sum() * np.square(b).sum()))
    return float(a @ b) / scale if scale > 0 else float("nan")


# ---------------------------------------------------------------------------------- resampling
def over_models(statistic: Callable[[Codes, Codes], float], models: Codes) -> Floats:
    """Return (R,) values of a statistic over resampled models; empty with too few models.

    ``statistic`` is called with the places of the resample's conditions in the original, and with
    their models: one drawn twice is two models.
    """
    places = [np.flatnonzero(models == model) for model in np.unique(models)]
    if len(places) < FEWEST_MODELS:
        return np.empty(0)
    generator = np.random.default_rng([SEED, len(places), 1])
    found = np.empty(RESAMPLES)
    for k, drawn in enumerate(generator.integers(0, len(places), (RESAMPLES, len(places)))):
        own = [places[model] for model in drawn]
        copies = np.repeat(np.arange(len(own)), [len(each) for each in own])
        found[k] = statistic(np.concatenate(own), copies.astype(np.int64))
    return found


def ends(draws: Floats) -> tuple[float, float]:
    """Return both ends of the 95 % percentile interval; NaN draws do not count."""
    known = draws[~np.isnan(draws)]
    if not len(known):
        return float("nan"), float("nan")
    low, high = np.quantile(known, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def _share_beyond(observed: float, drawn: Iterator[float]) -> float:
    # Rounding must not part a permutation from an equal one.
    exceeding = sum(value >= observed - 1e-12 for value in drawn)
    return (1 + exceeding) / (1 + RESAMPLES)


def _dummies(codes: Codes) -> Floats:
    return np.eye(int(codes.max()) + 1)[codes]


def _unexplained(y: Floats, design: Floats) -> float:
    """Return the sum of squares that a least-squares fit leaves."""
    centred = y - y.mean()
    fitted = design @ np.linalg.lstsq(design, centred, rcond=None)[0]
    return float(np.square(centred - fitted).sum())
