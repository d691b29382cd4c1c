"""Runs as a store has recorded them, read back: thousands that share most of what they say.

A sweep of 24,000 runs has a handful of models, objectives and controls. Each distinct part is
validated once and shared by the runs that have it, and every run is validated with its parts; so
they are told apart by identity, which is quick, and take the memory of one.
"""

from __future__ import annotations

import json
import marshal
import re
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, overload

from pydantic import create_model
from pydantic_core import from_json

from sweeps.spec import MEASUREMENTS, USUAL_MEASUREMENTS, MeasurementKind, RunSpec
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


def sweep_record(data: bytes) -> dict[str, Any]:
    """Return a sweep's record, of tens of MB where runs are thousands; raise ValueError for what is
    none."""
    record = from_json(data)
    if not isinstance(record, dict):
        raise ValueError("not a JSON object")
    return record


def wanted_measurements(record: dict[str, Any]) -> tuple[MeasurementKind, ...]:
    """Return what a sweep wants measured; a record of before there was a choice has no word."""
    said = record.get("measurements", USUAL_MEASUREMENTS)
    if unknown := set(said) - set(MEASUREMENTS):
        raise ValueError(f"measurements: {', '.join(sorted(map(str, unknown)))}")
    return tuple(kind for kind in MEASUREMENTS if kind in said)


class RecordedRuns(Sequence[RunSpec]):
    """The runs of a sweep's record: their ids at once, each specification when it is asked for.

    Where one is asked for that is no run, ValueError, KeyError or TypeError is raised.
    """

    def __init__(self, entries: Sequence[dict[str, Any]]) -> None:
        """``entries`` have ``run_id`` and ``spec``; raise KeyError or TypeError for others."""
        self.ids: list[str] = [entry["run_id"] for entry in entries]
        # The class of the specifications, known before any is read.
        self.kind: type[RunSpec] = RunSpec
        self._entries: Sequence[dict[str, Any]] | None = entries
        self._read_entries: Callable[[], Sequence[dict[str, Any]]] = lambda: entries
        self._specs = RecordedSpecs()
        self._read: dict[int, RunSpec] = {}

    @classmethod
    def of(cls, runs: Sequence[RunSpec]) -> RecordedRuns:
        """Return runs that are known already."""
        found = cls([{"run_id": run.run_id} for run in runs])
        found._read = dict(enumerate(runs))
        found.kind = type(runs[0]) if runs else RunSpec
        return found

    @classmethod
    def named(
        cls, ids: Sequence[str], read_entries: Callable[[], Sequence[dict[str, Any]]]
    ) -> RecordedRuns:
        """Return runs whose ids are known, and whose entries are read when the first is asked for:
        the record of 24,000 runs takes a quarter of a second. ValueError is then raised where the
        record is of other runs."""
        found = cls([])
        found.ids, found._entries, found._read_entries = list(ids), None, read_entries
        return found

    def __len__(self) -> int:
        return len(self.ids)

    @overload
    def __getitem__(self, index: int) -> RunSpec: ...

    @overload
    def __getitem__(self, index: slice) -> list[RunSpec]: ...

    def __getitem__(self, index: int | slice) -> RunSpec | list[RunSpec]:
        if isinstance(index, slice):
            return [self[k] for k in range(*index.indices(len(self)))]
        if index not in self._read:
            entry = self._entry(index)
            self._read[index] = self._specs.read(entry["spec"], entry["run_id"])
        return self._read[index]

    def _entry(self, index: int) -> dict[str, Any]:
        if self._entries is None:
            entries = self._read_entries()
            if [entry["run_id"] for entry in entries] != self.ids:
                raise ValueError("the record's runs are not those that its header names")
            self._entries = entries
        return self._entries[index]
