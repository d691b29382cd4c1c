"""Runs to Ray Tune trials, each of which supervises one run after another."""

from __future__ import annotations

import contextlib
import logging
import tempfile
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from orchestrator.connection.ray_environment import ray  # noqa: F401, before ray.tune is imported
from orchestrator.ranks.rank_hosts import RankHosts
from orchestrator.tuning.admission import Admission, Event
from orchestrator.tuning.reservations import Reservations
from orchestrator.tuning.trials import Offer

from ray import tune  # isort: skip
from ray.tune import PlacementGroupFactory  # isort: skip


def resources_of(config: dict[str, Any]) -> PlacementGroupFactory:
    """Return what a trial asks Tune for: next to nothing, on its node if that is there.

    What its runs hold are slots that the driver reserves: so a trial serves runs of all shapes, and
    an idle one keeps no GPU.
    """
    # A trial for a node that has just left must start elsewhere and say so; pinned, it would wait.
    return PlacementGroupFactory(
        [{"memory": 1}], strategy="STRICT_PACK", _soft_target_node_id=config["node"]
    )


def run_all(
    trainable: type[tune.Trainable],
    offers: Sequence[Offer],
    nodes: Callable[[], Sequence[tuple[str, int]]],
    holds: Mapping[str, float],
    on_event: Callable[[Event], None],
) -> None:
    """Carry out all offers, as the policy says, on the nodes there are at each moment.

    ``nodes`` are named by Ray's node ids, and each of their slots ``holds`` some resources. A trial
    is told the ``slots`` of its ranks beside what its offer says: ``run_id``, the ``job``, and
    whether it wants ``fresh`` processes. ``on_event`` is called in this process; what it raises is
    dropped, since an exception in a Tune callback would end the sweep. Needs a running Ray.
    """
    hosts, reservations = RankHosts(), Reservations(holds)

    def emit(event: Event) -> None:
        if event.kind == "lost":
            hosts.end(event.run_id)
        with contextlib.suppress(Exception):
            on_event(event)

    def present() -> Sequence[tuple[str, int]]:
        found = nodes()
        hosts.follow([name for name, _ in found])
        return found

    # A lost process is an error to Tune, and to us a run that starts again: we say which.
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
    present()  # hosts import what ranks need while Tune starts
    with (
        contextlib.closing(hosts),
        contextlib.closing(reservations),
        tempfile.TemporaryDirectory(prefix="depthsweep-tune-") as scratch,
    ):
        tune.Tuner(
            tune.with_resources(trainable, resources_of),
            tune_config=tune.TuneConfig(
                search_alg=Admission(offers, present, emit, reservations, hosts),
                num_samples=-1,
                max_concurrent_trials=None,
            ),
            run_config=tune.RunConfig(name="sweep", storage_path=scratch, verbose=0),
        ).fit()
