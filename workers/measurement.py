"""One training-free measurement, from its specification to its result in the store."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch

from sweeps.attempts.attempt import Attempt
from sweeps.errors import Impossible
from sweeps.files.patience import patiently
from sweeps.plugins.opened import open_plugins
from sweeps.spec import Measurement, MeasurementKind
from sweeps.store.records import sealed
from sweeps.store.run_folder import RunFolder
from sweeps.store.store import Store
from sweeps.versions.plugin_code import kept_code
from workers.distance.objective_distance import ObjectiveDistance
from workers.loading import load_model
from workers.probes.propagation import DRAWS, Propagation
from workers.progress import PREPARATION, Progress, logged
from workers.ranks.notice import Notice
from workers.run_record import made_on, provenance

# Yields (done, of how many) after each piece, where how many is known; returns the result.
Measuring = Iterator[tuple[int, int]]


def measure(
    measurement: Measurement,
    store: Store,
    device: torch.device,
    notice: Notice | None = None,
) -> Iterator[Progress]:
    """Carry out a measurement, yielding after each draw or batch; its result is in the store then.

    What cannot be measured of the model or data as declared has a result that says so, under
    ``refused``. There is no checkpoint: a measurement that was stopped begins anew.
    """
    folder, notice = store.work(measurement.work_id), notice or Notice()
    with Attempt(folder) as attempt:
        done = folder.done()
        if done is not None:  # the attempt that was waited out has measured it
            attempt.end("not needed")
            yield Progress(0, 0, None, done["status"])
            return
        attempt.describe(**provenance(device))
        yield Progress(0, 0, None)
        attempt.resumed_from(0)
        open_plugins(measurement.run, partial(kept_code, store.root))
        result: dict[str, Any] = {}
        step = steps = 0
        try:
            with PREPARATION.heard_by(logged(attempt.log)):
                for step, steps in _KINDS[measurement.kind](measurement, store, device, result):
                    if notice.cause:
                        attempt.end(notice.cause)
                        yield Progress(step, steps, None, notice.cause)
                        return
                    yield Progress(step, steps, None)
        except Impossible as error:
            result = {"refused": str(error)}
            attempt.log("cannot be measured", "warning", reason=str(error))
        _close(folder, measurement, {**result, "made_on": made_on(device)}, attempt)
        attempt.end("finished")
        yield Progress(step, steps, None, "finished")


def _propagation(
    measurement: Measurement, store: Store, device: torch.device, result: dict[str, Any]
) -> Measuring:
    run = measurement.run
    pretrained = load_model(run.model, store.cache, needs_head=False)
    propagation = Propagation(run.model, run.probe, pretrained, store.cache, device)
    draws = []
    for draw in propagation.draws():
        draws.append(draw)
        yield len(draws), DRAWS
    result |= propagation.result(draws)


def _distance(
    measurement: Measurement, store: Store, device: torch.device, result: dict[str, Any]
) -> Measuring:
    run = measurement.run
    pretrained = load_model(run.model, store.cache, needs_head=True)
    distance = ObjectiveDistance(run, pretrained, store.cache, device)
    for read in distance.measure():
        yield read, 0  # how many it takes is not known before
    result |= distance.result()


_KINDS: dict[
    MeasurementKind,
    Callable[[Measurement, Store, torch.device, dict[str, Any]], Measuring],
] = {"propagation": _propagation, "objective_distance": _distance}


def _close(
    folder: RunFolder, measurement: Measurement, result: dict[str, Any], attempt: Attempt
) -> None:
    """Write the closing record, whose step and parts are those of a run without any."""
    closing = sealed(
        {
            "status": "finished",
            "step": 0,
            "loss": None,
            "parts": {},
            "measurement": measurement.identity(),
            "result": result,
        }
    )
    attempt.require_ownership()
    if not patiently(partial(folder.close, closing), folder.path):
        raise attempt.superseded()
