"""Depth profiles as text: a line per condition, its shape as a sparkline."""

from __future__ import annotations

import itertools
import math
import textwrap
from collections.abc import Sequence
from typing import Any

import polars as pl

from sweeps.declaration.settings import text_of
from sweeps.reading.text_table import Column, text_table
from sweeps.statistics.conditions import condition_columns, everyone, layer_bands, summarise
from sweeps.statistics.profiles import BEYOND, DEFAULT_BY, Profiles, unequal_rows
from sweeps.statistics.stacks import STACK

BARS = "▁▂▃▄▅▆▇█"
WIDEST_SPARKLINE = 10


def sparkline(values: Sequence[float], widest: int = WIDEST_SPARKLINE) -> str:
    """Return one bar per value from zero to the largest; neighbours are averaged beyond ``widest``.

    A value below zero, which only the signed metrics have, lowers the base line to it.
    """
    cells = min(len(values), widest)
    bounds = [round(k * len(values) / cells) for k in range(cells + 1)]
    means = [sum(values[a:b]) / (b - a) for a, b in itertools.pairwise(bounds)]
    base, top = min([0.0, *means]), max(means)
    if top <= base:
        return BARS[0] * cells
    return "".join(
        BARS[min(int((mean - base) / (top - base) * len(BARS)), len(BARS) - 1)] for mean in means
    )


def with_interval(value: float | None, low: float | None, high: float | None) -> str:
    """Return ``0.291 [0.270, 0.311]``, or the value alone.

    Three decimals; two digits of the largest of the three where they would show none of it.
    """
    if value is None:
        return "–"
    largest = max(abs(x) for x in (value, low, high) if x is not None)
    digits = 3 if largest == 0 or largest >= 1e-3 else 1 - math.floor(math.log10(largest))
    shown = [f"{x:.{digits}f}" for x in (value, low, high) if x is not None]
    # A number that is rounded to nothing has no sign.
    shown = [text.removeprefix("-") if float(text) == 0 else text for text in shown]
    return shown[0] if len(shown) < 3 else f"{shown[0]} [{shown[1]}, {shown[2]}]"


def plain(value: float | None, digits: int = 2) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def profile_text(name: str, profiles: Profiles, by: Sequence[str], width: int = 80) -> str:
    """Return the profiles of a sweep as a page of at most ``width`` columns."""
    table = summarise(profiles, by)
    bands = layer_bands(profiles, by)
    moment = "the last step" if profiles.at == "final" else f"step {profiles.at}"
    found, total = (frame["run_id"].n_unique() for frame in (profiles.runs, everyone(profiles)))
    blocks = "" if profiles.block_class is None else f", blocks of class {profiles.block_class}"
    title = f"{name}: {profiles.metric} at {moment}{blocks}, {found} of {total} runs"
    lines = textwrap.wrap(title, width)
    shapes = _shapes(bands, by)
    lead, rest = by[0], list(by[1:])
    firsts = {value: rank for rank, value in enumerate(table[lead].unique(maintain_order=True))}
    measured = table.filter(pl.col("n") > 0).to_dicts()
    measured.sort(key=lambda row: firsts[row[lead]])
    columns = [
        *[Column(key, [text_of(row[key]) for row in measured], kept=True) for key in rest],
        Column("n", [str(row["n"]) for row in measured], right=True, kept=True),
        Column("by depth", [shapes[_key(row, by)] for row in measured], rigid=True),
        Column(
            "slope [95 %]",
            [with_interval(row["slope"], row["slope_low"], row["slope_high"]) for row in measured],
            right=True,
            kept=True,
        ),
        Column("centre", [plain(row["centre_of_mass"]) for row in measured], right=True),
        Column("over g", [over_propagation(row) for row in measured], right=True),
    ]
    rows, left_out = text_table(columns, width - 2)
    margin, names = "  ", [""] * len(measured)
    if left_out:
        # What a condition is has lines of its own, so that no number and no setting is dropped.
        rows, left_out = text_table(columns[len(rest) :], width - 6)
        margin, names = " " * 6, [_called(row, rest) for row in measured]
    of_models = _without_gradients(profiles)
    if measured:
        lines += ["", margin + rows[0]]
    previous: Any = object()
    for row, name, line in zip(measured, names, rows[1:], strict=True):
        if row[lead] != previous:
            previous = row[lead]
            lines.append(
                text_of(previous) + (of_models.get(previous, "") if lead == "model" else "")
            )
        lines += [f"  {part}" for part in textwrap.wrap(name, width - 2, subsequent_indent="  ")]
        lines.append(margin + line)
    notes = [
        *_explained(measured, left_out),
        *_notes(profiles, table, by),
        *(f"! {note}" for note in no_room(left_out)),
    ]
    folded = [textwrap.fill(note, width, subsequent_indent="  ") for note in notes]
    return "\n".join([*lines, "", *folded]).rstrip() + "\n"


