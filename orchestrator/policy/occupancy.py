"""Who holds what of a cluster, GPU by GPU, and until when: the state the policy looks at.

Where there are no GPUs a CPU takes their place. CPUs beside GPUs are not counted: each run gets the
same CPUs a GPU, so these are never what is missing.

Ray places what runs; this follows. A run stands where the policy expects it, until its first report
says where it is.
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


@dataclass(eq=False)
class Gpu:
    """One GPU, the ``index``-th of its node: the units nobody holds, and who holds the others until
    when. ``name`` is what Ray calls it, once a run on it has said so."""

    node: str
    index: int
    free: int = UNITS
    name: str | None = None
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
        # All that a node has, also what others hold: a gang waits for a node that is large enough.
        self.sizes: dict[str, int] = {}
        self.free_whole: dict[str, int] = {}
        self.free_on: dict[str, int] = {}
        self.placed: dict[str, list[Gpu]] = {}
        # Runs of which it is known where they are, and nodes on which nothing is to start now.
        self.confirmed: set[str] = set()
        self.closed: frozenset[str] = frozenset()
        for name, gpus in nodes:
            self.add_node(name, gpus)

    @property
    def gpus(self) -> int:
        return sum(len(gpus) for gpus in self.nodes.values())

    @property
    def largest_node(self) -> int:
        return max(self.sizes.values(), default=0)

    def largest_without(self, barred: frozenset[str]) -> int:
        """Return how many GPUs the largest node has that is none of ``barred``."""
        if not barred:
            return self.largest_node
        return max((size for name, size in self.sizes.items() if name not in barred), default=0)

    def copy(self) -> Occupancy:
        """Return an independent one in the same state."""
        other = Occupancy((name, len(gpus)) for name, gpus in self.nodes.items())
        for name, gpus in self.nodes.items():
            for mine, its in zip(gpus, other.nodes[name], strict=True):
                its.free, its.tenants = mine.free, dict(mine.tenants)
                its.name = mine.name
                for run_id in mine.tenants:
                    other.placed.setdefault(run_id, []).append(its)
        other.free_whole, other.free_on = dict(self.free_whole), dict(self.free_on)
        other.sizes = dict(self.sizes)
        other.confirmed, other.closed = set(self.confirmed), self.closed
        return other

    def add_node(self, name: str, gpus: int, size: int | None = None) -> None:
        """Take in a node, of whose GPUs (``size``) runs may hold so many."""
        self.sizes[name] = gpus if size is None else size
        self.nodes[name] = [Gpu(name, index) for index in range(gpus)]
        self.free_whole[name] = gpus
        self.free_on[name] = gpus * UNITS

    def resize(self, name: str, gpus: int) -> None:
        """Count so many GPUs of a node from now on; those that runs hold stay."""
        there = self.nodes[name]
        for index in range(len(there), gpus):
            self._add_gpu(name, index)
        while len(there) > gpus:
            free = next((gpu for gpu in reversed(there) if not gpu.tenants), None)
            if free is None:
                return
            there.remove(free)
            self.free_whole[name] -= 1
            self.free_on[name] -= UNITS

    def _add_gpu(self, name: str, index: int) -> Gpu:
        gpu = Gpu(name, index)
        self.nodes[name].append(gpu)
        self.free_whole[name] += 1
        self.free_on[name] += UNITS
        return gpu

    def correct(
        self, run_id: str, demand: Demand, seats: Sequence[tuple[str, str]], until: float
    ) -> list[str]:
        """Put a run where it says it is: on GPUs (node, name), the node's own number for a CPU.

        Who was expected there makes room. Returns the runs that have no place any more.
        """
        self.release(run_id)
        moved: list[str] = []
        gpus: list[Gpu] = []
        for node, name in seats:
            if node not in self.nodes:
                self.add_node(node, 0)
            gpu = self._named(node, name, demand.units, gpus)
            for other in [other for other in gpu.tenants if other not in self.confirmed]:
                if gpu.free >= demand.units:
                    break
                moved.append(other)
                self.release(other)
            if gpu.free < demand.units:  # Ray's word is better than ours: there is one more
                gpu = self._add_gpu(node, len(self.nodes[node]))
            gpus.append(gpu)
        self.occupy(run_id, demand, gpus, until)
        self.confirmed.add(run_id)
        return moved

    def _named(self, node: str, name: str, units: int, taken: Sequence[Gpu]) -> Gpu:
        """Return the GPU of a name: one that has it, else one that has none yet and most room."""
        there = self.nodes[node]
        if name:
            found = next((gpu for gpu in there if gpu.name == name), None)
            if found is not None:
                return found
        nameless = [gpu for gpu in there if not gpu.name and gpu not in taken]
        certain = {id(g): any(t in self.confirmed for t in g.tenants) for g in nameless}
        nameless = [gpu for gpu in nameless if gpu.free >= units or not certain[id(gpu)]]
        found = max(nameless, key=lambda gpu: gpu.free, default=None)
        if found is None:
            found = self._add_gpu(node, len(there))
        found.name = name or None
        return found

    def remove_node(self, name: str) -> list[str]:
        """Take a node out; return the runs that were on it, which hold nothing any more."""
        gone = self.nodes.pop(name)
        self.free_whole.pop(name)
        self.sizes.pop(name)
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

    def held_on(self, node: str) -> float:
        """Return how many GPUs of a node runs hold, as a number."""
        return sum(UNITS - gpu.free for gpu in self.nodes[node]) / UNITS

    def expect(self, run_id: str, until: float) -> None:
        """Change when a run is expected to end."""
        for gpu in self.placed[run_id]:
            gpu.tenants[run_id] = (gpu.tenants[run_id][0], until)

    def release(self, run_id: str) -> None:
        """Take back what a run held; nothing where its node has left."""
        self.confirmed.discard(run_id)
        for gpu in self.placed.pop(run_id, ()):
            units, _ = gpu.tenants.pop(run_id)
            gpu.free += units
            if gpu.node in self.nodes:
                self.free_on[gpu.node] += units
                self.free_whole[gpu.node] += gpu.free == UNITS
