"""Additive fits over resampled models: weights of models, never of conditions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from sweeps.statistics.fits.additive import Codes, Fits, GivenFit, dummies, given_fit, lots
from sweeps.statistics.intervals import Floats


@dataclass(frozen=True, eq=False)
class ResampledFits:
    """Fits over resampled models to what is given, and to that with a factor.

    What is given is absorbed as in ``GivenFit``: per resample its columns' products with the others
    are taken out of theirs (Frisch, Waugh and Lovell). All products are sums over models, so that a
    resample weighs M of them and never the conditions.
    """

    own: Codes
    fit: GivenFit
    resamples: Floats
    base: Fits
    both: Fits

    def added(self, y: Floats) -> Floats:
        """Return (R,) sums of squares that the factor adds to those explained of (C,) values."""
        found = np.empty(len(self.resamples))
        sums = _sums(self.own, self.fit.absorbed, y[:, None])[:, :, 0]
        along = _by_model(self.own, self.fit.others * y[:, None])
        for some, weights, level_sizes, shared in _absorbed(self.own, self.fit, self.resamples):
            of_levels = weights @ sums / level_sizes
            rest = weights @ along - np.matmul(of_levels[:, None, :], shared)[:, 0]
            both, base = (
                Fits(fits.sizes[some], fits.axes[some], fits.scale[some])
                for fits in (self.both, self.base)
            )
            given = base.sizes.shape[1]
            found[some] = both.explained(rest) - base.explained(rest[:, :given])
        return found


def _absorbed(
    own: Codes, fit: GivenFit, resamples: Floats
) -> Iterator[tuple[slice, Floats, Floats, Floats]]:
    """Yield some resamples at a time: which, their weights of models, how many conditions each
    absorbed level has (1 where none: nothing is divided there), and its products with the other
    columns, (R, levels, P)."""
    ones = np.ones((len(own), 1))
    counts = _sums(own, fit.absorbed, ones)[:, :, 0]
    products = _sums(own, fit.absorbed, fit.others)
    models, levels, columns = products.shape
    for some in lots(len(resamples), levels * columns):
        weights = resamples[some]
        shared = (weights @ products.reshape(models, -1)).reshape(-1, levels, columns)
        yield some, weights, np.maximum(weights @ counts, 1.0), shared


def resampled_fits(
    given: Sequence[Codes], factor: Codes, own: Codes, resamples: Floats
) -> ResampledFits:
    """Return the fits to factors of (C,) levels, and to them with one more.

    Args:
        own: (C,) places of the models of conditions.
        resamples: (R, models) numbers, how often each model is in each resample.
    """
    base = given_fit(given, len(own))
    fit = GivenFit(base.absorbed, np.hstack([base.others, dummies(factor)]))
    columns = fit.others.shape[1]
    products = np.stack(
        [fit.others[own == one].T @ fit.others[own == one] for one in range(int(own.max()) + 1)]
    ).reshape(-1, columns**2)
    gram = (resamples @ products).reshape(-1, columns, columns)
    scale = np.trace(gram, axis1=1, axis2=2)
    for some, _, level_sizes, shared in _absorbed(own, fit, resamples):
        gram[some] -= np.matmul(shared.transpose(0, 2, 1), shared / level_sizes[:, :, None])
    of_given = gram[:, : base.others.shape[1], : base.others.shape[1]]
    both, alone = (Fits(*np.linalg.eigh(one), scale) for one in (gram, of_given))
    return ResampledFits(own, fit, resamples, alone, both)


def _by_model(own: Codes, columns: Floats) -> Floats:
    """Return (models, P) sums of (C, P) columns."""
    return np.stack([np.bincount(own, one) for one in columns.T], axis=1)


def _sums(own: Codes, levels: Codes, columns: Floats) -> Floats:
    """Return (models, levels, P) sums of (C, P) columns."""
    models, count = int(own.max()) + 1, int(levels.max()) + 1
    cells = own * count + levels
    sums = [np.bincount(cells, one, models * count) for one in columns.T]
    return np.stack(sums, axis=1).reshape(models, count, -1).astype(np.float64)
