"""Can a node carry out runs: has it the code, does it see the store? Asked before it gets one.

Asked of the nodes there are when a sweep starts, and of each that joins, by a task on it that
nobody waits for. Whether torch and transformers can be imported, the node's rank server shows: it
has to import them anyway, and so the first run there finds it ready.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

from orchestrator.connection.ray_environment import ray
from sweeps.errors import UserError

PROBE_SECONDS = 120.0
AGAIN_SECONDS = 30.0


@dataclass(frozen=True)
class NodeFacts:
    """What a node says of itself: what is wrong with it, or None, and the bytes of its smallest
    GPU, or None where it has none or does not say."""

    wrong: str | None
    gpu_bytes: float | None = None


class NodeProbes:
    """Asks nodes, each once; what they answered stays known while they are there."""

    def __init__(self, location: str, store_id: str) -> None:
        self._task = ray.remote(num_cpus=0, max_retries=0)(_probe())
        self._store = (location, store_id)
        self._asked: dict[str, tuple[Any, float]] = {}
        self.facts: dict[str, NodeFacts] = {}
        self._again: dict[str, float] = {}  # when those with which something is wrong are asked

    def doubt(self, node: str, why: str) -> None:
        """Count a node as wrong until it has been asked again, in a while."""
        self.facts[node] = NodeFacts(why)
        self._again[node] = time.monotonic() + AGAIN_SECONDS

    def follow(self, nodes: Collection[str]) -> list[str]:
        """Ask nodes (by node id) that are new, and in a while again those with which something is
        wrong; take in what others answered without waiting for it, and return those of which
        something new is known."""
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        for gone in [name for name in {*self.facts, *self._asked} if name not in nodes]:
            self.facts.pop(gone, None)
            self._asked.pop(gone, None)
        for name in nodes:
            new = name not in self.facts or time.monotonic() > self._again.get(name, math.inf)
            if new and name not in self._asked:
                self._again.pop(name, None)
                here = NodeAffinitySchedulingStrategy(name, soft=False)
                asked = self._task.options(scheduling_strategy=here).remote(*self._store)
                self._asked[name] = (asked, time.monotonic())
        return [name for name in list(self._asked) if self._take_in(name)]

    def wait(self, nodes: Collection[str]) -> None:
        """Return once all of some nodes have answered, or have had long enough for it."""
        until = time.monotonic() + PROBE_SECONDS
        while set(nodes) - set(self.facts) and time.monotonic() < until + 1:
            self.follow(nodes)
            time.sleep(0.05)

    def _take_in(self, name: str) -> bool:
        reference, since = self._asked[name]
        ready = bool(ray.wait([reference], timeout=0)[0])
        if not ready and time.monotonic() - since < PROBE_SECONDS:
            return False
        self.facts[name] = self._answer(reference) if ready else NodeFacts("it runs no task")
        del self._asked[name]
        if self.facts[name].wrong is not None:
            self._again[name] = time.monotonic() + AGAIN_SECONDS
        return True

    def _answer(self, reference: Any) -> NodeFacts:
        try:
            wrong, gpu_bytes = ray.get(reference)
        except ray.exceptions.RayTaskError as error:  # it does run one, which says what is wrong
            why = error.cause if isinstance(error.cause, UserError) else repr(error.cause)
            return NodeFacts(" ".join(str(why).split())[-300:])
        except ray.exceptions.RayError as error:
            return NodeFacts(f"it runs no task: {' '.join(str(error).split())[-300:]}")
        return NodeFacts(wrong, gpu_bytes)


def _probe() -> Callable[[str, str], tuple[str | None, float | None]]:
    # By value, so that a node without the package can still say so.
    def probe(location: str, store_id: str) -> tuple[str | None, float | None]:
        try:
            from orchestrator.ranks.rank_holder import key_of_this_node
            from orchestrator.ranks.rank_starter import RankStarter
        except ImportError as error:
            return (
                f"it cannot import depthsweep ({error}): install it on every node, or submit the"
                " sweep with its working directory"
            ), None
        try:
            RankStarter(key_of_this_node()).wait()
        except OSError as error:
            return f"it cannot start the processes of runs: {error}", None
        except ImportError as error:
            return f"it cannot import what runs need ({error}): install that on the node", None
        from orchestrator.connection.nodes import gpu_bytes
        from sweeps.store.store import Store

        return Store.at(location).complaint(store_id, thorough=True), gpu_bytes()

    return probe
