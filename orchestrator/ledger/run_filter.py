"""Which runs a user means by ``status=failed,model=gpt2``: any setting by its name, and the state.

Conditions of one name are alternatives, conditions of several names must all hold; ``!=`` leaves
out. Which settings there are is read off the specification.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from orchestrator.ledger.recovery import STATES
from sweeps.declaration.settings import Scalar, settings_of, text_of
from sweeps.errors import UserError, closest
from sweeps.spec import RunSpec

STATUS = "status"
RUN_ID = "run_id"
# A comma begins the next condition only where a name and a sign follow: a value may have commas.
_NEXT = re.compile(r",\s*(?=\w+\s*!?=)")
_CONDITION = re.compile(r"\s*(\w+)\s*(!?=)\s*(.*?)\s*")


@dataclass(frozen=True)
class Condition:
    """One setting, or the state, and a value that it is to have or not to have."""

    name: str
    holds: bool
    value: str


def parse_where(
    said: str, spec: type[RunSpec] = RunSpec, option: str = "--where"
) -> list[Condition]:
    """Return the conditions of a text; raise UserError naming the nearest setting."""
    names = [STATUS, RUN_ID, *(one.name for one in settings_of(spec))]
    found = []
    for text in _NEXT.split(said):
        match = _CONDITION.fullmatch(text)
        if match is None:
            raise UserError(f"{option} {text!r}: write name=value, as in status=failed,model=gpt2")
        name, sign, value = match.groups()
        if name not in names:
            raise UserError(f"{option} {name}: no setting of a run; {closest(name, names)}")
        if name == STATUS and value not in STATES:
            raise UserError(f"{option} {STATUS}={value}: no state; {closest(value, STATES)}")
        found.append(Condition(name, sign == "=", value))
    return found


def require_known(
    runs: Sequence[RunSpec], conditions: Sequence[Condition], option: str = "--where"
) -> None:
    """Raise UserError for a value that none of the runs has: it is mistyped."""
    values = _values(runs)
    for one in (one for one in conditions if one.name != STATUS):
        there = list(dict.fromkeys(values[one.name](run) for run in runs)) if runs else []
        if there and not any(_equal(value, one.value) for value in there):
            valid = [text_of(value) for value in there]
            raise UserError(
                f"{option} {one.name}={one.value}: no run has that; {closest(one.value, valid)}"
            )


def matching(
    runs: Sequence[RunSpec], conditions: Sequence[Condition], state_of: Callable[[str], str]
) -> list[RunSpec]:
    """Return the runs for which the conditions hold, in order; the state is asked for only where
    it decides."""

    def state(run: RunSpec) -> Scalar:
        return state_of(run.run_id)

    values = {**_values(runs), STATUS: state}
    kept = list(runs)
    for name, wanted in _by_name(conditions).items():
        kept = [run for run in kept if _holds(values[name](run), wanted)]
    return kept


def _values(runs: Sequence[RunSpec]) -> dict[str, Callable[[RunSpec], Scalar]]:
    """Return how each setting of runs is read, by its name, and their ids."""
    known = {one.name: one.value for run in runs[:1] for one in settings_of(type(run))}
    return {**known, RUN_ID: lambda run: run.run_id}


def _by_name(conditions: Iterable[Condition]) -> Mapping[str, list[Condition]]:
    """Return conditions by name, those on the state last: it is read from the store."""
    found: dict[str, list[Condition]] = {}
    for one in sorted(conditions, key=lambda one: one.name == STATUS):
        found.setdefault(one.name, []).append(one)
    return found


def _holds(value: Scalar, wanted: Sequence[Condition]) -> bool:
    anyof = [one for one in wanted if one.holds]
    return (not anyof or any(_equal(value, one.value) for one in anyof)) and not any(
        _equal(value, one.value) for one in wanted if not one.holds
    )


def _equal(value: Scalar, said: str) -> bool:
    """Return whether a value is what a user wrote: numbers by value, ``none`` for nothing said."""
    if value is None or isinstance(value, bool):
        return said.lower() == str(value).lower()
    if isinstance(value, (int, float)):
        try:
            return float(said) == value
        except ValueError:
            return False
    return said in (value, text_of(value))
