"""The comparison of two controls as text: a line per condition, a verdict per metric."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any

import polars as pl

from sweeps.declaration.settings import text_of
from sweeps.findings.arms import ARMS, of_arm
from sweeps.findings.verdicts import DELTA, FINDINGS, VERDICTS
from sweeps.reading.run_table import LOSS_CHANGE, evaluated_columns
from sweeps.reading.text_table import Column, text_table
from sweeps.report.profile_text import no_room, plain
from sweeps.statistics.stacks import NEGATIVE_CONTROL

# One letter per verdict, for the metrics beside the first.
LETTERS = {"persists": "p", "collapses": "c", "reverses": "r"}
# What a state of knowledge asks of the next sweep.
STATES = {
    "insufficient": "fewer than 3 matched seeds: `depthsweep power` says how many it takes",
    "unstable": "a fifth or more of the pairs diverged",
    "saturated": "half of the blocks are as far as unrelated rows: nothing is left to compare",
    "unlearned": "the stand-in's pretraining taught it nothing",
    "untrained": "fine-tuning did not lower the evaluation loss in one of the arms",
    "idle": "the reference moves its blocks alike (dose under 1.5): nothing was taken away",
    "no_reference": "the reference itself has no slope",
    "inconclusive": f"neither more than {DELTA:g} of the slope is shown to be left, nor less",
}


def persistence_text(
    name: str,
    table: pl.DataFrame,
    control: str,
    against: str,
    metrics: list[str],
    width: int = 80,
    warnings: Sequence[str] = (),
    at: str = "final",
) -> str:
    """Return the table of ``verdicts_by_metric`` as a page of at most ``width`` columns, with what
    a reader must know of all of it."""
    keys = table.columns[: table.columns.index("family")]
    lead, rest = keys[0], keys[1:]
    firsts = {value: rank for rank, value in enumerate(table[lead].unique(maintain_order=True))}
    rows = sorted(table.to_dicts(), key=lambda row: firsts[row[lead]])
    columns = [
        *[Column(key, [text_of(row[key]) for row in rows], kept=True) for key in rest],
        Column("n", [str(row["n"]) for row in rows], right=True, kept=True),
        Column("dose", [plain(row["dose"]) for row in rows], right=True),
        Column(against, [plain(row["slope_against"], 3) for row in rows], right=True),
        Column(control, [plain(row["slope_control"], 3) for row in rows], right=True),
        Column("kept [95 %]", [kept(row) for row in rows], right=True, kept=True),
        Column("verdict", [_said(row) for row in rows], rigid=True, kept=True),
    ]
    if "verdict_equal_change" in table.columns:
        columns.append(
            Column("equal change", [row["verdict_equal_change"] for row in rows], rigid=True)
        )
        if score_columns_of(table):
            cells = [row["verdict_equal_loss"] for row in rows]
            columns.append(Column("equal loss", cells, rigid=True))
    if len(metrics) > 1:
        columns.append(
            Column(
                "metrics",
                [_letters(row, metrics) for row in rows],
                rigid=True,
            )
        )
    lines, left_out = text_table(columns, width - 2)
    moment = "" if at == "final" else f", step {at}"
    title = (
        f"{name}: slope of {metrics[0]} under {control}, against {against}, matched seeds{moment}"
    )
    page = [*textwrap.wrap(title, width), ""]
    page.append("  " + lines[0])
    previous: object = None
    for row, line in zip(rows, lines[1:], strict=True):
        if row[lead] != previous:
            previous = row[lead]
            page.append(str(previous))
        page.append("  " + line)
    page += _scores(rows, score_columns_of(table), keys, (against, control), width)
    counts = [(verdict, int((table["verdict"] == verdict).sum())) for verdict in VERDICTS]
    found = [f"{count} {verdict}" for verdict, count in counts if count or verdict in FINDINGS]
    notes = [", ".join(found)]
    notes += [f"{name}: {STATES[name]}" for name, count in counts if count and name in STATES]
    if not table["rows"].all():
        notes.append(
            "intervals are for these probe rows where other rows were not measured: before the last"
            " probe, and in runs of earlier versions"
        )
    if len(metrics) > 1 and "metrics" not in left_out:
        notes.append(
            f"metrics, of the same runs: {', '.join(metrics)}; p persists, c collapses, r reverses"
        )
    notes += [f"! {warning}" for warning in warnings]
    for (flag,), group in table.group_by("flags", maintain_order=True):
        if flag:
            named = [" ".join(map(text_of, row)) for row in group.select(keys).rows()]
            said = f"{len(named)} conditions" if len(named) > 3 else "; ".join(named)
            notes.append(f"! {flag}: {said}")
    other = _other_verdicts(metrics)
    notes += _in_words({n: other[n] for n in left_out if n in other}, rows, keys)
    left_out = [name for name in left_out if name not in other]
    notes += no_room(left_out)
    folded = [textwrap.fill(note, width, subsequent_indent="  ") for note in notes]
    return "\n".join([*page, "", *folded]) + "\n"


def _other_verdicts(metrics: Sequence[str]) -> dict[str, dict[str, str]]:
    """Return the columns of verdicts beside the first: of each the verdicts it is made of, with
    what tells one of them from the others."""
    return {
        "equal change": {"verdict_equal_change": ""},
        "equal loss": {"verdict_equal_loss": ""},
        "metrics": {f"verdict_{metric}": f" by {metric}" for metric in metrics},
    }


def _in_words(
    columns: dict[str, dict[str, str]], rows: Sequence[dict[str, Any]], keys: Sequence[str]
) -> list[str]:
    """Return what columns of verdicts that found no room say: where they give another verdict."""
    alike, notes = [], []
    for name, verdicts in columns.items():
        others: dict[str, list[str]] = {}
        for row in rows:
            for column, by in verdicts.items():
                if row[column] != row["verdict"]:
                    said = " ".join(text_of(row[key]) for key in keys)
                    others.setdefault(f"{row[column]}{by}", []).append(said)
        if others:
            told = "; ".join(f"{verdict}: {', '.join(where)}" for verdict, where in others.items())
            notes.append(f"{name}, where the verdict is another: {told}")
        else:
            alike.append(name)
    if alike:
        notes.insert(0, f"{', '.join(alike)}: the same verdict in every condition")
    return notes


def score_columns_of(table: pl.DataFrame) -> list[str]:
    """Return which columns of ``runs`` a comparison has of both arms."""
    return [name for name in evaluated_columns() if of_arm(name, ARMS[0]) in table.columns]


def _scores(
    rows: Sequence[dict[str, Any]],
    scores: Sequence[str],
    keys: Sequence[str],
    arms: tuple[str, str],
    width: int,
) -> list[str]:
    """Return a table of what both arms scored on held-out examples, the reference first: of the
    scores that any row has."""
    sides = ("against", "control")
    scores = [
        name
        for name in scores
        if name != LOSS_CHANGE
        and any(row[of_arm(name, side)] is not None for row in rows for side in sides)
    ]
    if not scores:
        return []
    columns = [Column(key, [text_of(row[key]) for row in rows], kept=True) for key in keys]
    for name in scores:
        pairs = [[row[of_arm(name, side)] for side in sides] for row in rows]
        said = [" → ".join(figure(value) for value in pair) for pair in pairs]
        columns.append(Column(name.removeprefix("evaluation_"), said, right=True, kept=True))
    lines, left_out = text_table(columns, width - 2)
    page = ["", f"held-out examples, {arms[0]} → {arms[1]}", *(f"  {line}" for line in lines)]
    return [*page, f"  no room for {', '.join(left_out)}"] if left_out else page


def figure(value: float | None) -> str:
    """Return a score in four digits."""
    return "–" if value is None else f"{value:.4g}"


def _said(row: dict[str, Any]) -> str:
    return f"{row['verdict']}, {NEGATIVE_CONTROL}" if row["negative_control"] else row["verdict"]


def kept(row: dict[str, Any]) -> str:
    """Return the share that was kept with Fieller's interval: ``103 % [97, 109]``."""
    if row["retained"] is None:
        return "–"
    share = f"{round(100 * row['retained'])} %"
    if row["retained_unbounded"]:
        return f"{share} [unbounded]"
    if row["retained_low"] is None:
        return share
    return f"{share} [{round(100 * row['retained_low'])}, {round(100 * row['retained_high'])}]"


def _letters(row: dict[str, Any], metrics: Sequence[str]) -> str:
    return " ".join(LETTERS.get(row[f"verdict_{metric}"], "–") for metric in metrics)
