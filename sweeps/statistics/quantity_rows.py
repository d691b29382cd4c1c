"""Quantities of many profiles as rows: of whole runs, and of runs without a group of sequences."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

import numpy as np
import polars as pl

from sweeps.statistics.quantities import quantities
from sweeps.statistics.stacks import PROFILE

DELETED_KEYS = (*PROFILE, "sequence_group")
STEEPNESS = pl.when(pl.col("control") == "standard").then("slope_normalised").alias("steepness")


def quantity_rows(blocks: pl.DataFrame, keys: Sequence[str], floor: float) -> pl.DataFrame:
    """Return one row per profile: its keys and quantities, null where they are not defined.

    Args:
        blocks: the rows of the profiles, each of one ``keys``: finite ``value`` by block, in order.
        floor: the mean change below which there is nothing but rounding.
    """
    lists = blocks.group_by(keys, maintain_order=True).agg(pl.col("value"))
    return _of_lists(lists, keys, floor)


def _of_lists(
    lists: pl.DataFrame, keys: Sequence[str], floor: float, wanted: Collection[str] | None = None
) -> pl.DataFrame:
    """Return one row per profile of ``value`` lists: its keys and the quantities ``wanted``."""
    nothing = quantities(np.empty((0, 1)), wanted=wanted)
    parts = [lists.head(0).select(keys).with_columns(pl.lit(0.0).alias(name) for name in nothing)]
    for (count,), part in lists.group_by(pl.col("value").list.len()):
        values = part["value"].explode().to_numpy().reshape(-1, count)
        columns = quantities(values, floor, wanted)
        parts.append(part.select(keys).with_columns(pl.Series(n, v) for n, v in columns.items()))
    return pl.concat(parts).with_columns(pl.col(nothing.keys()).fill_nan(None))


@dataclass(frozen=True, eq=False)
class WithoutGroups:
    """Profiles without each group of probe sequences, of those that have them for all groups.

    ``lists`` has a row each, ``DELETED_KEYS``, ``control`` and the changes of blocks as ``value``,
    sorted. Quantities are computed when they are asked for: of most metrics only the slope is.
    """

    lists: pl.DataFrame
    floor: float
    _known: dict[str, pl.Series] = field(default_factory=dict)

    def of(self, names: Sequence[str]) -> pl.DataFrame:
        """Return ``DELETED_KEYS`` and quantities, a row each."""
        needed = {"slope_normalised" if name == "steepness" else name for name in names}
        missing = needed - self._known.keys()
        if missing:
            found = _of_lists(self.lists.with_row_index("_row"), ["_row"], self.floor, missing)
            self._known.update((name, found.sort("_row")[name]) for name in missing)
        columns = [self._known[name] for name in sorted(needed)]
        return (
            self.lists.select(*DELETED_KEYS, "control")
            .with_columns(columns)
            .with_columns(STEEPNESS if "steepness" in names else [])
            .select(*DELETED_KEYS, *names)
        )

    def clear(self) -> WithoutGroups:
        """Return none of them."""
        return WithoutGroups(self.lists.clear(), self.floor)


def without_groups(runs: pl.DataFrame, without: pl.DataFrame, floor: float) -> WithoutGroups:
    """Return the profiles without each group, of those runs that have them for all.

    Args:
        runs: ``PROFILE``, ``control`` and ``blocks``, how many a profile has.
        without: ``once`` and ``value``, the changes of all blocks as a list, by ``PROFILE`` and
            ``sequence_group``, in their order.
    """
    lists = without.join(
        runs.select(*PROFILE, "blocks", "control"),
        on=PROFILE,
        how="inner",
        nulls_equal=True,
        maintain_order="left",
    )
    value = pl.col("value")
    known = value.list.eval(pl.element().is_finite().fill_null(value=False)).list.all()
    whole = pl.col("once") & (value.list.len() == pl.col("blocks")) & known
    usable = lists.filter((whole.all() & (pl.len() > 1)).over(PROFILE))
    return WithoutGroups(usable.select(*DELETED_KEYS, "control", "value"), floor)
