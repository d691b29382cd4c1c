"""What a store holds of training-free measurements, as readers ask for it.

A measurement belongs to no run: every run of the same model, probe and, for a distance, objective
shares one. Its closing record has the ``result``; what cannot be measured has a result that says
why, under ``refused``.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sweeps.spec import Measurement, RunSpec
from sweeps.store.store import Store

# Of the change that columns of ``runs`` are of.
PRIMARY = "procrustes"


def recorded(store: Store, measurement: Measurement) -> dict[str, Any] | None:
    """Return the result of a measurement; None where it was not measured, or refused."""
    return result_of(store, measurement.work_id)


def result_of(store: Store, work_id: str) -> dict[str, Any] | None:
    """Return the result of a measurement by its id; None where there is none, or it was refused."""
    result = (store.work(work_id).done() or {}).get("result")
    return result if isinstance(result, dict) and "refused" not in result else None


def refusal_of(store: Store, measurement: Measurement) -> str | None:
    """Return why a measurement cannot be made of this model or data; None where that is not so."""
    result = (store.work(measurement.work_id).done() or {}).get("result")
    return result.get("refused") if isinstance(result, dict) else None


def propagation_of(
    result: dict[str, Any], metric: str = PRIMARY
) -> tuple[float | None, float | None, int, list[float] | None]:
    """Return what depth does to noise: (g, sd, draws, mean normalised profile).

    ``g`` is the mean over draws of slope_normalised, ``sd`` its standard deviation over them, and
    the profile, of blocks 1..L, the mean of those divided by their own means. A draw without a
    profile, in which a block cannot be compared or nothing changed, is left out of all of them and
    of ``draws``. Without a draw g, sd and profile are None; sd is None with one.
    """
    found = [one for row in result["draws"][metric] if (one := _normalised(row)) is not None]
    if not found:
        return None, None, 0, None
    slopes = [_slope(profile) for profile in found]
    sd = float(np.std(slopes, ddof=1)) if len(found) > 1 else None
    profile = np.mean(found, axis=0)
    return float(np.mean(slopes)), sd, len(found), [float(value) for value in profile]


def _normalised(row: list[float | None]) -> NDArray[np.float64] | None:
    """Return a profile divided by its mean; None where it has none, as in the definitions."""
    values = np.array([np.nan if value is None else value for value in row], dtype=np.float64)
    sound = len(values) > 1 and bool(np.isfinite(values).all()) and bool((values >= 0).all())
    if not sound or values.mean() <= 0:
        return None
    return np.asarray(values / values.mean())


def _slope(profile: NDArray[np.float64]) -> float:
    """Return the ordinary least-squares slope on relative depth i / L."""
    depth = np.arange(1, len(profile) + 1) / len(profile)
    centred = depth - depth.mean()
    return float(centred @ profile / (centred @ centred))


class MeasuredOfRuns:
    """What measurements say of runs, each of them read once."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._read: dict[str, dict[str, Any]] = {}
        self._results: dict[str, dict[str, Any] | None] = {}
        self._propagations: dict[str, str] = {}

    def columns(self, run: RunSpec) -> dict[str, Any]:
        """Return the values of a run by column; null is what was not measured."""
        propagation = Measurement(kind="propagation", run=run).work_id
        self._propagations[run.run_id] = propagation
        distance = Measurement(kind="objective_distance", run=run).work_id
        if propagation not in self._read:
            self._results[propagation] = result_of(self._store, propagation)
            self._read[propagation] = _propagation_columns(self._results[propagation])
        if distance not in self._read:
            self._read[distance] = _distance_columns(result_of(self._store, distance))
        return {**self._read[propagation], **self._read[distance]}

    def propagation(self, metric: str) -> dict[str, tuple[float | None, float | None, list[float]]]:
        """Return g, sd and the mean normalised profile under a metric, by run id: of the runs
        whose columns were asked for and whose propagation was measured under it."""
        found = {}
        for work_id, result in self._results.items():
            if result is not None and metric in result["draws"]:
                g, sd, _, profile = propagation_of(result, metric)
                found[work_id] = (g, sd, profile or [])
        return {
            run_id: found[work_id]
            for run_id, work_id in self._propagations.items()
            if work_id in found
        }


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
