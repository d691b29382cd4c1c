"""What each run and measurement of a sweep asks of Ray, on the nodes there are; and what an attempt
has taught about its like."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from orchestrator.policy.next_start import Waiting
from orchestrator.policy.occupancy import UNITS, Demand
from orchestrator.sizing.estimates import RUNS_PER_GPU, Lined, Measured, line_up, measuring_seconds
from orchestrator.sizing.memory import GIB, memory_of
from orchestrator.sizing.placement import (
    Node,
    Placement,
    hosts,
    place,
    pools,
    rank_processes,
    with_half_the_micro_batch,
)
from orchestrator.sizing.traces import alike
from orchestrator.tuning.request import Request
from sweeps.errors import UserError
from sweeps.spec import Measurement, RunSpec


@dataclass(frozen=True)
class Works:
    """What a sweep has to do, and where its results go; ``store_id`` as ``Store.identify``."""

    runs: Sequence[RunSpec]
    measurements: Sequence[Measurement]
    store: str
    store_id: str
    measured: Measured
    runs_per_gpu: int = RUNS_PER_GPU
    most_gpus: int | None = None


class Requests:
    """The requests of a sweep by run id, for the nodes that ``fit`` was last told of."""

    def __init__(self, works: Works) -> None:
        self._works = works
        self._micro_batches: dict[str, int] = {}
        self._alone: set[str] = set()
        self._by_id: dict[str, Request] = {}
        self._shapes: object = None
        self.placement: Placement | None = None

    def __getitem__(self, run_id: str) -> Request:
        return self._by_id[run_id]

    def fit(self, here: Sequence[Node], to_come: Sequence[Node] = ()) -> dict[str, Waiting] | None:
        """Size everything for the nodes that are here and may come; return each as the policy sees
        it, by id, or None where the nodes are the same as before.

        Raises UserError for a run that fits in no way.
        """
        # Of a node to come whose GPUs are of a size that nobody says, nothing follows where another
        # node says it: a large model would be taken to fit.
        said = any(node.gpu_bytes for node in (*here, *to_come))
        nodes = [*here, *(node for node in to_come if node.gpu_bytes or not said)]
        if self.placement is not None and self.placement.gpus and not any(n.gpus for n in nodes):
            return None  # the GPUs may come back; what was sized for them does not go to CPUs
        placement = place(nodes)
        shapes = (
            placement,
            frozenset((n.name, n.gpus, n.cpus, n.gpu_bytes) for n in here if placement.size_of(n)),
        )
        if shapes == self._shapes:
            return None
        works = self._works
        sizes = _within(pools(nodes, placement), works.most_gpus)
        machines = hosts(nodes, placement)
        lined = line_up(list(works.runs), sizes, works.measured, works.runs_per_gpu, machines)
        count = sum(sizes.values())
        taken = [self._take(one, placement, nodes, count) for one in lined]
        taken += [self._take_measurement(one, placement) for one in works.measurements]
        # All of it or, where one fits in no way, none.
        self._by_id = {request.run_id: request for _, request in taken}
        self.placement, self._shapes = placement, shapes
        return {waiting.run_id: waiting for waiting, _ in taken}

    def _take(
        self, lined: Lined, placement: Placement, nodes: Sequence[Node], count: int
    ) -> tuple[Waiting, Request]:
        run, waiting = lined.run, lined.waiting
        ranks = rank_processes(run, count)
        share = waiting.demand.units / UNITS
        # An autoscaler brings no node whose type does not say its memory where that is asked for.
        said = all(node.memory for node in nodes)
        memory = _host_bytes(run) if placement.gpus and said else 0.0
        largest = max((placement.size_of(node) for node in nodes), default=0)
        request = Request(
            run.run_id,
            run.model_dump_json(),
            self._works.store,
            placement.holds(share, memory),
            threads=max(1, int(placement.threads * share)),
            ranks=max(1, ranks),
            spread=ranks > largest,
            fresh=bool(placement.gpus or ranks),
            store_id=self._works.store_id,
        )
        barred = {n.name for n in nodes if not _fits(n, lined, memory, min(ranks, largest))}
        if nodes and barred >= {node.name for node in nodes if placement.size_of(node)}:
            raise UserError(
                f"run {run.run_id} ({run.describe()}) needs {memory / GIB:.1f} GiB of a machine's"
                " memory for each of its processes, and no node has that much"
            )
        return replace(waiting, barred=frozenset(barred)), request

    def _take_measurement(self, one: Measurement, placement: Placement) -> tuple[Waiting, Request]:
        request = Request(
            one.work_id,
            one.model_dump_json(),
            self._works.store,
            placement.holds(),
            threads=placement.threads,
            body="workers.rank_run:measure_rank",
            fresh=placement.gpus,
            store_id=self._works.store_id,
        )
        return Waiting(one.work_id, Demand(), measuring_seconds(one)), request

    # ------------------------------------------------------------------------------- out of memory
    def with_less_memory(self, request: Request) -> Request | None:
        """Return the next request of a run whose try with this one met the end of a GPU's memory:
        with half the micro-batch, which changes nothing but rounding, then with a GPU of its own;
        None where neither is left. Every run of the same shape starts so from now on, and one that
        was started before another one's lesson goes on with that.
        """
        taught = self.taught(self._by_id[request.run_id])
        if (taught.spec, taught.holds) != (request.spec, request.holds):
            return taught
        if request.body != "workers.rank_run:train_rank":
            return None
        shape, half = _shape(request), with_half_the_micro_batch(request.spec)
        if half is not None:
            run = RunSpec.model_validate_json(half)
            self._micro_batches[shape] = run.micro_batch_size
        elif 0 < request.holds.get("GPU", 0) < 1:
            self._alone.add(shape)
        else:
            return None
        return self.taught(self._by_id[request.run_id])

    def taught(self, request: Request) -> Request:
        """Return a request with what others of its shape have taught."""
        untaught = not self._micro_batches and not self._alone
        if request.body != "workers.rank_run:train_rank" or untaught:
            return request
        shape = _shape(request)
        micro_batch = self._micro_batches.get(shape)
        if micro_batch is not None:
            run = RunSpec.model_validate_json(request.spec)
            if run.micro_batch_size > micro_batch:
                execution = run.execution.model_copy(update={"micro_batch_size": micro_batch})
                spec = run.model_copy(update={"execution": execution}).model_dump_json()
                request = replace(request, spec=spec)
        if shape in self._alone and self.placement is not None:
            memory = request.holds.get("memory", 0.0)
            holds = self.placement.holds(1.0, memory)
            request = replace(request, holds=holds, threads=self.placement.threads)
        return request


def demand_of_request(request: Request) -> Demand:
    """Return what a request holds, as the policy counts it."""
    share = request.holds.get("GPU", 1.0)
    return Demand(units=round(share * UNITS)) if share < 1 else Demand(gpus=request.ranks)


def _shape(request: Request) -> str:
    """Return what decides the memory of a run: all but its seed, control and optimizer's numbers,
    and but for the micro-batch."""
    run = RunSpec.model_validate_json(request.spec)
    execution = run.execution.model_copy(update={"micro_batch_size": None})
    run = run.model_copy(update={"execution": execution})
    return alike(run)


def _host_bytes(run: RunSpec) -> float:
    memory = memory_of(run, run.execution)
    return 0.0 if memory is None else memory.host


def _fits(node: Node, lined: Lined, memory: float, ranks: int) -> bool:
    """Return whether a node is large enough for its part of a run."""
    if lined.gpu_bytes is not None and (node.gpu_bytes or 0.0) < lined.gpu_bytes:
        return False
    return not node.memory or memory * max(1, ranks) <= node.memory


def _within(sizes: Mapping[float | None, int], most: int | None) -> dict[float | None, int]:
    """Return how many GPUs of each size count: the largest ones, up to ``most`` in all, so that no
    run is cut for more than it may ever hold."""
    found: dict[float | None, int] = {}
    left = sum(sizes.values()) if most is None else most
    for size in sorted(sizes, key=lambda size: size or 0.0, reverse=True):
        found[size] = min(sizes[size], left)
        left -= found[size]
    return found
