"""What a claim is decided on: one number from a selection of runs, and the ends it may lie between.

For a bootstrapped number the ends are its 95 % interval. For a share or a count they are what it
would be if every unit still unknown (not finished, diverged, fewer than two seeds) turned out one
way or the other.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import polars as pl

from sweeps.errors import UserError
from sweeps.findings.claim_spec import PERSISTENCE, Measure, Range, Where
from sweeps.findings.persistence import compare
from sweeps.statistics.bootstrap import Floats, quantiles
from sweeps.statistics.conditions import condition_columns, everyone
from sweeps.statistics.profiles import Profiles
from sweeps.statistics.reductions import (
    condition_weights,
    gap,
    permutation_p,
    seed_resamples,
    spearman,
    variance_explained,
)

FEWEST_CONDITIONS = 4
_REMEDIES = {"objective_distance": "; `depthsweep distance` measures it"}


@dataclass(frozen=True)
class Estimate:
    """A number, the ends it may lie between, and what it rests on.

    Attributes:
        n: units it was taken from; ``of`` counts those selected, known or not.
        draws: (R,) bootstrap values, None for a count.
        hits: of a share, how many of the ``n`` it counts.
        notes: what a reader must know; ``blocked`` says why there is no number at all.
    """

    value: float
    low: float
    high: float
    n: int
    of: int
    unit: str
    draws: Floats | None = field(default=None, repr=False)
    notes: tuple[str, ...] = ()
    p_value: float | None = None
    blocked: str = ""
    hits: int | None = None


def difference(a: Estimate, b: Estimate) -> Estimate:
    """Return a − b; bootstrapped sides are paired draw by draw."""
    blocked = a.blocked or b.blocked
    value = a.value - b.value
    if blocked or (a.draws is None and b.draws is None):
        return replace(
            a, value=value, low=a.low - b.high, high=a.high - b.low, blocked=blocked, hits=None
        )
    left = a.draws if a.draws is not None else np.array(a.value)
    right = b.draws if b.draws is not None else np.array(b.value)
    draws = left - right
    low, high = quantiles(draws[:, None])
    return replace(a, value=value, low=float(low[0]), high=float(high[0]), draws=draws)


def select(where: Where) -> pl.Expr:
    """Return a claim's selection as a filter on run columns."""
    chosen = pl.lit(True)
    for column, value in where.items():
        name = pl.col(column)
        if isinstance(value, Range):
            if value.at_least is not None:
                chosen = chosen & (name >= value.at_least)
            if value.at_most is not None:
                chosen = chosen & (name <= value.at_most)
        else:
            values = value if isinstance(value, list) else [value]
            chosen = chosen & pl.any_horizontal([name == each for each in values])
    return chosen


