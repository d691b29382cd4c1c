"""Does a depth profile outlive a control? Every condition of a sweep, judged seed by seed.

A condition is model × objective and every other setting that varies. Its seeds are matched with
those of the reference control, all other settings equal, and ``verdicts`` says what follows.

Two arms that trained equally long need not have come equally far, so each condition is judged
again where both have changed equally (see ``arms``). A conclusion holds where the verdicts agree.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import polars as pl

from sweeps.declaration.settings import control_options
from sweeps.errors import UserError, closest
from sweeps.findings.arms import (
    ARMS,
    Paths,
    matched_pairs,
    of_arm,
    score_columns,
    slopes_at_equal_change,
    slopes_at_equal_loss,
)
from sweeps.findings.verdicts import (
    FINDINGS,
    SENSITIVITY,
    Circumstances,
    Judgement,
    Pair,
    Persistence,
    judge,
)
from sweeps.reading.run_table import LOSS_CHANGE
from sweeps.statistics.conditions import dose_of_seeds, everyone, require_one_a_seed
from sweeps.statistics.intervals import Floats, mean_of
from sweeps.statistics.profiles import FLOOR, Profiles, varied_settings
from sweeps.statistics.row_error import deviations, mean_deviations
from sweeps.statistics.stacks import NEGATIVE_CONTROL, PROFILE, STACK, TIED, several_stacks

# Said where two arms cannot be compared where they have come equally far.
UNMATCHED = "unmatched"
_ABOUT = ("family", "kind", "block", "parameters")
_PRETRAINED = ("pretraining_loss", "pretraining_loss_se", "unigram_entropy")


def compare(
    profiles: Profiles,
    control: str = "equal_step",
    against: str = "standard",
    paths: Paths | None = None,
) -> pl.DataFrame:
    """Return one row per condition that was planned under ``control``.

    Columns: model, objective and every other setting that varies; family, kind, block, parameters;
    ``n`` matched seeds, ``planned`` under the control, ``pairs`` of them planned under both and
    ``diverged`` of these; ``dose`` of the reference and ``saturated``; ``negative_control``, of a
    model all of whose depth is one block, under equal steps, which it takes under any control;
    ``slope_against``, ``slope_control`` (means over matched seeds); ``along``, and ``reference``,
    both along the reference's sign, and ``retained``, each with ``_low`` and ``_high``;
    ``retained_unbounded``; ``rows`` (whether intervals hold beyond these probe rows);
    ``verdict``, and under the other δ ``verdict_delta_…``; with ``paths``, ``verdict_equal_change``
    and ``verdict_equal_loss``; of runs that are evaluated, each score as the mean of either arm;
    ``p_persists``, ``p_collapses``, ``p_reverses``; ``flags``.

    Raises:
        UserError: no run of the selection has one of the two controls, or a seed has more than
            one counterpart.
    """
    judged = judgements(profiles, control, against, paths)
    results = [one.found for one in judged.results]
    table = judged.table.with_columns(
        verdict=pl.Series([result.verdict for result in results], dtype=pl.String),
        rows=pl.Series([result.along.rows for result in results], dtype=pl.Boolean),
        **_mean("along", [result.along for result in results]),
        **_mean("reference", [result.reference for result in results]),
        **_triple(
            "retained",
            [(one.retained.value, one.retained.low, one.retained.high) for one in results],
        ),
        retained_unbounded=pl.Series(
            [result.retained.unbounded for result in results], dtype=pl.Boolean
        ),
        **{
            f"verdict_delta_{delta:g}": pl.Series(
                [result.sensitivity[k] for result in results], dtype=pl.String
            )
            for k, delta in enumerate(SENSITIVITY)
        },
        **{
            f"p_{finding}": pl.Series(
                [result.p.get(finding) for result in results], dtype=pl.Float64
            )
            for finding in FINDINGS
        },
    )
    if paths is not None:
        table = table.with_columns(
            verdict_equal_change=_verdicts([one.equal_change for one in judged.results]),
            verdict_equal_loss=_verdicts([one.equal_loss for one in judged.results]),
        )
    elsewhere = {} if paths is None else {"equal mean change": "verdict_equal_change"}
    if paths is not None and score_columns(profiles.runs):
        elsewhere["equal evaluation loss"] = "verdict_equal_loss"
    return table.with_columns(flags=_flags(profiles.metric, elsewhere)).drop("mean", "earlier")


def _verdicts(results: Sequence[Persistence | None]) -> pl.Series:
    verdicts = [UNMATCHED if result is None else result.verdict for result in results]
    return pl.Series(verdicts, dtype=pl.String)


@dataclass(frozen=True, eq=False)
class Judged:
    """The conditions of a comparison: a row each, what was found, and the runs it is of."""

    table: pl.DataFrame
    results: list[Judgement]
    pairs: list[tuple[list[str], list[str]]]


def judgements(
    profiles: Profiles, control: str, against: str, paths: Paths | None = None
) -> Judged:
    """Return what ``compare`` shows, with the findings as they are; raises as it does.

    What was judged once is known: a table and every claim of a report ask the same.
    """
    known = _JUDGED.setdefault(profiles, {})
    along, judged = known.get((control, against), (None, None))
    if judged is None or paths not in (None, along):
        judged = _judged(profiles, control, against, paths)
        known[control, against] = paths, judged
    return judged


_Known = dict[tuple[str, str], tuple[Paths | None, Judged]]
_JUDGED: WeakKeyDictionary[Profiles, _Known] = WeakKeyDictionary()


def _judged(profiles: Profiles, control: str, against: str, paths: Paths | None) -> Judged:
    runs = everyone(profiles)
    known = runs["control"].unique().sort().to_list()
    for option, name in (("--control", control), ("--against", against)):
        if name not in known:
            raise UserError(f"{option} {name}: no run has it; {closest(name, known)}")
    if control == against:
        raise UserError(f"--control and --against are both {control}: compare two controls")
    keys, own, other = comparison_columns(runs, control, against)
    if other:
        raise UserError(
            f"--against {against}: runs have it with several settings ({', '.join(other)}), so"
            " no seed has one counterpart; compare against standard"
        )
    table = _planned(runs, keys, own, control, against)
    table = table.join(
        _matched(profiles, keys, own, control, against),
        on=[*keys, *own],
        how="left",
        nulls_equal=True,
        maintain_order="left",
    )
    results = [_judge(row, paths) for row in table.to_dicts()]
    scores = score_columns(profiles.runs)
    shown = table.with_columns(
        n=pl.col("slope").list.len().cast(pl.Int64).fill_null(0),
        slope_against=pl.col("reference").list.mean(),
        slope_control=pl.col("slope").list.mean(),
    )
    return Judged(
        shown.select(
            *[*keys, *own, *_ABOUT, "n", "planned", "pairs", "diverged", "dose", "saturated"],
            *["negative_control", "slope_against", "slope_control", "mean", "earlier"],
            *[pl.col(of_arm(name, arm)).list.mean() for name in scores for arm in ARMS],
        ),
        results,
        [(row["ours"] or [], row["theirs"] or []) for row in table.to_dicts()],
    )


def _judge(row: dict[str, Any], paths: Paths | None) -> Judgement:
    pretraining = tuple(row[name] for name in _PRETRAINED)
    learned = [_array(row.get(of_arm(LOSS_CHANGE, arm))) for arm in ARMS]
    known = Circumstances(
        pairs=row["pairs"],
        diverged=row["diverged"],
        saturated=row["saturated"],
        pretraining=None if None in pretraining else pretraining,
        loss_change=tuple(mean_of(changes) for changes in learned if len(changes)),
        dose=row["dose"],
        rounding=row["rounding"] or False,
    )
    deleted = (_array(row["deleted_slope"]), _array(row["deleted_reference"]))
    pair = Pair(
        _array(row["slope"]), _array(row["reference"]), deleted if len(deleted[0]) > 1 else None
    )
    result = judge(pair, known)
    if paths is None or not row["slope"]:
        return Judgement(result)
    others: list[Persistence | None] = []
    for slopes_at in (slopes_at_equal_change, slopes_at_equal_loss):
        moved = slopes_at(paths, row["ours"], row["theirs"], row.get(STACK))
        nearer = None
        if moved is not None and pair.deleted is not None:
            nearer = (pair.deleted[0] * moved.shares[0], pair.deleted[1] * moved.shares[1])
        others.append(None if moved is None else judge(Pair(*moved.slopes, nearer), known))
    return Judgement(result, *others)


def comparison_columns(
    runs: pl.DataFrame, control: str, against: str
) -> tuple[list[str], list[str], list[str]]:
    """Return what tells apart the conditions of a comparison, on which both sides agree: model,
    objective, the stack where some model has several, settings; then which options of the one
    control vary, and which of the other.

    A setting that differs between the two controls only is a key as well: seeds are matched with
    all other settings equal.
    """
    sides = runs.filter(pl.col("control").is_in([control, against]))
    options = control_options()
    keys = ["model", "objective", *([STACK] if several_stacks(runs) else [])]
    keys += [
        name
        for name in varied_settings(sides.drop(options), keys)
        if name not in ("control", *options)
    ]
    by_side = [
        [name for name in options if runs.filter(pl.col("control") == side)[name].n_unique() > 1]
        for side in (control, against)
    ]
    return keys, by_side[0], by_side[1]


def _planned(
    runs: pl.DataFrame, keys: list[str], own: list[str], control: str, against: str
) -> pl.DataFrame:
    """Return a row per condition under ``control``: what it is, how many pairs of seeds were
    planned, and how many of them have a run that diverged."""
    ours = runs.filter(pl.col("control") == control)
    theirs = runs.filter(pl.col("control") == against)
    require_one_a_seed(ours, [*keys, *own], f"--control {control}")
    require_one_a_seed(theirs, keys, f"--against {against}")
    partners = theirs.select(*keys, "seed", pl.col("status").alias("partner"))
    paired = ours.join(partners, on=[*keys, "seed"], how="left", nulls_equal=True)
    planned = pl.col("partner").is_not_null()
    either = planned & ((pl.col("status") == "diverged") | (pl.col("partner") == "diverged"))
    return paired.group_by([*keys, *own], maintain_order=True).agg(
        pl.col(*_ABOUT, *_PRETRAINED).first(),
        negative_control=TIED.any() & (control == "equal_step"),
        planned=pl.len().cast(pl.Int64),
        pairs=planned.sum().cast(pl.Int64),
        diverged=either.sum().cast(pl.Int64),
    )


def _matched(
    profiles: Profiles, keys: list[str], own: list[str], control: str, against: str
) -> pl.DataFrame:
    """Return a row per condition: slopes of matched seeds as lists, in one order, with the ids of
    their runs, and the means with each group of probe sequences deleted."""
    condition, scores = [*keys, *own], score_columns(profiles.runs)
    pairs = matched_pairs(profiles, keys, own, control, against)
    found = pairs.group_by(condition, maintain_order=True).agg(
        *["slope", "reference", "ours", "theirs"],
        *[pl.col(of_arm(name, arm)).drop_nulls() for name in scores for arm in ARMS],
        pl.col("mean").mean(),
        pl.col("earlier").sum().cast(pl.Int64),
        dose_of_seeds(),
        rounding=pl.min_horizontal(pl.col("mean").mean(), pl.col("mean_reference").mean())
        < FLOOR.get(profiles.metric, 0.0),
        saturated=pl.max_horizontal(
            pl.col("saturated").mean(), pl.col("saturated_reference").mean()
        ),
    )
    groups = _moved_by_rows(profiles, pairs, condition)
    return found.join(groups, on=condition, how="left", nulls_equal=True, maintain_order="left")


def _moved_by_rows(profiles: Profiles, pairs: pl.DataFrame, condition: list[str]) -> pl.DataFrame:
    """Return, per condition, how its mean slopes move without each group of probe sequences, as
    lists: under the control, and under the reference with the same group left out.

    Where the two sides were cut into different groups there is nothing to compare, nor where some
    pair is taken before the last probe, which alone has groups.
    """
    slopes = deviations(profiles, ["slope"]).drop_nulls("slope")
    slopes = slopes.with_columns(groups=pl.len().over(PROFILE))
    stack = [STACK] if STACK in condition else []
    slopes = slopes.select("run_id", *stack, "sequence_group", "groups", "slope")
    sides = ("deleted_slope", "deleted_reference")
    joined = (
        pairs.filter(~pl.col("earlier").any().over(condition))
        .select(*condition, "ours", "theirs")
        .join(
            slopes.rename({"slope": sides[0]}),
            left_on=["ours", *stack],
            right_on=["run_id", *stack],
            nulls_equal=True,
        )
        .join(
            slopes.rename({"slope": sides[1]}),
            left_on=["theirs", *stack, "sequence_group", "groups"],
            right_on=["run_id", *stack, "sequence_group", "groups"],
            nulls_equal=True,
        )
    )
    return (
        mean_deviations(joined, condition, sides)
        .group_by(condition, maintain_order=True)
        .agg(*sides)
    )


def _array(values: list[float] | None) -> Floats:
    return np.array(values or [], dtype=np.float64)


def _mean(name: str, values: list[Any]) -> dict[str, pl.Series]:
    return _triple(name, [(one.value, *one.interval) for one in values])


def _triple(name: str, values: list[tuple[float, float, float]]) -> dict[str, pl.Series]:
    ends = ("", "_low", "_high")
    return {
        name + end: pl.Series([value[k] for value in values], dtype=pl.Float64).fill_nan(None)
        for k, end in enumerate(ends)
    }


def _flags(metric: str, elsewhere: dict[str, str]) -> pl.Expr:
    """Return what is notable of a condition; ``elsewhere`` are the columns of other verdicts by
    where the arms are compared for them."""
    n = pl.col("n")
    words = [
        pl.when(pl.col("pairs") == 0).then(
            pl.lit("no run of the reference has the same settings and seed")
        ),
        pl.when((pl.col("pairs") > 0) & (n < pl.col("planned"))).then(
            pl.format("{} of {} seeds matched with a slope", n, pl.col("planned"))
        ),
        pl.when(pl.col("earlier") > 0).then(
            pl.format("{} at the last step that both of a pair have: one stopped early", "earlier")
        ),
        pl.when(pl.col("diverged") > 0).then(pl.format("{} diverged", "diverged")),
        pl.when((n > 0) & (pl.col("slope_against") <= 0)).then(
            pl.lit("standard slope is not positive")
        ),
        pl.when(pl.col("mean") < FLOOR.get(metric, 0.0)).then(pl.lit("under the numerical floor")),
        pl.when((n > 0) & pl.col("dose").is_null()).then(pl.lit("dose unknown")),
        pl.when("negative_control").then(
            pl.lit(f"{NEGATIVE_CONTROL}: one block is all of the depth, whatever the control")
        ),
    ]
    found, verdict = pl.col("verdict").is_in(FINDINGS), pl.col("verdict")
    for where, column in elsewhere.items():
        other = pl.col(column)
        words.append(
            pl.when(found & (other != verdict)).then(pl.concat_str([other, pl.lit(f" at {where}")]))
        )
    return (
        pl.concat_list([word.fill_null("") for word in words])
        .list.eval(pl.element().filter(pl.element() != ""))
        .list.join("; ")
    )


def verdicts_by_metric(
    by_metric: dict[str, Profiles],
    control: str = "equal_step",
    against: str = "standard",
    paths: Paths | None = None,
) -> pl.DataFrame:
    """Return the comparison under the first metric, with a verdict column for each metric.

    Adds ``verdict_<metric>`` for every metric, and to ``flags`` where their findings differ. They
    are of the same runs: a sensitivity, no replication.
    """
    first = next(iter(by_metric))
    tables = {
        name: compare(found, control, against, paths if name == first else None)
        for name, found in by_metric.items()
    }
    columns = {f"verdict_{name}": table["verdict"] for name, table in tables.items()}
    wide = tables[first].with_columns(**columns)
    findings = pl.concat_list(
        [pl.when(pl.col(name).is_in(FINDINGS)).then(pl.col(name)) for name in columns]
    ).list.drop_nulls()
    separator = pl.when(pl.col("flags") == "").then(pl.lit("")).otherwise(pl.lit("; "))
    return wide.with_columns(
        flags=pl.when(findings.list.n_unique() > 1)
        .then(pl.concat_str([pl.col("flags"), separator, pl.lit("metrics disagree")]))
        .otherwise(pl.col("flags"))
    )
