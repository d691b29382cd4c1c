"""Condition means reduced to one number; the unit of whatever pools conditions is the model."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl

from sweeps.declaration.matched_seeds import FEWEST_SEEDS
from sweeps.findings.claim_spec import Measure
from sweeps.findings.estimate import Estimate, less
from sweeps.findings.verdicts import ONE_BOUND
from sweeps.statistics.associations import (
    FEWEST_MODELS,
    codes_of,
    ends,
    over_models,
    partial_rank_association,
    rank_association,
    rank_association_draws,
    rank_association_p,
    unique_share,
    unique_share_p,
    varies_within,
)
from sweeps.statistics.intervals import Floats, Mean, mean_of


def reduce_conditions(measure: Measure, table: pl.DataFrame) -> Estimate | str:
    """Return the estimate of conditions, a row each with its ``values``; or why there is none."""
    means = table["values"].list.mean().to_numpy()
    if measure.reduce in ("min", "max"):
        return _extreme(measure.reduce, table)
    if measure.reduce == "mean":
        units = _by_model(table, means)
        return _from_mean(mean_of(np.array(list(units.values()))), table.height, len(units))
    models = codes_of(table["model"].to_list())
    if measure.reduce == "gap":
        return _gap(measure, table, means)
    if measure.reduce == "variance_explained":
        assert measure.by is not None
        return _share_of_variance(measure.by, table, means, models)
    assert measure.with_column is not None
    return _association(measure.with_column, table, means, models)


def _by_model(table: pl.DataFrame, means: Floats) -> dict[str, float]:
    """Return the mean of each model's conditions: the unit of what pools them."""
    names = table["model"].to_list()
    return {
        name: float(means[[other == name for other in names]].mean())
        for name in dict.fromkeys(names)
    }


def _from_mean(mean: Mean, conditions: int, models: int) -> Estimate | str:
    if models < FEWEST_SEEDS:
        noun = "model is" if models == 1 else "models are"
        return f"{models} {noun} too few for an interval over models"
    low, high = mean.interval
    notes = (f"{conditions} conditions",) if conditions != models else ()
    return Estimate(mean.value, low, high, models, models, "models", notes, mean=mean)


def _extreme(reduce: str, table: pl.DataFrame) -> Estimate:
    """Return the smallest or largest condition mean.

    The extreme of noisy means lies beyond that of the true ones, so its ends are of bounds: beyond
    one value lie all conditions, each at its level; short of the other at least one, with
    Bonferroni's correction. A condition with fewer than 3 seeds may be anywhere.
    """
    sign = 1.0 if reduce == "min" else -1.0
    means = [mean_of(sign * values.to_numpy()) for values in table["values"]]
    sure = [
        mean
        for mean, values in zip(means, table["values"], strict=True)
        if len(values) >= FEWEST_SEEDS
    ]
    value = sign * min(mean.value for mean in means)
    low = min((m.bound(ONE_BOUND) for m in sure), default=-np.inf)
    high = min((m.bound(1 - ONE_BOUND / len(sure)) for m in sure), default=np.inf)
    if len(sure) < len(means):
        low = -np.inf
    near, far = sorted((sign * low, sign * high))
    return Estimate(value, near, far, len(sure), len(means), "conditions")


def _gap(measure: Measure, table: pl.DataFrame, means: Floats) -> Estimate | str:
    """Return the mean of one group less that of another; models with both are their own pairs."""
    assert measure.by is not None
    assert measure.groups is not None
    values = [str(value) for value in table[measure.by]]
    sides = []
    for group in measure.groups:
        own = [value == str(group) for value in values]
        if not any(own):
            return f"no condition has {measure.by} {group}"
        sides.append(_by_model(table.filter(pl.Series(own)), means[own]))
    shared = [name for name in sides[0] if name in sides[1]]
    if shared:
        apart = np.array([sides[0][name] - sides[1][name] for name in shared])
        return _from_mean(mean_of(apart), table.height, len(shared))
    fewest = min(len(side) for side in sides)
    if fewest < FEWEST_SEEDS:
        return f"a group of {fewest} models is too small for an interval over models"
    one, other = (mean_of(np.array(list(side.values()))) for side in sides)
    return _from_mean(less(one, other), table.height, sum(map(len, sides)))


def _share_of_variance(by: str, table: pl.DataFrame, means: Floats, models: Any) -> Estimate | str:
    """Return the share of variance that a column explains alone: given the objective where it is
    the same within each model, given the model where it varies there."""
    factor = codes_of(table[by].to_list())
    if len(np.unique(factor)) < 2:
        return f"only one value of {by}"
    within = varies_within(factor, models)
    given = models if within else codes_of(table["objective"].to_list())
    count = len(np.unique(models))
    if count < FEWEST_MODELS:
        return f"{count} models are too few: intervals need {FEWEST_MODELS}"
    value = unique_share(means, factor, given)
    if np.isnan(value):
        return "not defined for these conditions"
    draws = over_models(
        lambda places, copies: unique_share(
            means[places], factor[places], copies if within else given[places]
        ),
        models,
    )
    p_value = unique_share_p(means, factor, given, models)
    low, high = ends(draws)
    notes = (f"{by} given {'model' if within else 'objective'}",)
    return Estimate(value, low, high, count, count, "models", notes, p_value, draws=draws)


def _association(name: str, table: pl.DataFrame, means: Floats, models: Any) -> Estimate | str:
    within = varies_within(codes_of(table[name].to_list()), models)
    if within:
        # A model for which the column does not vary has nothing to say of how both go together.
        table = table.filter(pl.col(name).n_unique().over("model") > 1)
        means = table["values"].list.mean().to_numpy()
        models = codes_of(table["model"].to_list())
    other = table[name].cast(pl.Float64).to_numpy()
    count = len(np.unique(models))
    if count < FEWEST_MODELS:
        noun = "model has" if count == 1 else "models have"
        several = f"several values of {name}" if within else name
        return f"{count} {noun} {several}: intervals need {FEWEST_MODELS}"
    value = rank_association(other, means, models)
    if np.isnan(value):
        return "not defined for these conditions"
    draws = rank_association_draws(other, means, models)
    low, high = ends(draws)
    change = table["_change"].to_numpy()
    notes = ["within models" if within else "over model means"]
    if (change > 0).all():
        partial = partial_rank_association(other, means, np.log(change), models)
        if not np.isnan(partial):
            notes.append(f"{partial:.2g} with log mean change taken out")
    return Estimate(
        value,
        low,
        high,
        count,
        count,
        "models",
        tuple(notes),
        rank_association_p(other, means, models),
        draws=draws,
    )
