"""What a claim is decided on: one number from a selection of runs, and the ends it may lie between.

Definitions ("Profile", claims). The unit of whatever pools conditions is the model. A count of
verdicts has two pairs of ends: with each condition at its own level, as where all of several must
hold, and with Holm's correction over the selection (1979), as where one of several is enough.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property

import numpy as np
import polars as pl

from sweeps.declaration.settings import control_options
from sweeps.errors import UserError
from sweeps.findings.alignment.outcomes import OUTCOMES, Alignment, alignments
from sweeps.findings.claim_spec import ALIGNMENT, PERSISTENCE, Measure, Range, Where
from sweeps.findings.estimate import Counted, Estimate, difference, nothing
from sweeps.findings.persistence import judgements
from sweeps.findings.reductions import mean_difference, reduce_conditions
from sweeps.findings.verdicts import FINDINGS, LEVELS, ONE_BOUND, Persistence
from sweeps.statistics.associations import rank_association
from sweeps.statistics.conditions import condition_columns, condition_units, everyone
from sweeps.statistics.profiles import Profiles
from sweeps.statistics.stacks import NEGATIVE_CONTROL, several_stacks

# Columns that may be too noisy for a claim to rest on, with the one that says so.
NOISY = {
    **dict.fromkeys(
        ("objective_distance", "objective_distance_low", "objective_distance_high"),
        "objective_distance_noisy",
    ),
    "objective_distance_common": "objective_distance_common_noisy",
}
_REMEDIES = dict.fromkeys(NOISY, "; `depthsweep distance` measures it")


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
        self._compared: dict[str, tuple[pl.DataFrame, list[Persistence]] | str] = {}

    @cached_property
    def _keys(self) -> list[str]:
        return condition_columns(everyone(self._profiles))

    def estimate(self, measure: Measure, control: str) -> Estimate:
        """Return what a measure is; UserError for a selection that does not fit its column."""
        chosen = self._chosen(measure.where)
        if chosen.runs.is_empty() and chosen.left_out.is_empty():
            return nothing("no run of the sweep is selected")
        if measure.statistic == PERSISTENCE:
            return self._of_verdicts(measure, chosen, control)
        if measure.statistic == ALIGNMENT:
            return self._of_alignment(measure, chosen, control)
        if measure.reduce in ("share", "count"):
            return self._of_runs(measure, chosen)
        return self._of_conditions(measure, chosen)

    def difference(self, one: Measure, other: Measure, a: Estimate, b: Estimate) -> Estimate:
        """Return a − b, the estimates of two measures; means over pairs of conditions that differ
        in what the two select by, where there are any."""
        if a.conditions is None or b.conditions is None:
            return difference(a, b)
        names = dict.fromkeys([*one.where, *other.where])
        apart = [name for name in names if one.where.get(name) != other.where.get(name)]
        found = mean_difference(a.conditions, b.conditions, self._keys, apart)
        if isinstance(found, str):
            return nothing(found, a.of, a.notes)
        return replace(found, of=a.of)

    def rank_correlation(self, one: Measure, other: Measure) -> float:
        """Return the rank correlation over conditions of two measures' statistics, over the
        selection of the first."""
        table = (
            self._chosen(one.where)
            .runs.drop_nulls([one.statistic, other.statistic])
            .group_by(self._keys)
            .agg(pl.col(one.statistic).mean().alias("a"), pl.col(other.statistic).mean().alias("b"))
        )
        if table.height < 3:
            return float("nan")
        a, b = (table[name].to_numpy() for name in ("a", "b"))
        return rank_association(a, b, np.zeros(len(a), np.int64))

    def _chosen(self, where: Where) -> Profiles:
        filtered = select(where)
        # What is too noisy to rest a claim on selects nothing.
        for column in where:
            if column in NOISY:
                filtered = filtered & ~pl.col(NOISY[column]).fill_null(value=True)
        try:
            return replace(
                self._profiles,
                runs=self._profiles.runs.filter(filtered),
                left_out=self._profiles.left_out.filter(filtered),
            )
        except pl.exceptions.PolarsError as error:
            line = str(error).strip().splitlines()[0]
            raise UserError(f"claims: where {where}: {line}") from None

    def _sides(self, where: Where, control: str) -> Profiles:
        """Return what a comparison with a control is made of: its options select among its own
        runs, for the reference has none."""
        options = {name: value for name, value in where.items() if name in control_options()}
        chosen = self._chosen({name: value for name, value in where.items() if name not in options})
        own = (pl.col("control") != control) | select(options)
        return replace(chosen, runs=chosen.runs.filter(own), left_out=chosen.left_out.filter(own))

    def _of_runs(self, measure: Measure, chosen: Profiles) -> Estimate:
        """Count runs; one whose condition has a single finished seed stays open."""
        known = chosen.runs.filter(
            pl.col(measure.statistic).is_not_null()
            & (pl.col("seed").n_unique().over(self._keys) > 1)
        )
        value = pl.col(measure.statistic)
        so = value > measure.above if measure.above is not None else value < measure.below
        hits, misses = (known.filter(each).height for each in (so, ~so))
        total = chosen.runs.height + chosen.left_out.height
        notes = _weaknesses(chosen)
        if not known.is_empty():
            # Seeds of one condition are not independent runs.
            by_condition = known.group_by(self._keys).agg(so.alias("so"))
            whole = sum(bool(each.all()) for each in by_condition["so"])
            notes = (*notes, f"in all seeds of {whole} of {by_condition.height} conditions")
        unit = "profiles" if several_stacks(everyone(chosen)) else "runs"
        return _counted(measure, Counted(total, hits, hits, misses, misses), unit, notes)

    def _of_verdicts(self, measure: Measure, chosen: Profiles, control: str) -> Estimate:
        """Count conditions by their persistence verdict."""
        if control not in self._compared:
            self._compared[control] = _compared(self._profiles, control)
        compared = self._compared[control]
        if not isinstance(compared, str):
            table, results = compared
            if set(measure.where) <= set(table.columns):
                # What a condition has as a whole selects conditions as it selects runs.
                table = table.with_row_index("_row").filter(select(measure.where))
                compared = table, [results[row] for row in table["_row"]]
            else:
                compared = _compared(self._sides(measure.where, control), control)
        if isinstance(compared, str):
            return nothing(compared)
        table, results = compared
        if table.is_empty():
            return nothing(f"no run under {control} is selected")
        assert measure.verdict is not None
        counted = count_verdicts(results, measure.verdict)
        states = [f"{k} {verdict}" for verdict, k in _tally(results) if verdict not in FINDINGS]
        tied = table.filter("negative_control")["model"].unique(maintain_order=True).to_list()
        notes = (
            *_weaknesses(chosen),
            *([f"open: {', '.join(states)}"] if states else ()),
            *([f"{NEGATIVE_CONTROL}: {', '.join(tied)}"] if tied else ()),
        )
        return _counted(measure, counted, "conditions", notes)

    def _of_alignment(self, measure: Measure, chosen: Profiles, control: str) -> Estimate:
        """Count conditions by the outcome of their alignment."""
        sides = self._sides(measure.where, control)
        if not {control, "standard"} <= set(everyone(sides)["control"]):
            return nothing(f"no run under {control}, or none under standard")
        try:
            both = alignments(sides, control)
        except UserError as error:
            return nothing(str(error))
        if both is None:
            return nothing("no run answers prompts: add `refusal` to the sweep's evaluation")
        found = both[1]
        if not found:
            return nothing(f"no run under {control} is selected")
        assert measure.verdict is not None
        states = [one.outcome for one in found if one.outcome not in OUTCOMES]
        said = [f"{states.count(state)} {state}" for state in dict.fromkeys(states)]
        notes = (*_weaknesses(chosen), *([f"open: {', '.join(said)}"] if said else ()))
        return _counted(measure, count_outcomes(found, measure.verdict), "conditions", notes)

    def _of_conditions(self, measure: Measure, chosen: Profiles) -> Estimate:
        """Reduce condition means, of which each is that of its seeds."""
        if measure.statistic == "steepness":  # which is one of standard training alone
            standard = pl.col("control") == "standard"
            runs, left_out = (each.filter(standard) for each in (chosen.runs, chosen.left_out))
            chosen = replace(chosen, runs=runs, left_out=left_out)
            if runs.is_empty() and left_out.is_empty():
                return nothing(
                    "steepness is that of standard training, of which no run is selected"
                )
        total = pl.concat(
            [frame.select(self._keys) for frame in (chosen.runs, chosen.left_out)]
        ).n_unique()
        table, notes = self._conditions(measure, chosen)
        if isinstance(table, str):
            return nothing(table, total, notes)
        found = reduce_conditions(measure, table, self._keys, total - table.height)
        if isinstance(found, str):
            return nothing(found, total, notes)
        if found.unit == "models":
            total = pl.concat(
                [frame.select("model") for frame in (chosen.runs, chosen.left_out)]
            ).n_unique()
        return replace(found, of=total, notes=(*notes, *found.notes))

    def _conditions(
        self, measure: Measure, chosen: Profiles
    ) -> tuple[pl.DataFrame | str, tuple[str, ...]]:
        """Return what ``reduce_conditions`` takes, or why there is nothing; and what a reader must
        know of it."""
        extra = [
            name for name in (measure.by, measure.with_column) if name and name not in self._keys
        ]
        by, column = measure.by, measure.with_column
        runs = chosen.runs.drop_nulls([measure.statistic])
        if by in extra and runs.group_by(self._keys).agg(pl.col(by).n_unique())[by].gt(1).any():
            return f"{by} differs between the seeds of a condition", ()
        named = [
            pl.col(name).cast(pl.Float64).mean() if name == column else pl.col(name).first()
            for name in extra
        ]
        noisy = NOISY.get(column or "", "")
        table = (
            runs.group_by(self._keys, maintain_order=True)
            .agg(
                pl.col(measure.statistic).mean().alias("_mean"),
                pl.col("mean").mean().alias("_change"),
                *named,
                *([pl.col(noisy).first()] if noisy else []),
            )
            .join(
                self._units(measure.statistic, chosen),
                on=self._keys,
                nulls_equal=True,
                maintain_order="left",
            )
            .rename({"_mean": "mean", "_change": "change"})
        )
        if column in self._keys:
            table = table.with_columns(pl.col(column).cast(pl.Float64))
        notes = list(_weaknesses(chosen))
        wanted = [name for name in (by, column) if name]
        known = table.drop_nulls(wanted)
        if known.height < table.height:
            notes.append(f"{table.height - known.height} without {' and '.join(wanted)}")
        shaky = False
        if noisy:
            sure = known.filter(~pl.col(noisy).fill_null(value=True))
            shaky = sure.height < known.height
            if shaky:
                notes.append(f"{known.height - sure.height} with a noisy {column}: left out")
            known = sure
        if not known.is_empty():
            return known, tuple(notes)
        if table.is_empty() and not chosen.runs.is_empty():
            return f"{measure.statistic} is not defined for any finished run", tuple(notes)
        if table.is_empty() or not wanted:
            return "no condition has a finished run", tuple(notes)
        said = " and ".join(wanted) + (" that is not noisy" if shaky else "")
        remedy = "" if shaky else _REMEDIES.get(wanted[-1], "")
        return f"no condition has {said}{remedy}", tuple(notes)

    def _units(self, statistic: str, chosen: Profiles) -> pl.DataFrame:
        """Return each condition's ``values`` over seeds, and ``moved``: by leaving out each group
        of probe sequences."""
        units = condition_units(chosen, self._keys, [statistic])
        field = pl.element().struct.field(statistic)
        return units.select(
            *self._keys,
            pl.col("_values").list.eval(field).list.drop_nulls().alias("values"),
            pl.col("_deleted").list.eval(field).alias("moved"),
        )


def count_verdicts(results: list[Persistence], verdict: str) -> Counted:
    """Return how many conditions show a finding, and how many the opposite of it.

    What shows neither is open: nothing follows from an interval that is too wide. Holm's steps go
    over the conditions that could show a finding at all.
    """
    tested = [result for result in results if result.p]
    opposite = [finding for finding in FINDINGS if finding != verdict]
    return Counted(
        len(results),
        sum(result.verdict == verdict for result in tested),
        holm([result.p[verdict] / LEVELS[verdict] for result in tested]),
        sum(result.verdict in opposite for result in tested),
        holm([min(result.p[f] / LEVELS[f] for f in opposite) for result in tested]),
    )


def count_outcomes(results: list[Alignment], outcome: str) -> Counted:
    """Return how many conditions show an outcome, and how many another one; the rest is open.

    Holm's steps go over the conditions that could show one at all.
    """
    tested = [result for result in results if result.p]
    others = [each for each in OUTCOMES if each != outcome]
    return Counted(
        len(results),
        sum(result.outcome == outcome for result in tested),
        holm([result.p[outcome] / ONE_BOUND for result in tested]),
        sum(result.outcome in others for result in tested),
        holm([min(result.p[each] for each in others) / ONE_BOUND for result in tested]),
    )


def holm(shares: list[float]) -> int:
    """Return how many tests Holm's procedure rejects; p values are given as shares of the level."""
    rejected = 0
    for k, share in enumerate(sorted(shares)):
        if not share * (len(shares) - k) < 1:
            break
        rejected += 1
    return rejected


