"""What a claims file may say: a claim is data, so that a new one needs no code.

    claims:
      - id: C2
        text: Under standard training the change concentrates near the output
        tests:
          - measure:
              statistic: slope
              where: {control: standard}
              reduce: share
              above: 0
            is: at_least
            than: 0.98

A test takes one *statistic* (of each run, or of each condition its persistence verdict or the
outcome of its alignment) over a selection (*where*), *reduces* it to one number, and compares that
with a number or with another measure. A claim holds when all of its tests do.
"""

from __future__ import annotations

from typing import Annotated, Literal

import polars as pl
from pydantic import AfterValidator, Field, model_validator

from sweeps.errors import closest
from sweeps.findings.alignment.outcomes import OUTCOMES
from sweeps.findings.verdicts import FINDINGS
from sweeps.reading.run_table import RUN_COLUMNS
from sweeps.spec import Frozen
from sweeps.statistics.profiles import BEYOND, QUANTITIES
from sweeps.statistics.stacks import STACK

PERSISTENCE, ALIGNMENT = "persistence", "alignment"
# What may be found of a condition, by the statistic that finds it.
VERDICTS_OF = {PERSISTENCE: FINDINGS, ALIGNMENT: OUTCOMES}
STATISTICS = (*QUANTITIES, BEYOND, "mean", *VERDICTS_OF)
# What selects and groups: what a run is, and of which of its model's stacks a profile is.
COLUMNS = {**RUN_COLUMNS, STACK: pl.String}

Number = Annotated[float, Field(allow_inf_nan=False)]
Scalar = str | int | float


class Range(Frozen):
    """Numbers between two bounds, both included."""

    at_least: Number | None = None
    at_most: Number | None = None

    @model_validator(mode="after")
    def _bounded(self) -> Range:
        if self.at_least is None and self.at_most is None:
            raise ValueError("a range needs at_least, at_most or both")
        return self


Where = dict[str, Scalar | list[Scalar] | Range]


class Measure(Frozen):
    """A number taken from the runs of a selection.

    reduce:
        share, count  of the runs for which the value is ``above`` or ``below`` a number (exact), or
                      of the conditions that show the finding ``verdict``. A unit that is not known,
                      or shows nothing, leaves the answer open when it could change it.
        mean          over models, each the mean of its conditions.
        min, max      over conditions, each the mean of its seeds.
        gap           mean of the first of two ``groups`` of column ``by`` less that of the second:
                      over conditions of a model that differ in it alone, else between models, over
                      the conditions that all of them have.
        spearman      rank correlation within models with the run column ``with_column``; over model
                      means with one that is the same within each.
        variance_explained  share of the variance of condition means that column ``by`` explains
                      alone, given all else that tells conditions apart: of a family given the
                      objective, of an objective given the model.

    Intervals of the last two come from resampling models, of which they need ten.
    """

    statistic: Literal[STATISTICS]  # type: ignore[valid-type]
    where: Where = Field(default_factory=dict)
    reduce: Literal["share", "count", "mean", "min", "max", "gap", "spearman", "variance_explained"]
    above: Number | None = None
    below: Number | None = None
    verdict: Literal[*FINDINGS, *OUTCOMES] | None = None  # type: ignore[valid-type]
    with_column: str | None = Field(None, alias="with")
    by: str | None = None
    groups: Annotated[list[Scalar], Field(min_length=2, max_length=2)] | None = None

    @model_validator(mode="after")
    def _complete(self) -> Measure:
        counted = self.reduce in ("share", "count")
        given = [x is not None for x in (self.above, self.below, self.verdict)]
        if counted and sum(given) != 1:
            raise ValueError(f"reduce: {self.reduce} needs one of above, below, verdict")
        if not counted and any(given):
            raise ValueError(f"above, below and verdict do nothing with reduce: {self.reduce}")
        found = VERDICTS_OF.get(self.statistic, ())
        if bool(found) != (self.verdict is not None):
            raise ValueError(
                f"statistic: {' or '.join(VERDICTS_OF)} goes with verdict, and verdict with these"
                " alone"
            )
        if found and self.verdict not in found:
            raise ValueError(f"{self.statistic} is {', '.join(found)}, and not {self.verdict}")
        for key, value, users in (
            ("with", self.with_column, ("spearman",)),
            ("by", self.by, ("gap", "variance_explained")),
        ):
            if (self.reduce in users) != (value is not None):
                raise ValueError(f"{key} goes with reduce: {' or '.join(users)}, and they need it")
            if value is not None:
                require_column(value, key)
        if self.with_column and COLUMNS[self.with_column] == pl.String:
            raise ValueError(
                f"with: {self.with_column} is text; a rank correlation needs a column of numbers"
            )
        if (self.reduce == "gap") != (self.groups is not None):
            raise ValueError("groups: [A, B] goes with reduce: gap, which is A less B")
        for column in self.where:
            require_column(column, "where")
        if found and "control" in self.where:
            raise ValueError(
                f"{self.statistic} is between two controls: say control beside the claim"
            )
        return self


class Test(Frozen):
    """One comparison that a claim rests on."""

    __test__ = False  # pytest would take the name for a test class

    measure: Measure
    is_: Literal["above", "below", "at_least", "at_most"] = Field(alias="is")
    than: Number | Measure


def _other_than_standard(control: str) -> str:
    if control == "standard":
        raise ValueError("persistence is of another control than standard, beside which it stands")
    return control


class Claim(Frozen):
    """A statement, and the tests that must all hold."""

    id: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=20)]
    text: str
    control: Annotated[str, AfterValidator(_other_than_standard)] = Field(
        "equal_step", description="Whose persistence is meant: any control but the standard one."
    )
    tests: Annotated[list[Test], Field(min_length=1)]


class ClaimsFile(Frozen):
    """A file of claims."""

    source: str = Field("", description="Where the claims were made.")
    claims: Annotated[list[Claim], Field(min_length=1)]

    @model_validator(mode="after")
    def _ids_distinct(self) -> ClaimsFile:
        ids = [claim.id for claim in self.claims]
        for name in ids:
            if ids.count(name) > 1:
                raise ValueError(f"the id {name} stands twice")
        return self


def require_column(name: str, key: str) -> None:
    """Raise ValueError unless runs, or the stacks of their models, have the column."""
    if name not in COLUMNS:
        raise ValueError(f"{key}: runs have no column {name!r}; {closest(name, [*COLUMNS])}")
