"""What is measured of a model without training it: once for all runs that share it.

A measurement is known by what decides it, as a run is, and by how it is measured: its id holds a
version that is raised with every change of that, so that what was measured before is not taken for
it. The name of a model or objective, control, seed, steps and optimizer of a run do not enter.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from functools import cached_property
from typing import Any, Literal, get_args

from sweeps.spec.frozen import Frozen, content_id
from sweeps.spec.run import RunSpec

MeasurementKind = Literal["propagation", "objective_distance"]
MEASUREMENTS: tuple[MeasurementKind, ...] = get_args(MeasurementKind)
# What a sweep that says nothing wants.
USUAL_MEASUREMENTS: tuple[MeasurementKind, ...] = ("propagation",)

# Raise it with every change of how the kind is measured.
_VERSIONS: dict[MeasurementKind, int] = {"propagation": 1, "objective_distance": 2}
# What the ids of a kind begin with, and what people call it.
_PREFIXES: dict[MeasurementKind, str] = {
    "propagation": "propagation",
    "objective_distance": "distance",
}
_NAMES: dict[MeasurementKind, tuple[str, str]] = {
    "propagation": ("propagation", "propagations"),
    "objective_distance": ("objective distance", "objective distances"),
}


class Measurement(Frozen):
    """One training-free measurement; ``run`` is any run of that model, objective and probe."""

    kind: MeasurementKind
    run: RunSpec

    def identity(self) -> dict[str, Any]:
        """Return what decides the result; when the probe comes decides nothing, and neither do
        metrics of the user's own, which no measurement has."""
        run = self.run
        probe = run.probe.identity()
        for of_runs in ("every", "metrics"):
            probe.pop(of_runs, None)
        found: dict[str, Any] = {
            "kind": self.kind,
            "version": _VERSIONS[self.kind],
            "model": run.model.source.identity(),
            "probe": probe,
        }
        if self.kind == "objective_distance":
            found |= {
                "pretraining": run.model.source.pretraining,
                "objective": run.objective.identity(),
                "batch_size": run.batch_size,
                "sequence_length": run.sequence_length,
            }
        return found

    @cached_property
    def key(self) -> str:
        """First 12 hex digits of SHA-256 over the canonical JSON of the identity."""
        return content_id(self.identity())

    @property
    def work_id(self) -> str:
        """The id by which store, cluster and people know it: its kind, then its key."""
        return f"{_PREFIXES[self.kind]}-{self.key}"

    @property
    def label(self) -> str:
        """What it is of, for people."""
        of = self.run.model.name
        if self.kind == "objective_distance":
            of += f" {self.run.objective.label}"
        return f"{_NAMES[self.kind][0]} of {of}"


def is_measurement(work_id: str) -> bool:
    """Return whether an id is a measurement's and not a run's."""
    return work_id.startswith(tuple(f"{prefix}-" for prefix in _PREFIXES.values()))


def measurements_of(
    runs: Iterable[RunSpec], kinds: Collection[MeasurementKind]
) -> list[Measurement]:
    """Return the distinct measurements of some kinds that runs share, kind by kind in order."""
    found = dict[str, Measurement]()
    distinct: dict[tuple[object, ...], RunSpec] = {}
    for run in runs:  # a seed decides no measurement
        distinct.setdefault(run.but_for_the_seed(), run)
    for kind in (kind for kind in MEASUREMENTS if kind in kinds):
        for run in distinct.values():
            measurement = Measurement(kind=kind, run=run)
            found.setdefault(measurement.work_id, measurement)
    return list(found.values())


def counted(measurements: Iterable[Measurement]) -> str:
    """Return how many there are of each kind, for people: 5 propagations, 1 objective distance."""
    kinds = [measurement.kind for measurement in measurements]
    said = [
        f"{kinds.count(kind)} {_NAMES[kind][kinds.count(kind) != 1]}"
        for kind in MEASUREMENTS
        if kind in kinds
    ]
    return ", ".join(said)
