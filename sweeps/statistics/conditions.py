"""Profiles gathered into conditions: means over seeds with intervals that carry n.

The unit of replication of one condition is the seed; of whatever pools several, the model.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl

from sweeps.declaration.matched_seeds import FEWEST_SEEDS
from sweeps.errors import UserError, closest
from sweeps.statistics.intervals import (
    Floats,
    ends_of,
    mean_intervals,
    moments,
    together,
)
from sweeps.statistics.profile_rows import CALL
from sweeps.statistics.profiles import (
    BEYOND,
    DEFAULT_BY,
    FLOOR,
    QUANTITIES,
    Profiles,
    varied_settings,
)
from sweeps.statistics.row_error import deviations, mean_deviations
from sweeps.statistics.stacks import PROFILE, STACK, several_stacks

PROPAGATION_DRAWS = 20

# Of runs, shown as means of a condition; of doses the median, as verdicts take it.
_ABOUT = ("mean", "null", "embedding_change", "saturated", "dose", "propagation", "propagation_sd")


def dose_of_seeds() -> pl.Expr:
    """Return the dose of a condition: the median of its seeds, since one that is idle, or moved by
    one block, would decide a mean."""
    return pl.col("dose").median()


def condition_columns(runs: pl.DataFrame) -> list[str]:
    """Return model, objective, control, ``stack`` where some model has several, and every other
    setting that tells two conditions apart."""
    stack = [STACK] if several_stacks(runs) else []
    return [*DEFAULT_BY, *stack, *varied_settings(runs, DEFAULT_BY)]


def everyone(profiles: Profiles) -> pl.DataFrame:
    """Return the columns of ``runs`` of each run of a selection, with and without a profile."""
    names = profiles.left_out.columns[:-1]
    return pl.concat([frame.select(names) for frame in (profiles.runs, profiles.left_out)])


def require_one_a_seed(runs: pl.DataFrame, keys: Sequence[str], what: str) -> None:
    """Raise UserError where two runs of one condition have one seed: no seed then has a partner."""
    double = runs.filter(pl.struct([*keys, "seed"]).is_duplicated())
    if not double.is_empty():
        ids = ", ".join(double["run_id"].sort()[:2])
        raise UserError(
            f"{what}: runs {ids} have the same settings and seed, so that no seed has one"
            " counterpart; ask for one sweep, or forget one of them"
        )


def parse_by(text: str | None, runs: pl.DataFrame) -> list[str]:
    """Return the columns of ``--by``; raise UserError for one that runs do not have."""
    if text is None:
        return condition_columns(runs)
    names = [name.strip() for name in text.split(",") if name.strip()]
    for name in names:
        if name not in runs.columns:
            hint = closest(name, runs.columns)
            raise UserError(f"--by {name}: runs have no such column; {hint}")
        if name in ("run_id", *_ABOUT):
            raise UserError(
                f"--by {name}: that is one of a run, or measured; group by settings, such as"
                " model,objective,control (--runs exports a row a run)"
            )
    if not names:
        raise UserError("--by: names no column; for instance --by model,objective,control")
    return list(dict.fromkeys(names))


def summarise(
    profiles: Profiles,
    by: Sequence[str] | None = None,
    quantities: Sequence[str] = (*QUANTITIES, BEYOND),
) -> pl.DataFrame:
    """Return one row per condition, in the order of the runs; ``by`` groups them otherwise.

    Columns: ``by``; ``n`` (runs) and ``seeds`` (distinct); ``diverged`` and ``missing`` (runs of
    the condition without a profile); means over runs of ``mean``, the change of blocks, ``null``,
    ``embedding_change``, ``saturated``, ``propagation`` and ``propagation_sd``, the median of
    ``dose``; for each
    quantity its mean and ``_low``, ``_high``: over seeds, and with the error of the probe's rows
    where they were measured in groups (``rows``). Where ``by`` pools conditions, mean and interval
    are over models. ``beyond_propagation`` says that the profile is steeper than depth alone makes
    it; ``flags``, in words, what a reader must know.
    """
    runs = everyone(profiles)
    keys = condition_columns(runs)
    by = keys if by is None else list(by)
    order = runs.group_by(by, maintain_order=True).agg(
        conditions=pl.struct(keys).n_unique().cast(pl.Int64)
    )
    # A run of two stacks is one run.
    run, diverged = pl.col("run_id"), pl.col("status") == "diverged"
    counts = profiles.left_out.group_by(by).agg(
        diverged=run.filter(diverged).n_unique().cast(pl.Int64),
        missing=run.filter(~diverged).n_unique().cast(pl.Int64),
    )
    means = profiles.runs.group_by(by).agg(
        run.n_unique().cast(pl.Int64).alias("n"),
        pl.col("seed").n_unique().cast(pl.Int64).alias("seeds"),
        pl.col("model").n_unique().cast(pl.Int64).alias("models"),
        alike=(pl.col("seed").n_unique() > 1) & (pl.col("slope").n_unique() == 1),
    )
    about = _by_model(profiles.runs, keys, by, _ABOUT).group_by(by).agg(pl.col(*_ABOUT).mean())
    values = _units(profiles, keys, by, quantities)
    table = (
        order.join(means, on=by, how="left", nulls_equal=True, maintain_order="left")
        .join(about, on=by, how="left", nulls_equal=True, maintain_order="left")
        .join(counts, on=by, how="left", nulls_equal=True, maintain_order="left")
        .join(values, on=by, how="left", nulls_equal=True, maintain_order="left")
        .with_columns(pl.col("n", "seeds", "models", "diverged", "missing").fill_null(0))
    )
    found = _intervals(table, quantities)
    columns = [
        pl.Series(f"{name}{end}", values[:, k]).fill_nan(None)
        for k, name in enumerate(quantities)
        for end, values in (("", found[0]), ("_low", found[1]), ("_high", found[2]))
    ]
    rows = pl.col("_deleted").list.len().fill_null(0) > 1
    shown = table.select(
        *by,
        *("n", "seeds", "diverged", "missing", "conditions", "models", "alike"),
        *_ABOUT,
        rows.alias("rows"),
        *columns,
    )
    if BEYOND in quantities:
        shown = shown.with_columns(beyond_propagation=pl.col(f"{BEYOND}_low") > 0)
    return shown.with_columns(flags=_flags(profiles.metric)).drop("conditions", "models", "alike")


def condition_units(
    profiles: Profiles, keys: Sequence[str], quantities: Sequence[str]
) -> pl.DataFrame:
    """Return each condition's seeds, ``_values``, and deviations by group of probe sequences,
    ``_deleted``: lists of structs of the quantities."""
    return _units(profiles, keys, keys, quantities)


def _units(
    profiles: Profiles, keys: Sequence[str], by: Sequence[str], quantities: Sequence[str]
) -> pl.DataFrame:
    """Return, for each group of ``by``, what its interval is over.

    One condition has its seeds. Several have the means of their models, each over its conditions.
    """
    runs = profiles.runs.with_columns(conditions=pl.struct(keys).n_unique().over(by))
    struct = pl.struct(quantities)
    single = runs.filter(pl.col("conditions") == 1)
    seeds = single.group_by(by, maintain_order=True).agg(struct.alias("_values"))
    found = single.select(list(dict.fromkeys([*by, *PROFILE]))).join(
        deviations(profiles, [name for name in quantities if name not in by]),
        on=PROFILE,
        nulls_equal=True,
    )
    of_rows = mean_deviations(found, by, quantities).group_by(by).agg(struct.alias("_deleted"))
    pooled = (
        _by_model(runs.filter(pl.col("conditions") > 1), keys, by, quantities)
        .group_by(by)
        .agg(struct.alias("_values"))
    )
    return pl.concat([seeds, pooled]).join(
        of_rows, on=by, how="left", nulls_equal=True, maintain_order="left"
    )


def _by_model(
    runs: pl.DataFrame, keys: Sequence[str], by: Sequence[str], columns: Sequence[str]
) -> pl.DataFrame:
    """Return the mean of each model within each group of ``by``: over its conditions, each of
    which is the mean of its seeds."""
    return (
        runs.group_by(list(dict.fromkeys([*by, *keys])), maintain_order=True)
        .agg(dose_of_seeds() if name == "dose" else pl.col(name).mean() for name in columns)
        .group_by(list(dict.fromkeys([*by, "model"])), maintain_order=True)
        .agg(pl.col(columns).mean())
    )


def _intervals(table: pl.DataFrame, quantities: Sequence[str]) -> tuple[Floats, Floats, Floats]:
    """Return (conditions, quantities) means, and lower and upper ends.

    Conditions with as many units are treated at once. Of pooled ones a model for which a quantity
    is not defined is left out of it.
    """
    shape = (table.height, len(quantities))
    found = np.full(shape, np.nan), np.full(shape, np.nan), np.full(shape, np.nan)
    cells = table["_values"].to_list(), table["_deleted"].to_list()
    single = (table["conditions"] == 1).to_list()
    alike: dict[tuple[int, int], list[int]] = {}
    extra = _propagation_error(table, quantities)
    for row, (values, deleted) in enumerate(zip(*cells, strict=True)):
        if values and single[row]:
            alike.setdefault((len(values), len(deleted or ())), []).append(row)
        elif values:
            units = _stacked([values], quantities)
            for k in range(len(quantities)):
                known = units[~np.isnan(units[:, k]), k]
                if len(known):
                    mean, variance, freedom = moments(known[:, None])
                    ends = ends_of(mean, variance, freedom)
                    for target, part in zip(found, (mean, *ends), strict=True):
                        target[row, k] = part[0]
    for (_, groups), rows in alike.items():
        units = _stacked([cells[0][row] for row in rows], quantities)
        without = _stacked([cells[1][row] for row in rows], quantities) if groups else None
        mean, variance, freedom = moments(units, without)
        draws = np.full(mean.shape, PROPAGATION_DRAWS - 1.0)
        variance, freedom = together(variance, freedom, extra[rows].ravel(), draws)
        for target, part in zip(found, (mean, *ends_of(mean, variance, freedom)), strict=True):
            target[rows] = part.reshape(len(rows), -1)
    return found


def _stacked(cells: list[list[dict[str, float | None]]], quantities: Sequence[str]) -> Floats:
    """Return (units, conditions · quantities) of conditions that have as many units."""
    return np.array(
        [
            [cell[unit][name] for cell in cells for name in quantities]
            for unit in range(len(cells[0]))
        ],
        dtype=np.float64,
    )


def _propagation_error(table: pl.DataFrame, quantities: Sequence[str]) -> Floats:
    """Return (conditions, quantities) squared errors that the mean of the propagation draws adds.

    Where models are pooled, their spread has it already.
    """
    extra = np.zeros((table.height, len(quantities)))
    if BEYOND in quantities:
        deviation = table["propagation_sd"].fill_null(0).to_numpy()
        single = (table["conditions"] == 1).to_numpy()
        extra[:, list(quantities).index(BEYOND)] = single * deviation**2 / PROPAGATION_DRAWS
    return extra


def _flags(metric: str) -> pl.Expr:
    """What a reader must know before believing a row."""
    seeds = pl.col("seeds")
    one = pl.col("conditions") == 1
    words = [
        pl.when(~one & (pl.col("models") > 1)).then(
            pl.format("pools {} conditions: interval over {} models", "conditions", "models")
        ),
        pl.when(~one & (pl.col("models") < 2)).then(
            pl.format("pools {} conditions of one model: no interval", "conditions")
        ),
        pl.when(one & pl.col("alike")).then(pl.lit("all seeds gave the same slope")),
        pl.when(one & (seeds == 1)).then(pl.lit("one seed, no interval")),
        pl.when(one & (seeds > 1) & (seeds < FEWEST_SEEDS)).then(
            pl.format("only {} seeds: no verdict", seeds)
        ),
        pl.when(pl.col("n") == 0).then(pl.lit("no finished run")),
        pl.when(pl.col("diverged") > 0).then(pl.format("{} diverged", "diverged")),
        pl.when(pl.col("missing") > 0).then(pl.format("{} without a profile", "missing")),
        pl.when(pl.col("mean") < FLOOR.get(metric, 0.0)).then(pl.lit("under the numerical floor")),
        pl.when(pl.col("saturated") >= 0.5).then(pl.lit("at the row-shuffled null")),
    ]
    return (
        pl.concat_list([word.fill_null("") for word in words])
        .list.eval(pl.element().filter(pl.element() != ""))
        .list.join("; ")
    )


def layer_bands(profiles: Profiles, by: Sequence[str] | None = None) -> pl.DataFrame:
    """Return one row per condition and block: ``value``, ``low``, ``high``, ``n`` (runs).

    The interval is over seeds, for these probe rows; over models where ``by`` pools conditions.
    ``without_gradient`` is what noise in the weights gives the block at this mean change;
    ``null`` is the mean of the row-shuffled null over the runs, of which each shuffled once;
    ``null_low`` and ``null_high`` are its range.

    Runs of one condition share L; where a condition mixes models of different L, its blocks are
    kept apart by ``blocks``. ``block_class`` is there where runs say of which class a block is,
    ``block_number`` and ``iteration`` where a block of some model runs several times.
    """
    keys = condition_columns(everyone(profiles))
    by = keys if by is None else list(by)
    several = pl.struct(keys).n_unique().over(by) > 1
    blocks = profiles.blocks.with_columns(
        blocks=pl.len().over(PROFILE).cast(pl.Int32),
        block_depth=pl.col("depth"),
        _several=several,
    ).drop("depth")
    groups = [*by, "blocks", "layer"]
    kinds = ["block_class"] if blocks["block_class"].is_not_null().any() else []
    # Of a model whose every block runs once, layer and block are the same.
    if (blocks["iteration"] > 0).any():
        kinds += CALL
    shown = blocks.group_by(groups, maintain_order=True).agg(
        pl.col("block_depth").first().alias("depth"),
        pl.col(kinds).first(),
        pl.col("run_id").n_unique().cast(pl.Int64).alias("n"),
        pl.col("null", "without_gradient").mean(),
        pl.col("null").min().alias("null_low"),
        pl.col("null").max().alias("null_high"),
    )
    seeds = blocks.filter(~pl.col("_several")).select(*groups, "value")
    models = _by_model(blocks.filter("_several"), keys, groups, ["value"]).select(*groups, "value")
    units = pl.concat([seeds, models]).group_by(groups).agg("value")
    table = shown.join(units, on=groups, how="left", nulls_equal=True, maintain_order="left")
    found = np.full((3, table.height), np.nan)
    lengths = table["value"].list.len().to_numpy()
    for count in np.unique(lengths):
        rows = np.flatnonzero(lengths == count)
        values = table["value"].gather(rows).explode().to_numpy().reshape(len(rows), -1).T
        found[0, rows] = values.mean(axis=0)
        found[1, rows], found[2, rows] = mean_intervals(values)
    ends = {
        name: pl.Series(name, found[k]).fill_nan(None)
        for k, name in enumerate(("value", "low", "high"))
    }
    order = [*groups, *kinds, "depth", "n", "value", "null", "null_low", "null_high", "low", "high"]
    order.append("without_gradient")
    return table.with_columns(**ends).select(order)
