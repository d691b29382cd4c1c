"""A sweep on a cluster that is not there: the policy's own decisions, event by event."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

from orchestrator.policy.next_start import NO_WEIGHTS, Line, Reservation, Start, Waiting, next_start
from orchestrator.policy.occupancy import UNITS, Demand, Occupancy


@dataclass(frozen=True)
class Stretch:
    """A run from start to end, in seconds from the beginning, on GPUs (node, index)."""

    run: Waiting
    starts: float
    ends: float
    gpus: tuple[tuple[str, int], ...]
    reserved: Reservation | None


@dataclass(frozen=True)
class Schedule:
    """What became of a sweep: every run's stretch, in the order of their starts."""

    stretches: tuple[Stretch, ...]
    gpus: int
    lower_bound: float

    @property
    def makespan(self) -> float:
        return max((stretch.ends for stretch in self.stretches), default=0.0)

    @property
    def gpu_seconds(self) -> float:
        return sum(s.run.seconds * s.run.demand.total for s in self.stretches)

    @property
    def utilisation(self) -> float:
        """GPU-seconds used over those there were until the last run ended."""
        return self.gpu_seconds / (self.gpus * self.makespan) if self.makespan else 0.0

    @property
    def ratio(self) -> float:
        """Makespan over its lower bound: 1 is a schedule that nothing can beat."""
        return self.makespan / self.lower_bound if self.lower_bound else 1.0


def simulate(
    runs: Iterable[Waiting],
    nodes: Sequence[tuple[str, int]],
    weights: Mapping[Demand, float] = NO_WEIGHTS,
    start_seconds: float = 0.0,
) -> Schedule:
    """Return the schedule of ``runs`` on nodes (name, GPUs), if every estimate were exact.

    Each holds its GPUs for ``start_seconds`` more, in which its process starts. Raises ValueError
    for a run that has more GPUs than there are.
    """
    waiting = list(runs)
    cluster = Occupancy(nodes)
    if any(run.demand.gpus > cluster.gpus for run in waiting):
        raise ValueError(f"a run needs more than the {cluster.gpus} GPUs there are")
    stretches = [
        Stretch(
            start.run,
            begins,
            begins + start_seconds + start.run.seconds,
            tuple((gpu.node, gpu.index) for gpu in start.gpus),
            start.reserved,
        )
        for begins, start in starts(cluster, Line(waiting, weights), start_seconds=start_seconds)
    ]
    return Schedule(tuple(stretches), cluster.gpus, lower_bound(waiting, nodes))


def starts(
    cluster: Occupancy,
    line: Line,
    now: float = 0.0,
    pace: float = 1.0,
    start_seconds: float = 0.0,
) -> Iterator[tuple[float, Start]]:
    """Yield when each run in line starts, and where, from ``now`` on; uses up both arguments.

    Runs that are on the cluster end when they are expected to; ``pace`` is as in ``next_start``,
    and each start takes ``start_seconds``.
    """
    moments = [  # when, and which run ends
        (max(now, gpus[0].tenants[run_id][1]), run_id) for run_id, gpus in cluster.placed.items()
    ]
    heapq.heapify(moments)
    while True:
        while (start := next_start(cluster, line, now, pace)) is not None:
            run, until = start.run, now + start_seconds + pace * start.run.seconds
            line.remove(run)
            cluster.occupy(run.run_id, run.demand, start.gpus, until)
            heapq.heappush(moments, (until, run.run_id))
            yield now, start
        if not moments:
            return
        now = moments[0][0]
        while moments and moments[0][0] == now:
            cluster.release(heapq.heappop(moments)[1])


def lower_bound(runs: Sequence[Waiting], nodes: Sequence[tuple[str, int]]) -> float:
    """Return seconds below which no schedule of ``runs`` ends. The largest of

    - GPU-seconds of all runs over GPUs, and the longest run;
    - for every demand d, with the runs that demand d or more and c(d) the number of those that fit
      at once (packed: Σ over nodes of ⌊GPUs / d⌋): their seconds over c(d), and for k = 1, 2, …,
      the k + 1 shortest of their k·c(d) + 1 longest, since two of c + 1 runs (and k + 1 of k·c + 1)
      must follow one another (the bound of parallel machines, Dell'Amico and Martello 1995).
    """
    gpus = sum(count for _, count in nodes)
    bound = sum(run.seconds * run.demand.total for run in runs) / gpus if gpus else 0.0
    largest_node = max((count for _, count in nodes), default=0)
    for demand in {run.demand for run in runs}:
        at_once = _at_once(demand, nodes, gpus, largest_node)
        # A gang wider than every node lies on parts of nodes, beside more than c(d) packed ones.
        widest = largest_node if 1 < demand.gpus <= largest_node else gpus
        alike = (r for r in runs if demand.total <= r.demand.total <= widest)
        lengths = sorted((run.seconds for run in alike), reverse=True)
        below = [0.0, *accumulate(lengths)]
        bound = max(bound, lengths[0], below[-1] / at_once)
        for k in range(1, (len(lengths) - 1) // at_once + 1):
            last = k * at_once
            bound = max(bound, below[last + 1] - below[last - k])
    return bound


def _at_once(demand: Demand, nodes: Sequence[tuple[str, int]], gpus: int, largest_node: int) -> int:
    if demand.units < UNITS:
        return gpus * (UNITS // demand.units)
    if demand.gpus > largest_node:
        return gpus // demand.gpus
    return sum(count // demand.gpus for _, count in nodes)
