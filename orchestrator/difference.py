"""Two studies side by side: what their runs differ in, and what they find."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from orchestrator.display.output import wrapped
from orchestrator.options import names_sweep, sweep_of
from sweeps.declaration.changes import compare_sweeps
from sweeps.declaration.expand import Sweep, read_sweep
from sweeps.declaration.settings import text_of
from sweeps.errors import UserError
from sweeps.reading.text_table import Column, text_table
from sweeps.spec import RunSpec

if TYPE_CHECKING:
    import polars as pl

# Columns of a name at the head of a column of values.
WIDEST_HEAD = 20
# What of a verdict is set side by side: the slope of the reference, what is left of it, the word.
COMPARED = ("n", "slope_against", "retained", "verdict")


@dataclass(frozen=True)
class Study:
    """One side: a sweep, and the store that may have its results; None for a file."""

    sweep: Sweep
    store: str | None

    @classmethod
    def at(cls, said: str, store: str) -> Study:
        """Return what a file's path, or a name (``NAME@VERSION``) in a store, stands for; or that
        of a sweep which comes with depthsweep, where the store has none of that name."""
        if not names_sweep(said):
            return cls(read_sweep(said), None)
        return cls(sweep_of(said, store)[0], store)

    def verdicts(
        self, name: str, control: str, against: str, metric: str
    ) -> tuple[pl.DataFrame, pl.DataFrame] | None:
        """Return the verdict of each condition, and the runs; None where nothing has finished."""
        if self.store is None:
            return None
        from sweeps.findings.persistence import verdicts_by_metric
        from sweeps.reading.tables import open_store
        from sweeps.statistics.profiles import measure_each

        try:
            tables = open_store(self.store, sweep=name)
            profiles = measure_each(tables, [metric])
            return verdicts_by_metric(profiles, control, against, None), tables.runs().collect()
        except UserError:
            return None


def specifications(a: Sequence[RunSpec], b: Sequence[RunSpec]) -> dict[str, Any]:
    """Return how many runs both have, which settings the others differ in, and what only one has:
    as plain data."""
    changes = compare_sweeps(a, b)
    return {
        "both": changes.same,
        "differ": changes.changed,
        "only_first": [run.run_id for run in changes.gone],
        "only_second": changes.added,
        "settings": [
            {"name": one.name, "first": one.old, "second": one.new, "runs": one.runs}
            for one in changes.fields
        ],
    }


def with_settings_of(table: pl.DataFrame, other: pl.DataFrame, runs: pl.DataFrame) -> pl.DataFrame:
    """Return a table of conditions with the settings by which only the ``other`` one tells its own
    apart, as far as all ``runs`` of its sweep have the same."""
    for name in (name for name in _keys(other) if name not in table.columns):
        if name in runs.columns and len(values := runs[name].unique()) == 1:
            column = values.new_from_index(0, len(table))
            table = table.insert_column(table.columns.index("n"), column)
    return table


def findings(a: pl.DataFrame, b: pl.DataFrame) -> list[dict[str, Any]]:
    """Return a row a condition that either has: what is ``COMPARED`` of both, None for the one that
    has it not.

    Conditions are told apart by every setting that a side names; one that the other does not name
    is None there, and no condition of that name is its counterpart.
    """
    keys = list(dict.fromkeys([*_keys(a), *_keys(b)]))
    sides = [{tuple(row.get(k) for k in keys): row for row in one.to_dicts()} for one in (a, b)]
    found = []
    for key in dict.fromkeys([*sides[0], *sides[1]]):
        rows = [side.get(key) for side in sides]
        said: dict[str, Any] = {"condition": dict(zip(keys, key, strict=True))}
        for name in COMPARED:
            said[name] = [None if row is None else row[name] for row in rows]
        found.append(said)
    return found


def _keys(table: pl.DataFrame) -> list[str]:
    """Return the columns that say what a condition is, less what follows from its model."""
    columns = table.columns[: table.columns.index("n")]
    return [name for name in columns if name not in ("family", "kind", "block", "parameters")]


def specification_lines(names: tuple[str, str], said: dict[str, Any]) -> list[str]:
    """Return lines of at most 80 columns on what the runs of two sweeps differ in."""
    lines = wrapped(
        f"{said['both']} runs in both, {said['differ']} differ in settings,"
        f" {len(said['only_first'])} only in {names[0]}, {said['only_second']} only in {names[1]}"
    )
    if said["settings"]:
        rows = said["settings"]
        columns = [
            Column("  setting", [f"  {row['name']}" for row in rows], kept=True),
            Column(_head(names[0]), [text_of(row["first"]) for row in rows], right=True, kept=True),
            Column(
                _head(names[1]), [text_of(row["second"]) for row in rows], right=True, kept=True
            ),
            Column("runs", [str(row["runs"]) for row in rows], right=True, kept=True),
        ]
        lines += ["", *text_table(columns, 80)[0]]
    return lines


def finding_lines(names: tuple[str, str], rows: list[dict[str, Any]]) -> list[str]:
    """Return lines of at most 80 columns: of each condition both slopes and both verdicts."""

    def cells(name: str, side: int) -> list[str]:
        return [_text(row[name][side]) for row in rows]

    keys = list(rows[0]["condition"]) if rows else []
    columns = [
        *[Column(k, [_text(row["condition"][k]) for row in rows], kept=True) for k in keys],
        Column("slope", cells("slope_against", 0), right=True, kept=True),
        Column("slope", cells("slope_against", 1), right=True, kept=True),
        Column("verdict", cells("verdict", 0), rigid=True, kept=True),
        Column("verdict", cells("verdict", 1), rigid=True, kept=True),
    ]
    both = [row for row in rows if None not in row["n"]]
    moved = sum(row["verdict"][0] != row["verdict"][1] for row in both)
    alone = f", {len(rows) - len(both)} conditions in one alone" if len(both) < len(rows) else ""
    return [
        *wrapped(
            f"first of {names[0]}, then of {names[1]}; {moved} of {len(both)} verdicts"
            f" differ{alone}"
        ),
        "",
        *text_table(columns, 80)[0],
    ]


def _head(name: str) -> str:
    """Return a sweep's name as a heading: no wider than values are."""
    return name if len(name) <= WIDEST_HEAD else f"{name[: WIDEST_HEAD - 1]}…"


def _text(value: Any) -> str:
    if value is None:
        return "·"
    return f"{value:.3f}" if isinstance(value, float) else str(value)