def _called(row: dict[str, Any], keys: Sequence[str]) -> str:
    """Return what a condition is: objective, control and stack by themselves, settings by name."""
    known = {key: text_of(row[key]) for key in keys if row[key] is not None}
    alone = (*DEFAULT_BY, STACK)
    said = (value if key in alone else f"{key} {value}" for key, value in known.items())
    return ", ".join(said)


def over_propagation(row: dict[str, Any]) -> str:
    """Return how much steeper a profile is, over its mean, than depth alone makes it: ✓ where that
    is so with its interval, ✗ where it is less steep with it."""
    value, high = row[BEYOND], row[f"{BEYOND}_high"]
    if value is None:
        return "–"
    below = high is not None and high < 0
    return f"{value:+.2f}{'✓' if row['beyond_propagation'] else '✗' if below else ' '}"


def _without_gradients(profiles: Profiles) -> dict[Any, str]:
    """Return, by model, what noise in its weights does by depth: g and the shape; of several stacks
    a line for each."""
    found = {}
    known = profiles.blocks.filter(pl.col("without_gradient").is_not_null())
    for (model,), own in known.group_by("model", maintain_order=True):
        run = own.filter(pl.col("run_id") == own["run_id"][0]).sort("layer")
        said = ""
        for (stack,), first in run.group_by("stack", maintain_order=True):
            g, sd = first["propagation"][0], first["propagation_sd"][0]
            shape = sparkline(first["without_gradient"].to_list())
            lead = "  (" if stack is None else f"\n  ({stack} "
            said += f"{lead}without gradients {shape}  g {g:.2f}, sd {sd or 0:.2f})"
        found[model] = said
    return found


def _explained(measured: Sequence[dict[str, Any]], left_out: Sequence[str]) -> list[str]:
    notes = []
    if any(row[BEYOND] is not None for row in measured) and "over g" not in left_out:
        notes.append(
            "over g: slope over mean change, less that of noise in the weights (g); with its"
            " interval it lies ✓ above 0, ✗ below"
        )
    if any(row["n"] and not row["rows"] for row in measured):
        notes.append(
            "intervals are for these probe rows where conditions are pooled or other rows were not"
            " measured"
        )
    return notes


def _shapes(bands: pl.DataFrame, by: Sequence[str]) -> dict[tuple[Any, ...], str]:
    """Return the sparkline of each condition; where depths are mixed, that of the deepest."""
    shapes = {}
    for key, group in bands.sort("blocks", "layer").group_by(by, maintain_order=True):
        deepest = group.filter(pl.col("blocks") == pl.col("blocks").max())
        shapes[key] = sparkline(deepest["value"].to_list())
    return shapes


def _notes(profiles: Profiles, table: pl.DataFrame, by: Sequence[str]) -> list[str]:
    unequal = unequal_rows(profiles)
    notes = [] if unequal is None else [f"! {unequal}"]
    for flag, group in table.group_by("flags", maintain_order=True):
        if flag[0]:
            notes.append(f"! {flag[0]}: {_named(group, by)}")
    keys = [name for name in condition_columns(everyone(profiles)) if name != STACK]
    without = profiles.left_out.unique("run_id", maintain_order=True)
    for row in without.filter(pl.col("status") == "diverged").to_dicts():
        run = " ".join(text_of(row[key]) for key in keys)
        notes.append(f"! diverged at step {row['last_step']}: {run} seed {row['seed']}")
    counts = without.group_by("reason", maintain_order=True).len().rows()
    if counts:
        said = ", ".join(f"{count} {reason}" for reason, count in counts)
        notes.append(f"! runs left out: {said}")
    return notes


def _named(group: pl.DataFrame, by: Sequence[str]) -> str:
    if group.height > 3:
        return f"{group.height} conditions"
    return "; ".join(" ".join(text_of(value) for value in row) for row in group.select(by).rows())


def no_room(names: Sequence[str]) -> list[str]:
    """Return a note on the columns that found no room; none where all did."""
    how = "widen (off a terminal: COLUMNS=120), or use --export csv"
    return [f"no room for {', '.join(names)}: {how}"] if names else []


def _key(row: dict[str, Any], by: Sequence[str]) -> tuple[Any, ...]:
    return tuple(row[key] for key in by)
