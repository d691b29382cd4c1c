"""What a run asks of Ray, and how a trial's config says it: flat, and of plain text and numbers."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from orchestrator.connection.ray_environment import ray  # noqa: F401, before ray.tune is imported
from workers.ranks.rank_process import Job

from ray.tune import PlacementGroupFactory  # isort: skip

# Where a config has the request, beside the run's id and the settings that the sweep varies.
KEY = "request"
# How often a run's progress is reported: soon at first, then less often where runs are thousands,
# since the driver handles one report at a time. Between two, a trial does not hear that it is to
# stop.
REPORT_SECONDS, MOST_REPORT_SECONDS = 1.0, 10.0
RUNS_A_REPORT_SECOND = 200
# What a trial needs that only says that its run is given up.
NEXT_TO_NOTHING = {"memory": 1.0}


@dataclass(frozen=True)
class Request:
    """A run as it is started: what it is, in how many processes, and what each of those holds.

    ``holds`` are Ray's resources of one rank. A run of several ranks has a bundle for each: on one
    node, unless none is large enough (``spread``). ``target`` is the node that the policy expects
    it on, a hint; it never goes to one of ``barred``. ``fresh`` asks for processes that no run has
    been in. ``group`` names its placement group, ``pause`` is
    the longest between two reports, in seconds. ``given_up`` is why the run is not started any
    more; ``steps_back`` that its trial is to be handed back, to start when its turn comes.
    """

    run_id: str
    spec: str
    store: str
    holds: dict[str, float]
    threads: int = 1
    body: str = "workers.rank_run:train_rank"
    details: dict[str, Any] = field(default_factory=dict)
    ranks: int = 1
    spread: bool = False
    fresh: bool = False
    store_id: str = ""
    target: str | None = None
    barred: tuple[str, ...] = ()
    group: str = ""
    pause: float = REPORT_SECONDS
    given_up: str = ""
    steps_back: bool = False

    @property
    def job(self) -> Job:
        """What each of its ranks is told."""
        return Job(self.spec, self.store, self.threads, body=self.body, details=self.details)

    def resources(self) -> PlacementGroupFactory:
        """Return what the trial asks Ray for."""
        if self.given_up or self.steps_back:
            return PlacementGroupFactory([NEXT_TO_NOTHING])
        bundles = [{name: amount for name, amount in self.holds.items() if amount}] * self.ranks
        where: dict[str, Any] = {"name": self.group} if self.group else {}
        if self.barred:
            where["bundle_label_selector"] = [
                {"ray.io/node-id": f"!in({','.join(sorted(self.barred))})"}
            ] * self.ranks
        if self.spread:
            return PlacementGroupFactory(bundles, strategy="PACK", **where)
        if self.target:
            where["_soft_target_node_id"] = self.target
        return PlacementGroupFactory(bundles, strategy="STRICT_PACK", **where)

    def config(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """Return a trial's config: the run's id, the settings of it to show, and the request."""
        shown = {name: value for name, value in settings.items() if name != KEY}
        return {"run_id": self.run_id, **shown, KEY: json.dumps(asdict(self), sort_keys=True)}

    def at(self, target: str | None, barred: Iterable[str], group: str) -> Request:
        """Return the request for one try: where it is expected, where not, and its group's name."""
        return replace(self, target=target, barred=tuple(sorted(barred)), group=group)


def pause_for(runs: int) -> float:
    """Return the longest pause between two reports of a run, for a sweep of so many."""
    return min(MOST_REPORT_SECONDS, max(REPORT_SECONDS, runs / RUNS_A_REPORT_SECOND))


def request_of(config: Mapping[str, Any]) -> Request:
    """Return the request that a trial's config has."""
    said = json.loads(config[KEY])
    return Request(**{**said, "barred": tuple(said["barred"])})


def resources_of(config: Mapping[str, Any]) -> PlacementGroupFactory:
    """Return what a trial asks Ray for, by its config."""
    return request_of(config).resources()