class Evidence:
    """The runs and profiles that measures are taken from, under one metric."""

    def __init__(self, profiles: Profiles) -> None:
        self._profiles = profiles
        self._compared: dict[str, pl.DataFrame | str] = {}

    @cached_property
    def _keys(self) -> list[str]:
        return condition_columns(everyone(self._profiles))

    def estimate(self, measure: Measure, control: str, *, tested: bool = True) -> Estimate:
        """Return what a measure is; ``tested`` says whether it needs its permutation test.

        Raises UserError for a selection that does not fit the type of its column.
        """
        where = select(measure.where)
        try:
            chosen = replace(
                self._profiles,
                runs=self._profiles.runs.filter(where),
                left_out=self._profiles.left_out.filter(where),
            )
        except pl.exceptions.PolarsError as error:
            line = str(error).strip().splitlines()[0]
            raise UserError(f"claims: where {measure.where}: {line}") from None
        if chosen.runs.is_empty() and chosen.left_out.is_empty():
            return _nothing("no run of the sweep is selected")
        if measure.statistic == PERSISTENCE:
            return self._of_verdicts(measure, chosen, control)
        if measure.reduce in ("share", "count"):
            return self._of_runs(measure, chosen)
        return self._of_conditions(measure, chosen, tested)

    def _of_runs(self, measure: Measure, chosen: Profiles) -> Estimate:
        """Count runs; one whose condition has a single finished seed stays open."""
        known = chosen.runs.filter(
            pl.col(measure.statistic).is_not_null()
            & (pl.col("seed").n_unique().over(self._keys) > 1)
        )[measure.statistic]
        hits = (known > measure.above) if measure.above is not None else (known < measure.below)
        total = chosen.runs.height + chosen.left_out.height
        return self._counted(measure, int(hits.sum()), known.len(), total, "runs", chosen)

    def _of_conditions(self, measure: Measure, chosen: Profiles, tested: bool) -> Estimate:
        """Reduce condition means; a condition with a single seed cannot enter."""
        keep = [
            name for name in (measure.by, measure.with_column) if name and name not in self._keys
        ]
        conditions = (
            chosen.runs.drop_nulls([measure.statistic, *keep])
            .group_by(self._keys, maintain_order=True)
            .agg(
                pl.col(measure.statistic).alias("values"),
                pl.col("seed").n_unique().alias("seeds"),
                *[pl.col(name).first() for name in keep],
            )
            .filter(pl.col("seeds") > 1)
        )
        total = pl.concat(
            [frame.select(self._keys) for frame in (chosen.runs, chosen.left_out)]
        ).n_unique()
        count = conditions.height
        seeded = self._with_two_seeds(measure, chosen)
        notes = _weaknesses(chosen, self._keys, total - seeded)
        if seeded > count:
            notes = (*notes, f"{seeded - count} without {' and '.join(keep)}")
        if count == 0:
            reason = "no condition with two finished seeds"
            if seeded:
                reason += f" has {' and '.join(keep)}{_REMEDIES.get(keep[-1], '')}"
            return _nothing(reason, total, notes)
        values = [group.to_numpy() for group in conditions["values"]]
        means = np.array([group.mean() for group in values])
        p_value = None
        if measure.reduce == "spearman":
            assert measure.with_column is not None
            if count < FEWEST_CONDITIONS:
                return _nothing(f"only {count} conditions to correlate", total, notes)
            other = conditions[measure.with_column].cast(pl.Float64).to_numpy()
            value = spearman(means, other)
            draws = spearman(means, other, condition_weights(count))
        else:
            samples = seed_resamples(values)
            if measure.reduce in ("gap", "variance_explained"):
                assert measure.by is not None
                groups = conditions[measure.by].to_list()
                distinct = len(set(groups))
                if distinct < 2:
                    return _nothing(f"only one value of {measure.by}", total, notes)
                if measure.reduce == "variance_explained" and count < 2 * distinct:
                    reason = f"{count} conditions are too few to tell {distinct} values"
                    return _nothing(f"{reason} of {measure.by} apart", total, notes)
                reduce = gap if measure.reduce == "gap" else variance_explained
                value, draws = reduce(means[None], groups), reduce(samples, groups)
                if tested and measure.reduce == "variance_explained":
                    p_value = permutation_p(means, groups)
            else:
                value = getattr(np, measure.reduce)(means[None], axis=1)
                draws = getattr(np, measure.reduce)(samples, axis=1)
        if np.isnan(value[0]):
            return _nothing("not defined for these conditions", total, notes)
        low, high = quantiles(draws[:, None])
        return Estimate(
            float(value[0]),
            float(low[0]),
            float(high[0]),
            count,
            total,
            "conditions",
            draws,
            notes,
            p_value,
        )

    def _with_two_seeds(self, measure: Measure, chosen: Profiles) -> int:
        """Return how many conditions have the statistic of two seeds, whatever else they lack."""
        seeds = (
            chosen.runs.drop_nulls([measure.statistic])
            .group_by(self._keys)
            .agg(pl.col("seed").n_unique())
        )
        return int((seeds["seed"] > 1).sum())

    def _of_verdicts(self, measure: Measure, chosen: Profiles, control: str) -> Estimate:
        """Count conditions by their persistence verdict."""
        if control not in self._compared:
            self._compared[control] = _compared(self._profiles, control)
        table = self._compared[control]
        if isinstance(table, pl.DataFrame) and set(measure.where) <= set(table.columns):
            # What a condition has as a whole selects conditions as it selects runs.
            table = table.filter(select(measure.where))
        elif isinstance(table, pl.DataFrame):
            table = _compared(chosen, control)
        if isinstance(table, str):
            return _nothing(table)
        known = table.filter(pl.col("verdict") != "insufficient")
        hits = int((known["verdict"] == measure.verdict).sum())
        if table.is_empty():
            return _nothing(f"no run under {control} is selected")
        return self._counted(measure, hits, known.height, table.height, "conditions", chosen)

    def _counted(
        self, measure: Measure, hits: int, known: int, total: int, unit: str, chosen: Profiles
    ) -> Estimate:
        few = total - known if unit == "conditions" else 0
        notes = _weaknesses(chosen, self._keys, few)
        if known == 0:
            return _nothing(f"none of {total} {unit} has two finished seeds", total, notes)
        if measure.reduce == "count":
            return Estimate(hits, hits, hits + total - known, known, total, unit, None, notes)
        low, high = hits / total, (hits + total - known) / total
        return Estimate(hits / known, low, high, known, total, unit, None, notes, hits=hits)


def _compared(profiles: Profiles, control: str) -> pl.DataFrame | str:
    """Return the comparison with standard training, or why there is none."""
    if not {control, "standard"} <= set(everyone(profiles)["control"]):
        return f"no run under {control}, or none under standard"
    try:
        return compare(profiles, control)
    except UserError as error:
        return str(error)


def _nothing(reason: str, of: int = 0, notes: tuple[str, ...] = ()) -> Estimate:
    nan = float("nan")
    return Estimate(nan, nan, nan, 0, of, "conditions", None, notes, blocked=reason)


def _weaknesses(chosen: Profiles, keys: list[str], open_conditions: int) -> tuple[str, ...]:
    """Return what a reader must know of the selection itself."""
    notes = []
    statuses = dict(chosen.left_out["status"].value_counts().rows())
    if statuses.get("diverged"):
        notes.append(f"{statuses['diverged']} diverged")
    unfinished = sum(count for status, count in statuses.items() if status != "diverged")
    if unfinished:
        notes.append(f"{unfinished} without a profile")
    if open_conditions:
        noun = "condition" if open_conditions == 1 else "conditions"
        notes.append(f"{open_conditions} {noun} with fewer than 2 seeds")
    seeds = chosen.runs.group_by(keys).agg(pl.col("seed").n_unique())
    if not seeds.is_empty() and int(seeds["seed"].to_numpy().min()) == 2:
        notes.append("some conditions have only 2 seeds")
    return tuple(notes)
