"""What a condition is called where it is shown: by what tells it apart from others, and no more."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from sweeps.declaration.settings import control_options
from sweeps.statistics.profiles import DEFAULT_BY
from sweeps.statistics.stacks import STACK

STANDARD = "standard"
# Between the parts of a name; a label too long for its place is broken here.
BETWEEN = " · "


def named(table: pl.DataFrame, keys: Sequence[str]) -> pl.DataFrame:
    """Add the names of the conditions that ``keys`` tell apart, in place of the settings in them.

    ``arm`` is the control with those of its options that vary, ``setting`` all else that varies
    (a stack by its name alone, "" where nothing does), ``condition`` the objective with the
    setting, ``treatment`` the arm with the setting. Two conditions of a model differ in
    ``condition`` or in ``arm``.
    """
    extra = [key for key in keys if key not in DEFAULT_BY]
    options = [key for key in extra if key in control_options()]
    others = [key for key in extra if key not in options]
    arm = _joined([pl.col("control").fill_null(""), *map(_said, options)])
    setting = _joined([_said(key) for key in others]) if others else pl.lit("")
    return (
        table.with_columns(arm=arm, setting=setting)
        .with_columns(
            condition=_joined([pl.col("objective").fill_null(""), pl.col("setting")]),
            treatment=_joined([pl.col("arm"), pl.col("setting")]),
        )
        .drop(extra)
    )


def _joined(parts: Sequence[pl.Expr]) -> pl.Expr:
    """Return the parts that say something, in one string."""
    said = [pl.when(part != "").then(part) for part in parts]
    return pl.concat_str(said, separator=BETWEEN, ignore_nulls=True)


def _said(key: str) -> pl.Expr:
    """Return a setting with its value, "" where a condition has none; a stack by its name."""
    value = pl.col(key).cast(pl.String).fill_null("")
    # A digest says no more by its other digits.
    short = pl.when(value.str.contains("^[0-9a-f]{40,}$")).then(value.str.head(12)).otherwise(value)
    shown = short if key == STACK else pl.concat_str([pl.lit(f"{key} "), short])
    return pl.when(value != "").then(shown).otherwise(pl.lit(""))


def arms_of(table: pl.DataFrame) -> list[str]:
    """Return the arms in the order that gives each one colour: standard training first."""
    names = sorted(table["arm"].unique())
    return sorted(names, key=lambda name: not name.startswith(STANDARD))


def reference_first(table: pl.DataFrame) -> pl.DataFrame:
    """Return rows of standard training before all others, so that those are drawn over it."""
    return table.sort(pl.col("control") != STANDARD, maintain_order=True)
