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
from functools import lru_cache
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sweeps.statistics.fits.additive import (
    Codes,
    Fits,
    GivenFit,
    codes_of,
    dummies,
    given_fit,
    lots,
    meetings,
)
from sweeps.statistics.fits.resampled import ResampledFits, resampled_fits
from sweeps.statistics.intervals import LEVEL, Floats

RESAMPLES = 1_999
SEED = 20260417
FEWEST_MODELS = 10


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
    base = given_fit(given, len(y))
    residual = base.left_of(y - y.mean())
    both = GivenFit(base.absorbed, np.hstack([base.others, dummies(factor)]))
    unexplained = [float(np.square(one).sum()) for one in (residual, both.left_of(residual))]
    return (unexplained[0] - unexplained[1]) / total


def unique_share_by_chance(
    y: Floats, factor: Codes, given: Sequence[Codes], models: Codes, blocks: Codes
) -> tuple[float, float]:
    """Return how a share stands to those of a permuted factor: the part of them that is at least as
    large (p), and their mean, which is what such a factor explains by chance.

    A factor that varies within ``blocks``, conditions alike in all else, is permuted within them;
    one that varies within models only, there; another one over models.
    """
    observed = unique_share(y, factor, given)
    drawn = _shares_of_factors(y, np.stack(list(_permuted(factor, models, blocks))), given)
    return _share_beyond(observed, drawn), float(np.mean(drawn))


def unique_share_draws(
    y: Floats, factor: Codes, given: Sequence[Codes], models: Codes, *, within: bool
) -> Floats:
    """Return (R,) values of ``unique_share`` over resampled models, whose differences are given
    too where ``within``; empty with too few models.

    A model that is drawn twice is two models: that is the same fit as one of twice the weight, for
    what its copies have in common is given where models are.
    """
    resamples = _drawn(models)
    if not len(resamples):
        return np.empty(0)
    fits = _resampled_fits(
        np.stack([*([models] if within else []), *given, factor]).tobytes(),
        len(y),
        models.tobytes(),
    )
    centred = y - y.mean()
    added = fits.added(centred)
    own = np.unique(models, return_inverse=True)[1]
    totals = np.empty(len(resamples))
    for some in lots(len(resamples), len(y)):
        weights = resamples[some][:, own]
        means = (weights @ centred / weights.sum(axis=1))[:, None]
        totals[some] = (weights * np.square(centred - means)).sum(axis=1)
    return np.where(totals > 0, added / np.where(totals > 0, totals, 1.0), np.nan)


def _shares_of_factors(y: Floats, factors: Codes, given: Sequence[Codes]) -> Floats:
    """Return (R,) values of ``unique_share`` for R factors of the same levels: (R, C)."""
    centred = y - y.mean()
    base = given_fit(given, len(y))
    residual = base.left_of(centred)
    levels, found = np.arange(factors.max() + 1), []
    for lot in lots(len(factors), factors.shape[1] * len(levels)):
        some = factors[lot]
        columns = (some[:, :, None] == levels).astype(np.float64)
        shared = np.matmul(base.basis.T, columns)
        gram = -np.matmul(shared.transpose(0, 2, 1), shared)
        gram[:, levels, levels] += columns.sum(axis=1)
        met = meetings(base.absorbed, some, len(levels))
        gram -= np.matmul(met.transpose(0, 2, 1), met / base.sizes[:, None])
        fits = Fits(*np.linalg.eigh(gram), np.full(len(some), float(len(y))))
        found.append(fits.explained(np.matmul(residual, columns)))
    return np.asarray(np.concatenate(found) / np.square(centred).sum())


@lru_cache(maxsize=8)
def _resampled_fits(factors: bytes, conditions: int, models: bytes) -> ResampledFits:
    """Return the fits to (F, C) factors, of which the last is the one in question, over resampled
    models: what is explained by them is asked of every metric."""
    *given, factor = np.frombuffer(factors, np.int64).reshape(-1, conditions)
    own = np.unique(np.frombuffer(models, np.int64), return_inverse=True)[1].astype(np.int64)
    return resampled_fits(given, factor, own, _drawn(own))


def permutations(values: NDArray[Any], blocks: Codes) -> Iterator[NDArray[Any]]:
    """Yield R permutations of (C,) values, each within its block."""
    for places in _permuted_places(blocks.astype(np.int64).tobytes()):
        yield values[places]


@lru_cache(maxsize=16)
def _permuted_places(blocks: bytes) -> Codes:
    """Return (R, C) places, each row permuted within the blocks of C conditions: claims ask for the
    same ones many times."""
    block = np.frombuffer(blocks, np.int64)
    generator = np.random.default_rng([SEED, len(block)])
    order = np.argsort(block, kind="stable")
    inside = np.split(order, np.flatnonzero(np.diff(block[order])) + 1)
    inside = [own for own in inside if len(own) > 1]
    # Blocks of one size that follow each other are permuted in one call, as one after another.
    turns = np.flatnonzero(np.diff([len(own) for own in inside])) + 1
    alike = [inside[a:b] for a, b in pairwise([0, *turns.tolist(), len(inside)])]
    stacked = [np.stack(own) for own in alike if own]
    places = np.tile(np.arange(len(block)), (RESAMPLES, 1))
    for row in places:
        for own in stacked:
            row[own] = generator.permuted(own, axis=1)
    return places


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
    drawn = np.stack(list(permutations(a.ranks, blocks))) @ b.ranks
    scale = np.sqrt(np.square(a.ranks).sum() * np.square(b.ranks).sum())
    return _share_beyond(abs(observed), np.abs(drawn / scale))


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
    drawn = _drawn(models)
    if not len(drawn):
        return np.empty(0)
    own = np.unique(models, return_inverse=True)[1]
    together, alone, other = (drawn @ np.bincount(own, each) for each in (a * b, a * a, b * b))
    scale = np.sqrt(alone * other)
    return np.where(scale > 0, together / np.where(scale > 0, scale, 1.0), np.nan)


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
    resamples = _resamples(len(places))
    found = np.empty(len(resamples))
    for k, drawn in enumerate(resamples):
        own = [places[model] for model in drawn]
        copies = np.repeat(np.arange(len(own)), [len(each) for each in own])
        found[k] = statistic(np.concatenate(own), copies.astype(np.int64))
    return found


def _resamples(models: int) -> Codes:
    """Return (R, models) places of the models that are drawn; no row with too few."""
    if models < FEWEST_MODELS:
        return np.empty((0, models), np.int64)
    generator = np.random.default_rng([SEED, models, 1])
    return generator.integers(0, models, (RESAMPLES, models))


def _drawn(models: Codes) -> Floats:
    """Return (R, models) numbers: how often each model is in each resample."""
    resamples = _resamples(len(np.unique(models)))
    rows = np.arange(len(resamples))[:, None] * resamples.shape[1]
    counts = np.bincount((resamples + rows).ravel(), minlength=resamples.size)
    return counts.reshape(resamples.shape).astype(np.float64)


def ends(draws: Floats) -> tuple[float, float]:
    """Return both ends of the 95 % percentile interval; NaN draws do not count."""
    known = draws[~np.isnan(draws)]
    if not len(known):
        return float("nan"), float("nan")
    low, high = np.quantile(known, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def _share_beyond(observed: float, drawn: Floats) -> float:
    # Rounding must not part a permutation from an equal one.
    exceeding = int((drawn >= observed - 1e-12).sum())
    return (1 + exceeding) / (1 + RESAMPLES)
