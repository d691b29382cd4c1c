"""Condition means reduced to one number; the unit of whatever pools conditions is the model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import polars as pl

from sweeps.declaration.matched_seeds import FEWEST_SEEDS
from sweeps.declaration.settings import condition_settings, control_options
from sweeps.findings.claim_spec import Measure
from sweeps.findings.estimate import Estimate, less
from sweeps.findings.verdicts import ONE_BOUND
from sweeps.statistics.associations import (
    FEWEST_MODELS,
    ends,
    partial_rank_association,
    rank_association,
    rank_association_draws,
    rank_association_p,
    unique_share,
    unique_share_by_chance,
    unique_share_draws,
    varies_within,
)
from sweeps.statistics.fits.additive import codes_of
from sweeps.statistics.intervals import Floats, Mean, mean_of
from sweeps.statistics.stacks import STACK


def reduce_conditions(
    measure: Measure, table: pl.DataFrame, keys: Sequence[str], absent: int = 0
) -> Estimate | str:
    """Return the estimate of conditions; or why there is none.

    Args:
        table: a row a condition: its ``keys``, ``mean`` of the statistic over seeds, ``values``
            of them, ``moved`` by leaving a group of probe sequences out, ``change`` of the blocks,
            and the columns that the measure names.
        absent: how many conditions are selected of which nothing is known yet.
    """
    if measure.reduce in ("min", "max"):
        return _extreme(measure.reduce, table, absent)
    if measure.reduce == "mean":
        found = _from_mean(_over_models(table), table)
        return found if isinstance(found, str) else replace(found, conditions=table)
    if measure.reduce == "gap":
        return _gap(measure, table, keys)
    if measure.reduce == "variance_explained":
        assert measure.by is not None
        return _share_of_variance(measure.by, table, keys)
    assert measure.with_column is not None
    return _association(measure.with_column, table)


def _over_models(table: pl.DataFrame) -> Floats:
    """Return the mean of each model's conditions: the unit of what pools them."""
    models = table.group_by("model", maintain_order=True).agg(pl.col("mean").mean())
    return models["mean"].to_numpy()


def _from_mean(values: Floats, table: pl.DataFrame) -> Estimate | str:
    if len(values) < FEWEST_SEEDS:
        noun = "model is" if len(values) == 1 else "models are"
        return f"{len(values)} {noun} too few for an interval over models"
    return _estimated(mean_of(values), len(values), table.height)


def _estimated(mean: Mean, models: int, conditions: int) -> Estimate:
    low, high = mean.interval
    notes = (f"{conditions} conditions",) if conditions != models else ()
    return Estimate(mean.value, low, high, models, models, "models", notes, mean=mean)


def _extreme(reduce: str, table: pl.DataFrame, absent: int) -> Estimate:
    """Return the smallest or largest condition mean.

    The extreme of noisy means lies beyond that of the true ones, so its ends are of bounds: beyond
    one value lie all conditions, each at its level; short of the other at least one, with
    Bonferroni's correction. A condition with fewer than 3 seeds, or none yet, may be anywhere.
    """
    sign = 1.0 if reduce == "min" else -1.0
    means, sure = [], []
    for values, moved in table.select("values", "moved").iter_rows():
        rows = None if moved is None or None in moved else sign * np.array(moved)
        means.append(mean_of(sign * np.array(values), rows))
        if len(values) >= FEWEST_SEEDS:
            sure.append(means[-1])
    value = sign * min(mean.value for mean in means)
    low = min((m.bound(ONE_BOUND) for m in sure), default=-np.inf)
    high = min((m.bound(1 - ONE_BOUND / len(sure)) for m in sure), default=np.inf)
    if len(sure) < len(means) + absent:
        low = -np.inf
    near, far = sorted((sign * low, sign * high))
    notes = () if all(mean.rows for mean in means) else ("for these probe rows",)
    return Estimate(value, near, far, len(sure), len(means), "conditions", notes)


# ------------------------------------------------------------------------------------- differences
def _gap(measure: Measure, table: pl.DataFrame, keys: Sequence[str]) -> Estimate | str:
    """Return the mean of one group less that of another, over conditions alike in all else."""
    assert measure.by is not None
    assert measure.groups is not None
    sides = []
    for group in measure.groups:
        try:
            own = table.filter(pl.col(measure.by) == group)
        except pl.exceptions.PolarsError:  # a text where numbers are, or a number among texts
            own = table.clear()
        if own.is_empty():
            return f"no condition has {measure.by} {group}"
        sides.append(own)
    return mean_difference(sides[0], sides[1], keys, [measure.by])


