"""What a sweep says, in sentences: where change concentrates, and what each control left of it.

Every number is computed from the tables of the page, and says over how many it is. What is not
shown is said so: of fewer than three seeds there is no interval, and a state of knowledge (idle,
insufficient, ...) is no finding.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl

from sweeps.declaration.matched_seeds import FEWEST_SEEDS
from sweeps.findings.verdicts import DELTA, FINDINGS, VERDICTS
from sweeps.report.persistence_text import STATES
from sweeps.report.tables.names import STANDARD
from sweeps.statistics.intervals import mean_of, ratio_of
from sweeps.store.schema import NULL_METRICS

SHARE = "concentration_last_quarter"
# Of a profile that is the same everywhere.
FLAT = 0.25
# Models from which on an interval is over them.
FEWEST_MODELS = 3
# Metrics that are 0 where nothing changed, and else above it: their shares are of the change.
CHANGES = (*NULL_METRICS, "mean_shift")
TESTED = (*FINDINGS, "inconclusive")


@dataclass(frozen=True)
class Answer:
    """What the conditions of one group say; ``group`` is what they share, "" for all of them."""

    group: str
    sentences: tuple[str, ...]


def answers_of(slopes: pl.DataFrame, persistence: pl.DataFrame, metric: str) -> tuple[Answer, ...]:
    """Return what a sweep says, of all its conditions first where it has several groups of them: a
    group has one objective and one of each other setting, over models.

    Args:
        slopes, persistence: tables of a report, of one view, which is of ``metric``.
    """
    groups = slopes["condition"].unique(maintain_order=True).to_list()
    found: list[Answer] = []
    for group in [None, *groups] if len(groups) > 1 else groups:
        mine = _of_group(slopes, group), _of_group(persistence, group)
        found.append(Answer(group or "", tuple(_sentences(*mine, metric, first=not found))))
    return tuple(found)


def _of_group(table: pl.DataFrame, group: str | None) -> pl.DataFrame:
    if table.is_empty() or group is None:
        return table
    return table.filter(pl.col("condition") == group)


def _sentences(
    slopes: pl.DataFrame, persistence: pl.DataFrame, metric: str, *, first: bool
) -> list[str]:
    """Return the sentences of one group; the ``first`` explains what later ones use."""
    standard = slopes.filter(pl.col("control") == STANDARD)
    said = []
    if standard.height:
        said.append(_where("under standard training" if first else "", standard, metric))
    else:
        for (arm,), rows in slopes.group_by("arm", maintain_order=True):
            said.append(_where(f"under {arm}", rows, metric))
    if persistence.is_empty():
        other = slopes.height > standard.height
        said.append(
            "No run has standard training to compare its control with."
            if other
            else "Only standard training was run: nothing is said of a control."
        )
        return said
    for (arm,), rows in persistence.group_by("arm", maintain_order=True):
        said.append(_left(str(arm), rows, explained=first))
    return said


# ------------------------------------------------------------------------------------------- where
def _where(under: str, rows: pl.DataFrame, metric: str) -> str:
    """Return where change concentrates, over conditions of one arm."""
    begun = rows.filter(pl.col("n") > 0)
    if begun.is_empty():
        return _begun(under, "no run has a profile yet.")
    if metric not in CHANGES:
        return _begun(under, _slopes(begun, metric))
    known = begun.filter(pl.col(f"{SHARE}_low").is_not_null())
    if known.is_empty():
        return _unknown(under, begun)
    above = known.filter(pl.col(f"{SHARE}_low") > FLAT).height
    below = known.filter(pl.col(f"{SHARE}_high") < FLAT).height
    measured = _share_of(known)
    measured += f", where a flat profile has {_percent(FLAT)}" if under else ""
    if known.height == 1:
        what = (
            "concentrates in the last quarter of depth"
            if above
            else "has less than its share in the last quarter of depth"
            if below
            else "is not shown to concentrate in the last quarter of depth"
        )
        text = f"change {what}: {measured}"
    else:
        text = (
            f"change concentrates in the last quarter of depth in {above} of"
            f" {known.height} conditions: {measured}"
        )
        text += f"; {below} have less than that there" if below else ""
    return _begun(under, f"{text}.{_others(rows, known)}{_beyond(known)}")


def _others(rows: pl.DataFrame, known: pl.DataFrame) -> str:
    """Return of how many conditions nothing is known, and why."""
    few = rows.filter(pl.col("seeds") < FEWEST_SEEDS).height
    undefined = rows.height - known.height - few
    said = ""
    if few:
        said += f" {_counted(few, 'more condition')} with fewer than 3 seeds."
    if undefined:
        said += f" {_counted(undefined, 'more condition')} without a share: of both signs, or none."
    return said


def _slopes(rows: pl.DataFrame, metric: str) -> str:
    """Return what can be said of a metric that is no distance: no share of it lies anywhere."""
    known = rows.filter(pl.col("slope_low").is_not_null())
    above, below = known.filter(pl.col("slope_low") > 0), known.filter(pl.col("slope_high") < 0)
    few = rows.height - known.height
    return (
        f"the slope of {metric} on depth is above 0 in {above.height} and below 0 in"
        f" {below.height} of {_counted(known.height, 'condition')}; it is no distance, and says"
        " nothing of where change is."
        + (f" {_counted(few, 'more condition')} with fewer than 3 seeds." if few else "")
    )


def _begun(under: str, text: str) -> str:
    """Return a sentence that begins with what it is under."""
    whole = f"{under}, {text}" if under else text
    return whole[:1].upper() + whole[1:]


def _unknown(under: str, rows: pl.DataFrame) -> str:
    """Return what can be said without an interval."""
    shares = rows[SHARE].drop_nulls().to_list()
    few = rows.filter(pl.col("seeds") < FEWEST_SEEDS).height == rows.height
    why = (
        "no condition has 3 seeds with a profile"
        if few
        else "changes of both signs, or none, have no share"
    )
    text = _begun(under, f"where change concentrates is not shown: {why}.")
    if shares:
        text += f" The last quarter of depth has {_span(shares)} of it in the means."
    return text


def _share_of(rows: pl.DataFrame) -> str:
    """Return the share of the change in the last quarter, with an interval where there is one."""
    by_model = rows.group_by("model", maintain_order=True).agg(pl.col(SHARE).mean())[SHARE]
    if rows.height == 1:
        row = rows.row(0, named=True)
        ends = row[f"{SHARE}_low"], row[f"{SHARE}_high"]
        return f"{_with(row[SHARE], *ends)} of it lies there (n = {row['seeds']} seeds)"
    if len(by_model) < FEWEST_MODELS:
        return f"{_span(rows[SHARE].to_list())} of it lies there"
    mean = mean_of(by_model.to_numpy())
    return f"{_with(mean.value, *mean.interval)} of it lies there (n = {len(by_model)} models)"


def _beyond(rows: pl.DataFrame) -> str:
    """Return whether that is more than depth gives by itself."""
    known = rows.filter(pl.col("slope_beyond_propagation").is_not_null())
    if known.is_empty():
        return ""
    steeper = int(known["beyond_propagation"].fill_null(value=False).sum())
    if rows.height == 1:
        shown = "" if steeper else "not shown to be "
        return f" It is {shown}steeper than noise in the weights makes it."
    return f" In {steeper} of {known.height} it is steeper than noise in the weights makes it."


# -------------------------------------------------------------------------------------------- left
def _left(arm: str, rows: pl.DataFrame, *, explained: bool) -> str:
    """Return what a control left of the slopes, and how many conditions say nothing of it."""
    tested = rows.filter(pl.col("verdict").is_in(TESTED))
    silent = rows.filter(~pl.col("verdict").is_in(TESTED))
    control = "equal steps" if arm == "equal_step" else arm
    if tested.is_empty():
        return f"Of {control} nothing is shown: {_states(silent, explained=explained)}."
    # What a control is called in a sweep file stays as it is.
    lead = "Equal steps keep" if control == "equal steps" else f"{control} keeps"
    text = f"{lead} {_kept(tested)}; {_verdicts(tested)}"
    if silent.height:
        text += f". {_counted(silent.height, 'more condition')} in which nothing is shown: "
        text += _states(silent, explained=explained)
    return f"{text}."


def _kept(rows: pl.DataFrame) -> str:
    """Return the share of the slope that is left, over models where there are enough."""
    doses = _range(rows["dose"].drop_nulls().to_list())
    dose = f", dose {doses}" if doses else ""
    if rows.height == 1:
        row = rows.row(0, named=True)
        ends = row["retained_low"], row["retained_high"]
        said = (
            f"{_percent(row['retained'])} of the slope [interval unbounded]"
            if row["retained_unbounded"]
            else _with(row["retained"], *ends, of=" of the slope")
        )
        return f"{said} (n = {row['n']} seeds{dose})"
    means = rows.group_by("model", maintain_order=True).agg(pl.col("along", "reference").mean())
    if means.height < FEWEST_MODELS:
        return f"{_span(rows['retained'].drop_nulls().to_list())} of the slope ({dose[2:]})"
    found = ratio_of(means["along"].to_numpy(), means["reference"].to_numpy())
    said = (
        f"{_percent(found.value)} of the slope [interval unbounded]"
        if found.unbounded
        else _with(found.value, found.low, found.high, of=" of the slope")
    )
    return f"{said} (n = {means.height} models{dose})"


def _verdicts(rows: pl.DataFrame) -> str:
    counts = {name: int((rows["verdict"] == name).sum()) for name in TESTED}
    if rows.height == 1:
        (name,) = (name for name, count in counts.items() if count)
        if name == "inconclusive":
            return f"neither more than {_percent(DELTA)} of it is shown to be left, nor less"
        return f"the profile {name}"
    words = [
        f"is inconclusive in {count}" if name == "inconclusive" else f"{name} in {count}"
        for name, count in counts.items()
        if count
    ]
    said = " and ".join([", ".join(words[:-1]), words[-1]] if words[1:] else words)
    return f"the profile {said} of {rows.height} conditions"


def _states(rows: pl.DataFrame, *, explained: bool) -> str:
    counts = {name: int((rows["verdict"] == name).sum()) for name in VERDICTS}
    words = []
    for name, count in counts.items():
        if count:
            why = f" ({STATES[name].split('`')[0].rstrip(': ')})" if explained else ""
            words.append(f"{count} {name.replace('_', ' ')}{why}")
    return ", ".join(words)


# ------------------------------------------------------------------------------------------- words
def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def _with(value: float, low: float | None, high: float | None, of: str = "") -> str:
    """Return ``96 % of the slope [94, 98]``, or without an interval where there is none."""
    if low is None or high is None or np.isnan(low) or np.isnan(high):
        return f"{_percent(value)}{of}"
    digits = 0 if 100 * (high - low) >= 2 else 1
    return f"{100 * value:.{digits}f} %{of} [{100 * low:.{digits}f}, {100 * high:.{digits}f}]"


def _span(shares: list[float]) -> str:
    least, most = (_percent(one) for one in (min(shares), max(shares)))
    return least if least == most else f"{least[:-2]} to {most}"


def _range(values: list[float]) -> str:
    if not values:
        return ""
    least, most = f"{min(values):.2f}", f"{max(values):.2f}"
    return least if least == most else f"{least} to {most}"


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"
