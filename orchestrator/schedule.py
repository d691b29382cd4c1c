"""Runs to Ray Tune trials: each holds a placement group, and processes are used again warm."""

from __future__ import annotations

import contextlib
import logging
import tempfile
from collections.abc import Callable, Sequence
from typing import Any

from orchestrator.admission import Admission, Event, Offer
from orchestrator.ray_environment import ray  # noqa: F401, before ray.tune is imported

from ray import tune  # isort: skip
from ray.tune import PlacementGroupFactory  # isort: skip


def resources_of(config: dict[str, Any]) -> PlacementGroupFactory:
    """Return what a trial reserves: one bundle, or one a rank and none for the one that watches.

    Ranks share a node where one has room for them all.
    """
    bundle = {"CPU": config["cpus"], **({"GPU": config["gpus"]} if config["gpus"] else {})}
    if not config["ranks"]:
        return PlacementGroupFactory([bundle])
    strategy = "STRICT_PACK" if config["one_node"] else "PACK"
    return PlacementGroupFactory([{}, *[bundle] * config["ranks"]], strategy=strategy)


def run_all(
    trainable: type[tune.Trainable],
    offers: Sequence[Offer],
    nodes: Callable[[], Sequence[tuple[str, int]]],
    on_event: Callable[[Event], None],
) -> None:
    """Run one trial an offer, as the policy says, on the nodes there are at each moment.

    A trial is told ``run_id``, ``cpus`` and ``gpus`` of a bundle, and ``ranks``. ``on_event`` is
    called in this process; what it raises is dropped, since an exception in a Tune callback would
    end the sweep. Needs a running Ray.
    """

    def emit(event: Event) -> None:
        with contextlib.suppress(Exception):
            on_event(event)

    logging.getLogger("ray.tune").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory(prefix="depthsweep-tune-") as scratch:
        tune.Tuner(
            tune.with_resources(trainable, resources_of),
            tune_config=tune.TuneConfig(
                search_alg=Admission(offers, nodes, emit),
                num_samples=-1,
                reuse_actors=True,
                max_concurrent_trials=None,
            ),
            run_config=tune.RunConfig(name="sweep", storage_path=scratch, verbose=0),
        ).fit()