def mean_difference(
    one: pl.DataFrame, other: pl.DataFrame, keys: Sequence[str], apart: Sequence[str]
) -> Estimate | str:
    """Return the mean of one set of conditions less that of another.

    Each is paired with the one that differs from it in the columns ``apart`` alone, and a model's
    differences are averaged. Where no model is in both, models are compared over those conditions
    that all of them have.
    """
    alike = [name for name in keys if name not in _with_options(apart)]
    pairs = one.join(other, on=alike, suffix="_other", nulls_equal=True)
    if not pairs.is_empty():
        apart_by = pairs.with_columns(mean=pl.col("mean") - pl.col("mean_other"))
        return _from_mean(_over_models(apart_by), apart_by)
    if set(one["model"]) & set(other["model"]):
        return "no two conditions of a model differ in this alone"
    # What a model is, and which stacks it has, is no condition that others could share.
    cells = [name for name in alike if name not in {*_of_models(), STACK}]
    both = pl.concat([one, other], how="diagonal_relaxed")
    models = both["model"].n_unique()
    if cells:
        both = both.filter(pl.col("model").n_unique().over(cells) == models)
    if both.is_empty():
        return "the models of the two groups have no condition in common"
    ours = pl.col("model").is_in(one["model"].unique().implode())
    values = [_over_models(both.filter(side)) for side in (ours, ~ours)]
    fewest = min(map(len, values))
    if fewest < FEWEST_SEEDS:
        noun = "model is" if fewest == 1 else "models is"
        return f"a group of {fewest} {noun} too small for an interval over models"
    return _estimated(less(mean_of(values[0]), mean_of(values[1])), models, both.height)


def _with_options(names: Sequence[str]) -> set[str]:
    """Return columns, and with the control its options: they differ as it does."""
    return {*names, *(control_options() if "control" in names else ())}


def _of_models() -> set[str]:
    """Return the columns that say which model a condition has."""
    return {"model", *(one.name for one in condition_settings() if one.path[0] == "model")}


# ------------------------------------------------------------------------------------ associations
def _share_of_variance(by: str, table: pl.DataFrame, keys: Sequence[str]) -> Estimate | str:
    """Return the share of variance that a column explains alone, given all else that tells
    conditions apart: of a family the objective, of an objective the model."""
    factor, models = codes_of(table[by].to_list()), codes_of(table["model"].to_list())
    count, values = len(np.unique(models)), len(np.unique(factor))
    if values < 2:
        return f"only one value of {by}"
    if count < FEWEST_MODELS:
        return f"{count} models are too few: intervals need {FEWEST_MODELS}"
    within = varies_within(factor, models)
    if not within and values == count:
        return f"every model has a {by} of its own"
    names = [name for name in keys if name not in _of_models() | _with_options([by])]
    names = [name for name in names if table[name].n_unique() > 1]
    others = [codes_of(table[name].to_list()) for name in names]
    means = table["mean"].to_numpy()
    value = unique_share(means, factor, [models, *others] if within else others)
    if np.isnan(value):
        return "not defined for these conditions"

    blocks = codes_of(table.select("model", *names).rows())
    p_value, chance = unique_share_by_chance(
        means, factor, [models, *others] if within else others, models, blocks
    )
    draws = unique_share_draws(means, factor, others, models, within=within)
    low, high = ends(draws)
    said = ["model", *names] if within else names
    notes = (f"{by} given {', '.join(said)}",) if said else ()
    # A share cannot be negative: what such a column explains by chance is taken off its lower end.
    low = max(low - chance, 0.0)
    return Estimate(
        value, low, high, count, count, "models", notes, p_value, chance=chance, draws=draws
    )


def _association(name: str, table: pl.DataFrame) -> Estimate | str:
    within = varies_within(codes_of(table[name].to_list()), codes_of(table["model"].to_list()))
    if within:
        # A model for which the column does not vary has nothing to say of how both go together.
        table = table.filter(pl.col(name).n_unique().over("model") > 1)
    models = codes_of(table["model"].to_list())
    means, other = table["mean"].to_numpy(), table[name].to_numpy()
    count = len(np.unique(models))
    if count < FEWEST_MODELS:
        noun = "model has" if count == 1 else "models have"
        several = f"several values of {name}" if within else name
        return f"{count} {noun} {several}: intervals need {FEWEST_MODELS}"
    value = rank_association(other, means, models)
    if np.isnan(value):
        return "not defined for these conditions"
    low, high = ends(rank_association_draws(other, means, models))
    change = table["change"].to_numpy()
    notes = ["within models" if within else "over model means"]
    if (change > 0).all():
        partial = partial_rank_association(other, means, np.log(change), models)
        if not np.isnan(partial):
            notes.append(f"{partial:.2g} with log mean change taken out")
    p_value = rank_association_p(other, means, models)
    return Estimate(value, low, high, count, count, "models", tuple(notes), p_value)
