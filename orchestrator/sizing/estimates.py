"""How long each run is expected to take, and what it holds meanwhile.

Before anything has run: FLOPs over what a GPU does, plus a start. Once runs of a store have
finished: their own seconds, per model and objective, scaled by FLOPs.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from orchestrator.policy.next_start import Waiting
from orchestrator.policy.occupancy import UNITS, Demand
from orchestrator.sizing.choice import Host, placed
from orchestrator.sizing.cost import (
    ASSUMED_PARAMETERS,
    estimate,
    parameter_count,
    probed_tokens,
)
from orchestrator.sizing.memory import memory_of
from orchestrator.sizing.traces import alike
from sweeps.errors import UserError
from sweeps.reading.closings import Closings
from sweeps.spec import Measurement, RunSpec
from sweeps.store.store import Store

# 35 % of what one H100 does in dense bf16: half is a good run, a third a common one.
ASSUMED_FLOPS = 0.35 * 989e12
# Process, imports, weights, tokens and reference states of a run, before its first step.
START_SECONDS = 20.0
# More runs on one GPU than this gain nothing: each has its own context, kernels and CPU process.
RUNS_PER_GPU = 4
# Of a measurement: forwards of the whole probe, and batches of all sides of a distance.
PROBES, BATCHES = 21, 3 * 64
# Of a shared GPU's memory, what estimates leave free: they are estimates, and nobody is isolated.
SHARED_MARGIN = 0.15


@dataclass(frozen=True)
class Measured:
    """Seconds a FLOP of finished runs, per model and objective."""

    pace: dict[tuple[str, str], float]

    def seconds(self, run: RunSpec) -> float | None:
        """Return the seconds of a run from finished ones like it; None where there are none."""
        pace = self.pace.get((run.model.name, run.objective.kind))
        return None if pace is None else pace * estimate(run).flops


def measure(store: Store, runs: Iterable[RunSpec]) -> Measured:
    """Return the pace of the runs that have finished in a store.

    Only attempts that went from the first step to the last count: of a resumed one the seconds
    before are another process's.
    """
    seconds: dict[tuple[str, str], float] = defaultdict(float)
    flops: dict[tuple[str, str], float] = defaultdict(float)
    runs = list(runs)
    closings = Closings(store, [run.run_id for run in runs])
    for run in runs:
        if closings.status(run.run_id) is None:
            continue
        for attempt in closings.attempts(run.run_id):
            whole = attempt.get("cause") == "finished" and not attempt.get("resumed_from")
            if whole and attempt.get("seconds"):
                key = (run.model.name, run.objective.kind)
                seconds[key] += attempt["seconds"]
                flops[key] += estimate(run).flops
    return Measured({key: seconds[key] / flops[key] for key in seconds})


NOTHING_MEASURED = Measured({})


def expected_seconds(run: RunSpec, demand: Demand, measured: Measured) -> float:
    """Return the seconds of a run that holds ``demand``.

    By FLOPs, GPUs of a gang share the work evenly, and runs that share a GPU take turns: what
    sharing gains on kernels that leave a GPU idle is not counted before it is measured.
    """
    found = measured.seconds(run)
    if found is not None:
        return found
    return START_SECONDS + estimate(run).flops / ASSUMED_FLOPS / demand.total


def measuring_seconds(measurement: Measurement) -> float:
    """Return the seconds that a measurement is expected to take on one GPU, by FLOPs.

    A propagation reads the probe's tokens once a draw; a distance usually reads some dozens of
    batches forwards and backwards, on each of up to three sides.
    """
    run = measurement.run
    known = parameter_count(run.model.source)
    if measurement.kind == "propagation":
        operations = 2.0 * PROBES * probed_tokens(run)
    else:
        operations = 6.0 * BATCHES * run.batch_size * run.sequence_length
    parameters = ASSUMED_PARAMETERS if known is None else known
    return START_SECONDS + operations * parameters / ASSUMED_FLOPS


def demand_of(
    run: RunSpec, gpu_bytes: float | None, crowd: int = 1, most: int = RUNS_PER_GPU
) -> Demand:
    """Return what a placed run holds: GPUs for its ranks, or a share of one.

    A plain run takes 1/k of a GPU when k of it fit with a margin, k being at most ``most``, and
    at most ``crowd``, the runs there are for each GPU: nobody shares while another GPU is free.
    """
    execution = run.execution.settled()
    if execution.engine != "plain":
        return Demand(gpus=execution.processes or 1)
    if gpu_bytes is None or min(most, crowd) < 2:
        return Demand()
    memory = memory_of(run, execution)
    if memory is None:
        return Demand()
    sharing = int(gpu_bytes * (1 - SHARED_MARGIN) / memory.total)
    return Demand(UNITS // max(1, min(sharing, most, crowd)))


@dataclass(frozen=True)
class Lined:
    """A run as the policy sees it, with the way it is carried out, sized for GPUs of at least
    ``gpu_bytes``; None where their size is not known, or there are none."""

    waiting: Waiting
    run: RunSpec
    gpu_bytes: float | None


def line_up(
    runs: Sequence[RunSpec],
    pools: Mapping[float | None, int],
    measured: Measured = NOTHING_MEASURED,
    most: int = RUNS_PER_GPU,
    hosts: Mapping[float | None, Host] | None = None,
) -> list[Lined]:
    """Return runs as the policy sees them, each with the way it is carried out on these GPUs.

    ``pools`` has how many GPUs there are of each size in bytes; the size is None where runs train
    on CPUs, of which it then has the number; ``hosts`` the machines they are in, where known. A
    run is sized for the GPUs of which it needs fewest, the smallest of those: it may then go to
    larger ones, too. The longest run of each model opens
    for the model's others, since it makes what they share (stand-in, tokens, reference states).
    Raises UserError for a run that fits in no way.
    """
    gpus = sum(pools.values())
    crowd = -(-len(runs) // gpus) if gpus else 1
    seen: dict[str, tuple[RunSpec, Demand, float, float | None]] = {}
    found: list[Lined] = []
    longest: dict[str, Waiting] = {}
    for run in runs:
        shape = alike(run)
        if shape not in seen:
            settled, demand, size = _sized(run, pools, crowd, most, hosts or {})
            seen[shape] = (settled, demand, expected_seconds(run, demand, measured), size)
        settled, demand, seconds, size = seen[shape]
        waiting = Waiting(run.run_id, demand, seconds)
        longest[run.model.name] = max(
            longest.get(run.model.name, waiting),
            waiting,
            key=lambda one: (one.seconds, one.run_id),
        )
        execution = run.model_copy(update={"execution": settled.execution})
        found.append(Lined(waiting, execution, size))
    opening = {waiting.run_id for waiting in longest.values()}
    return [
        replace(one, waiting=replace(one.waiting, opens=one.waiting.run_id in opening))
        for one in found
    ]


def _sized(
    run: RunSpec,
    pools: Mapping[float | None, int],
    crowd: int,
    most: int,
    hosts: Mapping[float | None, Host],
) -> tuple[RunSpec, Demand, float | None]:
    """Return a run placed on the pool of which it needs fewest GPUs, its demand, and their size."""
    best: tuple[RunSpec, Demand, float | None] | None = None
    refused: UserError | None = None
    for size in sorted(pools, key=lambda size: size or 0.0):
        as_large = sum(count for of, count in pools.items() if (of or 0.0) >= (size or 0.0))
        try:
            settled = placed(run, size, as_large, hosts.get(size))
        except UserError as error:
            refused = error
            continue
        demand = demand_of(settled, size, crowd, most)
        if best is None or demand.gpus < best[1].gpus:
            best = (settled, demand, size)
    if best is None:
        assert refused is not None
        raise refused
    return best
