"""Tables of finite numbers: JSON has no others, and whatever draws a table reads it as JSON."""

from __future__ import annotations

import polars as pl


def finite(table: pl.DataFrame) -> pl.DataFrame:
    """Return a table with null for each number that is not finite, those in lists included: a
    diverged run has such losses and ratios, and a chart leaves out where they would be."""

    def known(number: pl.Expr) -> pl.Expr:
        return pl.when(number.is_finite()).then(number)

    lists = [
        name
        for name, kind in table.schema.items()
        if isinstance(kind, pl.List) and kind.inner.is_float()
    ]
    return table.with_columns(
        *(known(pl.col(name)) for name, kind in table.schema.items() if kind.is_float()),
        *(pl.col(name).list.eval(known(pl.element())) for name in lists),
    )
