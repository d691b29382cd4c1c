"""Runs as a store has recorded them, read back: thousands that share most of what they say.

A sweep of 24,000 runs has a handful of models, objectives and controls. Each distinct part is
validated once and shared by the runs that have it, and every run is validated with its parts; so
they are told apart by identity, which is quick, and take the memory of one.
"""

from __future__ import annotations

import json
import marshal
import re
from collections.abc import Iterable
from functools import cache
from typing import Any

from pydantic import create_model

from sweeps.spec import RunSpec
from sweeps.spec.frozen import Frozen

_ID = re.compile(r"[0-9a-f]{12}")


class RecordedSpecs:
    """Reads specifications from plain JSON data, each distinct part of them once."""

    def __init__(self) -> None:
        self._parts: dict[tuple[str, bytes], Any] = {}

    def read(self, data: dict[str, Any], run_id: str | None = None) -> RunSpec:
        """Return the run that ``data`` is of; raise ValueError where it is not one.

        ``run_id`` is what the record says its id is, which is taken for it: computing 24,000 of
        them takes a second. ``doctor`` computes them.
        """
        fields = {
            name: self._part(name, value) if isinstance(value, dict | list) else value
            for name, value in data.items()
        }
        try:
            run = RunSpec(**fields)
        except TypeError as error:  # a key that is no word
            raise ValueError(str(error)) from None
        if run_id is not None:
            if not _ID.fullmatch(run_id):
                raise ValueError(f"{run_id!r} is no run id")
            run.__dict__["run_id"] = run_id
        return run

    def _part(self, name: str, value: Any) -> Any:
        key = (name, marshal.dumps(value, 2))  # as a key only: it is never loaded
        part = self._parts.get(key)
        if part is None:
            part = self._parts[key] = _validated(name, value)
        return part


def _validated(name: str, value: Any) -> Any:
    """Return a part of a specification as its field has it, from JSON data."""
    if name not in RunSpec.model_fields:
        return value  # refused with the run, by its name
    return _alone(name).model_validate_json(json.dumps({name: value})).__dict__[name]


@cache
def _alone(name: str) -> type[Frozen]:
    """Return a specification of one field of a run's, with all that is asked of it."""
    field = RunSpec.model_fields[name]
    fields: dict[str, Any] = {name: (field.annotation, field)}
    return create_model(f"Recorded_{name}", __base__=Frozen, **fields)


def recorded_runs(entries: Iterable[dict[str, Any]]) -> tuple[RunSpec, ...]:
    """Return the runs of a sweep's record, of its entries ``run_id`` and ``spec``.

    Raises ValueError, KeyError or TypeError for what is no such record.
    """
    specs = RecordedSpecs()
    return tuple(specs.read(entry["spec"], entry["run_id"]) for entry in entries)
