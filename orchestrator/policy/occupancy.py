"""Who holds what of a cluster, GPU by GPU, and until when: the state the policy looks at.

Where there are no GPUs a CPU takes their place. CPUs beside GPUs are not counted: each run gets the
same CPUs a GPU, so these are never what is missing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

# Shares of a GPU are counted in whole units: Ray's own precision, without rounding.
UNITS = 10_000


@dataclass(frozen=True)
class Demand:
    """What a run holds while it runs: a share of one GPU (in units), or several whole ones."""

    units: int = UNITS
    gpus: int = 1

    def __post_init__(self) -> None:
        if not 0 < self.units <= UNITS or self.gpus < 1 or (self.gpus > 1 and self.units != UNITS):
            raise ValueError(f"neither a share of one GPU nor whole ones: {self}")

    @classmethod
    def of(cls, gpus: float) -> Demand:
        """Return the demand of so many GPUs: below one a share, else whole ones."""
        return cls(units=int(gpus * UNITS)) if gpus < 1 else cls(gpus=int(gpus))

    @property
    def total(self) -> float:
        """GPUs, as a number."""
        return self.gpus * self.units / UNITS


@dataclass
class Gpu:
    """One GPU, the ``index``-th of its node: the units nobody holds, and who holds the others until
    when."""

    node: str
    index: int
    free: int = UNITS
    tenants: dict[str, tuple[int, float]] = field(default_factory=dict)

    def free_at(self, units: int) -> float:
        """Return when so many units are expected to be free; -inf for now."""
        free = self.free
        if free >= units:
            return float("-inf")
        for held, until in sorted(self.tenants.values(), key=lambda tenant: tenant[1]):
            free += held
            if free >= units:
                return until
        raise AssertionError("more units were asked for than a GPU has")


class Occupancy:
    """The GPUs of a cluster by node; runs come and go, and so do nodes."""

    def __init__(self, nodes: Iterable[tuple[str, int]]) -> None:
        self.nodes: dict[str, list[Gpu]] = {}
        self.free_whole: dict[str, int] = {}
        self.free_on: dict[str, int] = {}
        self.placed: dict[str, list[Gpu]] = {}
        for name, gpus in nodes:
            self.add_node(name, gpus)

    @property
    def gpus(self) -> int:
        return sum(len(gpus) for gpus in self.nodes.values())

    @property
    def largest_node(self) -> int:
        return max((len(gpus) for gpus in self.nodes.values()), default=0)

    def copy(self) -> Occupancy:
        """Return an independent one in the same state."""
        other = Occupancy((name, len(gpus)) for name, gpus in self.nodes.items())
        for name, gpus in self.nodes.items():
            for mine, its in zip(gpus, other.nodes[name], strict=True):
                its.free, its.tenants = mine.free, dict(mine.tenants)
                for run_id in mine.tenants:
                    other.placed.setdefault(run_id, []).append(its)
        other.free_whole, other.free_on = dict(self.free_whole), dict(self.free_on)
        return other

    def add_node(self, name: str, gpus: int) -> None:
        self.nodes[name] = [Gpu(name, index) for index in range(gpus)]
        self.free_whole[name] = gpus
        self.free_on[name] = gpus * UNITS

    def remove_node(self, name: str) -> list[str]:
        """Take a node out; return the runs that were on it, which hold nothing any more."""
        gone = self.nodes.pop(name)
        self.free_whole.pop(name)
        runs = list(dict.fromkeys(run_id for gpu in gone for run_id in gpu.tenants))
        self.free_on.pop(name)
        for run_id in runs:
            self.release(run_id)
        return runs

    def occupy(self, run_id: str, demand: Demand, gpus: Sequence[Gpu], until: float) -> None:
        """Give a run what it demands on some GPUs until an expected moment."""
        assert run_id not in self.placed
        assert len(gpus) == demand.gpus
        for gpu in gpus:
            assert gpu.free >= demand.units, "a GPU was oversubscribed"
            if gpu.free == UNITS:
                self.free_whole[gpu.node] -= 1
            gpu.free -= demand.units
            self.free_on[gpu.node] -= demand.units
            gpu.tenants[run_id] = (demand.units, until)
        self.placed[run_id] = list(gpus)

    def expect(self, run_id: str, until: float) -> None:
        """Change when a run is expected to end."""
        for gpu in self.placed[run_id]:
            gpu.tenants[run_id] = (gpu.tenants[run_id][0], until)

    def release(self, run_id: str) -> None:
        """Take back what a run held; nothing where its node has left."""
        for gpu in self.placed.pop(run_id, ()):
            units, _ = gpu.tenants.pop(run_id)
            gpu.free += units
            if gpu.node in self.nodes:
                self.free_on[gpu.node] += units
                self.free_whole[gpu.node] += gpu.free == UNITS