def _tally(results: list[Persistence]) -> list[tuple[str, int]]:
    verdicts = [result.verdict for result in results]
    return [(verdict, verdicts.count(verdict)) for verdict in dict.fromkeys(verdicts)]


def _compared(profiles: Profiles, control: str) -> tuple[pl.DataFrame, list[Persistence]] | str:
    """Return the comparison with standard training, or why there is none."""
    if not {control, "standard"} <= set(everyone(profiles)["control"]):
        return f"no run under {control}, or none under standard"
    try:
        judged = judgements(profiles, control, "standard")
    except UserError as error:
        return str(error)
    return judged.table, [one.found for one in judged.results]


def _counted(measure: Measure, counted: Counted, unit: str, notes: tuple[str, ...]) -> Estimate:
    known = counted.hits_each + counted.misses_each
    if known == 0:
        what = "shows a finding" if unit == "conditions" else "has two finished seeds"
        return nothing(f"none of {counted.of} {unit} {what}", counted.of, notes, counted)
    counted = replace(counted, share=measure.reduce == "share")
    scale = 1 / counted.of if counted.share else 1.0
    low, high = counted.hits_together * scale, (counted.of - counted.misses_together) * scale
    value = counted.hits_each / known if counted.share else float(counted.hits_each)
    return Estimate(value, low, high, known, counted.of, unit, notes, counted=counted)


def _weaknesses(chosen: Profiles) -> tuple[str, ...]:
    """Return what a reader must know of the selection itself."""
    notes = []
    statuses = dict(chosen.left_out.unique("run_id")["status"].value_counts().rows())
    if statuses.get("diverged"):
        notes.append(f"{statuses['diverged']} diverged")
    unfinished = sum(count for status, count in statuses.items() if status != "diverged")
    if unfinished:
        notes.append(f"{unfinished} without a profile")
    return tuple(notes)
