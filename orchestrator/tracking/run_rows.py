"""What a store has of one run, as a tracker is told it: exact, for every step, in order.

Of a run that has not ended, what counts is what a checkpoint stands on: an attempt that follows
never goes back behind its newest one, and all tables are whole up to there.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import cached_property, partial
from typing import Any

import polars as pl

from orchestrator.tracking.profile_picture import profile_picture
from orchestrator.tracking.tracker import Outcome, StepRow
from sweeps.reading.tables import Tables
from sweeps.spec import RunSpec, score_column
from sweeps.statistics.profiles import BEYOND, QUANTITIES, measure
from sweeps.store.records import COMPLETE
from sweeps.store.schema import SORT_KEYS, TABLES
from sweeps.store.store import Store

_KEY = ("run_id", "step")
# Of a run of which no record says when it was started.
_BEGINNING = datetime(2000, 1, 1, tzinfo=UTC)


class RunRows:
    """One run of a store that is read now; see ``Store.reading``."""

    def __init__(self, store: Store, run: RunSpec) -> None:
        self._run = run
        self._folder = store.run(run.run_id)
        self._done = self._folder.done()
        self._tables = Tables(store, [run], include_running=True)

    @property
    def status(self) -> str | None:
        """How the run ended, if it has."""
        return str(self._done["status"]) if self._done else None

    def steps_after(self, step: int) -> list[StepRow]:
        """Return the steps after one, as far as they count, with every number of theirs.

        That is each numeric column of each table that has one row a step; those of ``steps`` by
        their own name, others with the table's before it; and each score of each evaluation, of
        which the first stands at step 0.
        """
        found: dict[int, dict[str, float]] = {}
        until = self._until()
        if until <= step:
            return []
        for table, scan in self._tables.by_name().items():
            if SORT_KEYS.get(table) != _KEY:
                continue
            columns = [name for name in TABLES[table].names if name not in _KEY]
            rows = scan.filter(pl.col("step") > step, pl.col("step") <= until).sort("step")
            numbers = rows.select("step", pl.selectors.by_name(columns) & pl.selectors.numeric())
            for row in numbers.collect().iter_rows(named=True):
                at = row.pop("step")
                prefix = "" if table == "steps" else f"{table}/"
                found.setdefault(at, {}).update(
                    {f"{prefix}{name}": float(x) for name, x in row.items() if x is not None}
                )
        for at, name, value in self._scores(step, until):
            found.setdefault(at, {})[f"evaluation/{name}"] = value
        return [StepRow(at, self._time(at), found[at]) for at in sorted(found)]

    def _scores(self, step: int, until: int) -> Iterator[tuple[int, str, float]]:
        """Yield step, name and value of each score after a step; at 0 nothing was said so far."""
        at = pl.col("step")
        rows = self._tables.evaluations().filter((at > step) if step else (at >= 0), at <= until)
        known = rows.select("step", "score", "value").drop_nulls().sort("step", "score")
        yield from known.collect().iter_rows()

    def outcome(self, otherwise: str) -> Outcome:
        """Return how the run stands; ``otherwise`` is its status where it has no result."""
        step = int(self._done["step"]) if self._done else self._until()
        profiles = self._profiles(step)
        return Outcome(
            self.status or otherwise,
            step,
            self._time(step),
            dict(self._numbers()),
            profiles,
            partial(profile_picture, profiles, self._run.describe()),
        )

    def _until(self) -> int:
        """Return the last step whose rows count."""
        if self._done:
            return int(self._done["step"])
        return max(self._folder.checkpoint_steps(), default=0)

    def _time(self, step: int) -> datetime:
        """Return a time for a step: of the run's beginning, with a millisecond a step.

        No table holds when a step was. A tracker that gets a row twice knows it by its time.
        """
        return self._began + timedelta(milliseconds=step)

    @cached_property
    def _began(self) -> datetime:
        times = [each["started"] for each in self._folder.attempts() if each["started"]]
        found = [datetime.fromisoformat(time).astimezone(UTC) for time in times]
        return min(found, default=_BEGINNING)

    def _profiles(self, until: int) -> pl.DataFrame | None:
        columns = [name for name in TABLES["profiles"].names if name != "run_id"]
        rows = self._tables.profiles().filter(pl.col("step") <= until).select(columns)
        found = rows.sort("step", "stack", "layer").collect()
        return None if found.is_empty() else found

    def _numbers(self) -> Iterator[tuple[str, float]]:
        """Yield the final losses and scores, and the quantities of the final depth profile, where
        known."""
        row: dict[str, Any] = {"final_loss": self._done.get("loss")} if self._done else {}
        scores = (self._done or {}).get("evaluation", {}).get("last", {})
        row |= {score_column(name): value for name, value in scores.items()}
        if self.status in COMPLETE:
            runs = measure(self._tables).runs
            for of_stack in runs.select("stack", *QUANTITIES, BEYOND).to_dicts():
                stack = of_stack.pop("stack")
                said = "" if stack is None else f"{stack} "
                row |= {f"{said}{name}": value for name, value in of_stack.items()}
        for name, value in row.items():
            if value is not None and math.isfinite(value):
                yield name, float(value)
