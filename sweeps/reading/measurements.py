"""What a store holds of training-free measurements, as readers ask for it.

A measurement belongs to no run: every run of the same model, probe and, for a distance, objective
shares one. Its closing record has the ``result``; what cannot be measured has a result that says
why, under ``refused``.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

from sweeps.reading.closings import Closings
from sweeps.spec import Measurement, RunSpec
from sweeps.store.store import Store

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# Of the change that columns of ``runs`` are of.
PRIMARY = "procrustes"


def recorded(store: Store | Closings, measurement: Measurement) -> dict[str, Any] | None:
    """Return the result of a measurement; None where it was not measured, or refused."""
    return result_of(store, measurement.work_id)


def result_of(store: Store | Closings, work_id: str) -> dict[str, Any] | None:
    """Return the result of a measurement by its id; None where there is none, or it was refused."""
    result = _closings(store, work_id).result(work_id)
    return result if result is not None and "refused" not in result else None


def refusal_of(store: Store | Closings, measurement: Measurement) -> str | None:
    """Return why a measurement cannot be made of this model or data; None where that is not so."""
    work_id = measurement.work_id
    refused: str | None = (_closings(store, work_id).result(work_id) or {}).get("refused")
    return refused


def _closings(store: Store | Closings, work_id: str) -> Closings:
    return store if isinstance(store, Closings) else Closings(store, [work_id])


Propagation = tuple[float | None, float | None, int, list[float] | None]


def propagation_of(result: dict[str, Any], metric: str = PRIMARY) -> Propagation:
    """Return what depth does to noise: (g, sd, draws, mean normalised profile).

    ``g`` is the mean over draws of slope_normalised, ``sd`` its standard deviation over them, and
    the profile, of blocks 1..L, the mean of those divided by their own means. A draw without a
    profile, in which a block cannot be compared or nothing changed, is left out of all of them and
    of ``draws``. Without a draw g, sd and profile are None; sd is None with one.

    A model of several stacks has no g of its own, but each of them: see ``propagation_by_stack``.
    """
    by_stack = propagation_by_stack(result, metric)
    return by_stack.get(None, (None, None, 0, None))


def propagation_by_stack(
    result: dict[str, Any], metric: str = PRIMARY
) -> dict[str | None, Propagation]:
    """Return what ``propagation_of`` does for each stack by its name, None for a single one.

    A result with ``stacks``, [name, layers] of each, has draws over the layers of one after the
    other.
    """
    draws: list[list[float | None]] = result["draws"][metric]
    stacks: list[tuple[str, int]] | None = result.get("stacks")
    if not stacks:
        return {None: _of_draws(draws)}
    found, first = dict[str | None, Propagation](), 0
    for name, layers in stacks:
        found[name] = _of_draws([row[first : first + layers] for row in draws])
        first += layers
    return found


def _of_draws(draws: Sequence[list[float | None]]) -> Propagation:
    import numpy as np  # not needed to ask whether something was measured

    found = [one for row in draws if (one := _normalised(row)) is not None]
    if not found:
        return None, None, 0, None
    slopes = [_slope(profile) for profile in found]
    sd = float(np.std(slopes, ddof=1)) if len(found) > 1 else None
    profile = np.mean(found, axis=0)
    return float(np.mean(slopes)), sd, len(found), [float(value) for value in profile]


def _normalised(row: list[float | None]) -> NDArray[np.float64] | None:
    """Return a profile divided by its mean; None where it has none, as in the definitions."""
    import numpy as np

    values = np.array([np.nan if value is None else value for value in row], dtype=np.float64)
    sound = len(values) > 1 and bool(np.isfinite(values).all()) and bool((values >= 0).all())
    if not sound or values.mean() <= 0:
        return None
    return np.asarray(values / values.mean())


def _slope(profile: NDArray[np.float64]) -> float:
    """Return the ordinary least-squares slope on relative depth i / L."""
    import numpy as np

    depth = np.arange(1, len(profile) + 1) / len(profile)
    centred = depth - depth.mean()
    return float(centred @ profile / (centred @ centred))


class HasSpec(Protocol):
    """A run, whose specification is read when it is asked for."""

    @property
    def spec(self) -> RunSpec:
        """The specification, the same each time."""


class MeasuredOfRuns:
    """What measurements say of some runs, each of them read once, when it is first asked for."""

    def __init__(self, store: Store, rows: Sequence[HasSpec]) -> None:
        self._store = store
        self._rows = rows

    @cached_property
    def _ids(self) -> dict[tuple[object, ...], tuple[str, str]]:
        """The ids of a run's propagation and distance, by all that it says but its seed."""
        found: dict[tuple[object, ...], tuple[str, str]] = {}
        for row in self._rows:
            run = row.spec
            key = run.but_for_the_seed()
            if key not in found:
                propagation = Measurement(kind="propagation", run=run).work_id
                distance = Measurement(kind="objective_distance", run=run).work_id
                found[key] = propagation, distance
        return found

    @cached_property
    def _results(self) -> dict[str, dict[str, Any] | None]:
        ids = {work_id for both in self._ids.values() for work_id in both}
        closings = Closings(self._store, sorted(ids))
        return {work_id: result_of(closings, work_id) for work_id in ids}

    @cached_property
    def _columns(self) -> dict[tuple[str, str], dict[str, Any]]:
        return {
            (propagation, distance): {
                **_propagation_columns(self._results[propagation]),
                **_distance_columns(self._results[distance]),
            }
            for propagation, distance in set(self._ids.values())
        }

    def columns(self, run: RunSpec) -> dict[str, Any]:
        """Return the values of one of the runs by column; null is what was not measured."""
        return self._columns[self._ids[run.but_for_the_seed()]]

    def propagation(
        self, metric: str
    ) -> dict[str, list[tuple[str | None, float | None, float | None, list[float]]]]:
        """Return, for each stack, its name, g, sd and the mean normalised profile under a metric,
        by run id: of the runs whose propagation was measured under it."""
        found = {}
        for work_id in {propagation for propagation, _ in self._ids.values()}:
            result = self._results[work_id]
            if result is not None and metric in result["draws"]:
                found[work_id] = [
                    (stack, g, sd, profile or [])
                    for stack, (g, sd, _, profile) in propagation_by_stack(result, metric).items()
                ]
        of_runs = ((row.spec, self._ids[row.spec.but_for_the_seed()][0]) for row in self._rows)
        return {run.run_id: found[work_id] for run, work_id in of_runs if work_id in found}


def _propagation_columns(result: dict[str, Any] | None) -> dict[str, Any]:
    g, sd, *_ = propagation_of(result) if result else (None, None)
    return {"propagation": g, "propagation_sd": sd}


def _distance_columns(result: dict[str, Any] | None) -> dict[str, Any]:
    found = result or {}
    return {
        "objective_distance": found.get("distance"),
        "objective_distance_low": found.get("low"),
        "objective_distance_high": found.get("high"),
        "objective_distance_noisy": found.get("noisy"),
        "objective_distance_common": (found.get("common") or {}).get("distance"),
        "objective_distance_common_noisy": (found.get("common") or {}).get("noisy"),
    }
