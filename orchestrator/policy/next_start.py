"""Which waiting run starts where, now: one pure decision for real clusters and simulated ones.

Runs start longest first, length weighed by what they demand (see ``weights``), so that the large
ones do not end alone. The first in line that does not fit gets a reservation: the GPUs on which it
can start earliest, from the moment they are expected to be free. Others may overtake it where they
hold none of those GPUs, or are expected to end before that moment (EASY backfilling: Lifka 1995,
with the longest in line instead of the oldest).
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from operator import attrgetter

from orchestrator.policy.occupancy import UNITS, Demand, Gpu, Occupancy

# The power of its GPUs that a run's seconds are weighed by where no weights are given. On 12 draws
# of 60 mixed runs (0.25 to 4 GPUs on 8) the makespan was 1.043 of its bound with 0.15, 1.045
# without, 1.073 with GPU-seconds (1.0).
USUAL_POWER = 0.15
NO_WEIGHTS: Mapping[Demand, float] = {}
# Ends and starts that differ by rounding alone are the same moment.
SAME_MOMENT = 1e-6


@dataclass(frozen=True)
class Waiting:
    """A run in line: what it holds, and for how many seconds it is expected to.

    ``opens`` marks one that others wait for, such as the first of its model: it goes before all
    that do not. ``barred`` are the nodes that it must not go to: they are too small for it, or it
    has failed there.
    """

    run_id: str
    demand: Demand
    seconds: float
    opens: bool = False
    barred: frozenset[str] = frozenset()

    @property
    def kind(self) -> Kind:
        """What is the same of runs of which the longest goes first."""
        return (self.opens, self.demand, self.barred)


Kind = tuple[bool, Demand, frozenset[str]]


class Line:
    """The waiting runs, longest first among those that demand the same.

    A decision looks at one run of each demand, not at every run that waits. ``weights`` say what a
    second counts in the turn of a run, by its demand.
    """

    def __init__(
        self, runs: Iterable[Waiting] = (), weights: Mapping[Demand, float] = NO_WEIGHTS
    ) -> None:
        self.weights = weights
        self._by_kind: dict[Kind, list[Waiting]] = {}
        for run in runs:
            self._by_kind.setdefault(run.kind, []).append(run)
        for queue in self._by_kind.values():
            queue.sort(key=_LENGTH)

    def __len__(self) -> int:
        return sum(len(queue) for queue in self._by_kind.values())

    def __iter__(self) -> Iterator[Waiting]:
        return (run for queue in self._by_kind.values() for run in queue)

    def add(self, run: Waiting) -> None:
        queue = self._by_kind.setdefault(run.kind, [])
        insort(queue, run, key=_LENGTH)

    def remove(self, run: Waiting) -> None:
        queue = self._by_kind[run.kind]
        if queue[-1] is run:
            queue.pop()
            return
        place = bisect_left(queue, _LENGTH(run), key=_LENGTH)
        assert queue[place] == run
        del queue[place]

    def heads(self, without: Collection[str] = ()) -> list[Waiting]:
        """Return the next run of each demand, but for some, in the order of their turn."""
        heads = (
            next((run for run in reversed(queue) if run.run_id not in without), None)
            for queue in self._by_kind.values()
        )
        return sorted((head for head in heads if head), key=self._turn, reverse=True)

    def _turn(self, run: Waiting) -> tuple[bool, float, str]:
        weight = self.weights.get(run.demand)
        weight = run.demand.total**USUAL_POWER if weight is None else weight
        return (run.opens, run.seconds * weight, run.run_id)

    def longest_within(self, head: Waiting, seconds: float) -> Waiting | None:
        """Return the longest run of at most so many seconds that demands what ``head`` does."""
        queue = self._by_kind[head.kind]
        below = bisect_right(queue, seconds, key=attrgetter("seconds"))
        return queue[below - 1] if below else None


# Sorts runs of one demand as their turn does.
_LENGTH = attrgetter("seconds", "run_id")


@dataclass(frozen=True)
class Reservation:
    """The GPUs kept for the first in line from an expected moment on."""

    run: Waiting
    gpus: tuple[Gpu, ...]
    starts: float


@dataclass(frozen=True)
class Start:
    """A run that starts now, and where; ``reserved`` is what was kept for a larger one then."""

    run: Waiting
    gpus: tuple[Gpu, ...]
    reserved: Reservation | None = None


def next_start(cluster: Occupancy, line: Line, now: float, pace: float = 1.0) -> Start | None:
    """Return the run that starts now, or None to wait for a change. Changes no argument.

    ``pace`` is how many seconds of the clock an estimated second of a waiting run takes.
    """
    heads = line.heads()
    reserved: Reservation | None = None
    for head in heads:
        if reserved is None:
            gpus = _free_gpus(cluster, head, frozenset())
            if gpus is not None:
                return Start(head, gpus)
            if not any(cluster.free_on.values()):
                return None
            reserved = reservation(cluster, head, now)
            continue
        kept = frozenset(id(gpu) for gpu in reserved.gpus)
        gpus = _free_gpus(cluster, head, kept)
        if gpus is not None:
            return Start(head, gpus, reserved)
        brief = line.longest_within(head, (reserved.starts - now) / pace + SAME_MOMENT)
        if brief is not None:
            gpus = _free_gpus(cluster, head, frozenset())
            if gpus is not None:
                return Start(brief, gpus, reserved)
    return None


def fits_now(cluster: Occupancy, run: Waiting) -> bool:
    """Return whether there is room for a run now, whoever waits beside it."""
    return _free_gpus(cluster, run, frozenset()) is not None


def reservation(cluster: Occupancy, run: Waiting, now: float) -> Reservation | None:
    """Return where and when a run is expected to fit first; None where it never does."""
    demand = run.demand
    best: tuple[float, list[Gpu]] | None = None
    for gpus in _places(cluster, run):
        if len(gpus) < demand.gpus:
            continue
        timed = sorted(((gpu.free_at(demand.units), n) for n, gpu in enumerate(gpus)))
        chosen = timed[: demand.gpus]
        if best is None or chosen[-1][0] < best[0]:
            best = (chosen[-1][0], [gpus[n] for _, n in chosen])
    if best is None:
        return None
    return Reservation(run, tuple(best[1]), max(best[0], now))


def _places(cluster: Occupancy, run: Waiting) -> Iterator[list[Gpu]]:
    """Yield sets of GPUs from which a demand can be met: nodes, or all for one larger than each."""
    nodes = [gpus for name, gpus in cluster.nodes.items() if name not in run.barred]
    if run.demand.gpus <= cluster.largest_without(run.barred):
        yield from nodes
    else:
        yield [gpu for gpus in nodes for gpu in gpus]


def _free_gpus(cluster: Occupancy, run: Waiting, kept: frozenset[int]) -> tuple[Gpu, ...] | None:
    """Return free GPUs for a run outside ``kept``, or None.

    The fullest that have room: a share goes beside other shares, and a run to the node with the
    fewest free GPUs, so that whole nodes stay free for those that need them.
    """
    demand, out = run.demand, cluster.closed | run.barred
    if demand.units < UNITS:
        sharing: tuple[int, int, Gpu] | None = None
        for name, gpus in cluster.nodes.items():
            if cluster.free_on[name] < demand.units or name in out:
                continue
            whole = cluster.free_whole[name]
            for gpu in gpus:
                if gpu.free < demand.units or id(gpu) in kept:
                    continue
                if sharing is None or (gpu.free, whole) < sharing[:2]:
                    sharing = (gpu.free, whole, gpu)
        return (sharing[2],) if sharing else None
    if demand.gpus <= cluster.largest_without(run.barred):
        fullest: tuple[int, str] | None = None
        for name, whole in cluster.free_whole.items():
            if name in out:
                continue
            if whole >= demand.gpus and (fullest is None or whole < fullest[0]):
                if kept and len(_whole(cluster.nodes[name], kept)) < demand.gpus:
                    continue
                fullest = (whole, name)
        if fullest is None:
            return None
        return tuple(_whole(cluster.nodes[fullest[1]], kept)[: demand.gpus])
    if sum(cluster.free_whole.values()) < demand.gpus:
        return None
    # From the emptiest nodes on, so that the ranks sit on as few as possible.
    order = sorted(cluster.nodes.keys() - out, key=lambda name: (-cluster.free_whole[name], name))
    free = [gpu for name in order for gpu in _whole(cluster.nodes[name], kept)]
    return tuple(free[: demand.gpus]) if len(free) >= demand.gpus else None


def _whole(gpus: list[Gpu], kept: frozenset[int]) -> list[Gpu]:
    return [gpu for gpu in gpus if gpu.free == UNITS and id(gpu) not in kept]
