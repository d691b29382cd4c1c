"""A sweep on this machine or on a Ray cluster, as functions: data in, data out, no terminal.

``run_sweep`` compares the ledger with the sweep, starts what is left under Ray, and returns what
became of each run. Whoever wants to know more meanwhile gives a ``Listener``.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from orchestrator.ledger.recovery import (
    EVERYTHING,
    RESULTS,
    Choice,
    decide,
    decide_measurements,
    ledger,
)
from orchestrator.ledger.sweep_account import Listener, Plan, Room, SweepResult
from sweeps.declaration.changes import compare_sweeps
from sweeps.declaration.expand import Sweep
from sweeps.errors import UserError
from sweeps.sources.content import require_sources
from sweeps.spec import Measurement, RunSpec
from sweeps.store.audit import harmed_part, unsound_result
from sweeps.store.store import Store

if TYPE_CHECKING:
    from orchestrator.sizing.estimates import Measured
    from orchestrator.sizing.placement import ClusterNode, Placement
    from orchestrator.tuning.trials import Offer


SILENT = Listener()


def run_sweep(
    sweep: Sweep,
    store: Store,
    slots: int | None = None,
    choice: Choice = EVERYTHING,
    address: str | None = None,
    listener: Listener = SILENT,
) -> SweepResult:
    """Run and measure what is left of a sweep, of what ``choice`` admits, and return what became
    of it.

    ``slots`` limits how many run side by side. ``address`` is of the Ray cluster to run on; None or
    ``local`` starts a Ray for this process. Raises UserError where a run does not fit or no cluster
    answers, before anything is started.
    """
    plan = plan_sweep(sweep, store, choice)
    listener.planned(plan)
    require_sources([*plan.to_run, *(one.run for one in plan.to_measure)])
    store.save_sweep(plan.sweep)
    for work_id in plan.again:
        store.work(work_id).forget_results()
    result = SweepResult(sweep.name, len(plan.actions) - len(plan.to_run))
    if plan.to_run or plan.to_measure:
        _carry_out(plan, slots, address, listener, result)
    result.unsound = _unsound(plan, result)
    result.refused = _refused(plan, result)
    return result


def _refused(plan: Plan, result: SweepResult) -> dict[str, str]:
    """Return which of the measurements that ended cannot be made, and why."""
    from sweeps.reading.measurements import refusal_of

    store = plan.store.reading()
    ended = [one for one in plan.to_measure if result.measured.get(one.work_id) == "finished"]
    said = {one.work_id: refusal_of(store, one) for one in ended}
    return {work_id: why for work_id, why in said.items() if why is not None}


def _unsound(plan: Plan, result: SweepResult) -> dict[str, str]:
    """Return which runs are said to have a result that the store's files do not bear out.

    What this sweep has brought is read row by row; of what was there, checksums are compared.
    """
    found = {}
    for run in plan.sweep.runs:
        ended = result.ended.get(run.run_id)
        if ended is not None and ended not in RESULTS:
            continue
        folder = plan.store.run(run.run_id)
        wrong = harmed_part(folder) if ended is None else unsound_result(folder)
        if wrong is not None:
            found[run.run_id] = wrong
    return found


def plan_sweep(sweep: Sweep, store: Store, choice: Choice = EVERYTHING) -> Plan:
    """Return what ``run_sweep`` would do with each run and measurement, and what changed; starts
    nothing."""
    changes, unreadable = None, False
    if sweep.name in store.sweep_names():
        try:
            before = store.load_sweep(sweep.name)
            changes = compare_sweeps(before.runs, sweep.runs)
            sweep = _with_later_wishes(sweep, before)
        except UserError:
            unreadable = True
    standing = ledger(store)
    actions = decide(sweep.runs, standing, choice)
    measures = decide_measurements(sweep.to_measure, standing, choice)
    return Plan(sweep, store, actions, changes, unreadable, measures)


def _with_later_wishes(sweep: Sweep, before: Sweep) -> Sweep:
    """Return a sweep whose file leaves open what is measured with what was asked of it since, as by
    ``depthsweep distance``."""
    return sweep.wanting({*sweep.measurements, *(before.measurements if sweep.usual else ())})


def _carry_out(
    plan: Plan, slots: int | None, address: str | None, listener: Listener, result: SweepResult
) -> None:
    from orchestrator.sizing.estimates import measure
    from orchestrator.sizing.placement import slots_of
    from orchestrator.tuning.interruption import Interruption
    from orchestrator.tuning.trainable import RunTrainable
    from orchestrator.tuning.tune_sweep import run_all

    measured = measure(plan.store, plan.sweep.runs)
    running: set[str] = set()

    def note(run_id: str, kind: str, report: dict[str, Any]) -> None:
        _note(result, running, run_id, kind, report)
        listener.event(run_id, kind, report)

    with contextlib.ExitStack() as until_done:
        offers, placement, living = until_done.enter_context(
            _ray(plan, slots, address, listener, measured)
        )
        until_done.enter_context(listener.running())
        interruption = until_done.enter_context(Interruption())
        try:
            run_all(
                RunTrainable,
                offers,
                lambda: slots_of(living(), placement, slots),
                placement.holds,
                lambda event: note(event.run_id, event.kind, event.report),
            )
        except KeyboardInterrupt:
            result.interrupted = interruption.code
        except Exception:
            living()  # says so where the cause is that Ray itself is gone
            raise
    _account_for_the_rest(plan, running, result)
    if {"cancelled", "not started"} & {*result.ended.values(), *result.measured.values()}:
        result.interrupted = interruption.code


def _account_for_the_rest(plan: Plan, running: set[str], result: SweepResult) -> None:
    """Say of what no event has ended what the store has of it: a run that was told to stop may have
    finished first."""
    everything = [run.run_id for run in plan.to_run] + [one.work_id for one in plan.to_measure]
    standing = ledger(plan.store)
    for work_id in everything:
        statuses = result.status_of(work_id)
        if work_id in statuses:
            continue
        stands = standing(work_id)
        if stands.state in RESULTS:
            statuses[work_id] = stands.state
        elif work_id in running:
            statuses[work_id] = "cancelled"
            if statuses is result.ended:
                result.kept[work_id] = stands.checkpoint
        else:
            statuses[work_id] = "not started"


def _note(
    result: SweepResult, running: set[str], run_id: str, kind: str, report: dict[str, Any]
) -> None:
    if report.get("resumed_from"):
        result.resumed[run_id] = report["resumed_from"]
    if kind == "started":
        running.add(run_id)
    elif kind in ("lost", "preempted"):
        running.discard(run_id)
    elif kind == "ended":
        running.discard(run_id)
        result.status_of(run_id)[run_id] = report.get("status") or "cancelled"
        if report.get("error"):
            result.errors[run_id] = report["error"]
        if report.get("mistake"):
            result.mistakes.add(run_id)


@contextlib.contextmanager
def _ray(
    plan: Plan, slots: int | None, address: str | None, listener: Listener, measured: Measured
) -> Iterator[tuple[list[Offer], Placement, Callable[[], Sequence[ClusterNode]]]]:
    """Yield what is offered, what a slot is, and who says which nodes live."""
    from orchestrator.connection.nodes import (
        cluster_nodes,
        connected_ray,
        local_ray,
        own_nodes,
        require_workers,
    )
    from orchestrator.connection.store_probe import require_store_on
    from orchestrator.sizing.placement import place_on

    if address in (None, "", "local"):
        placement, gpu_bytes = _here(slots)
        offers = _everything(plan, placement, gpu_bytes, measured)
        with local_ray(placement):
            listener.starting(plan, Room(placement))
            yield offers, placement, own_nodes
        return
    assert address is not None
    with connected_ray(address):
        found = cluster_nodes()
        placement, gpu_bytes = place_on(found, slots), require_workers(found)
        require_store_on([node.name for node in found], plan.store.location, plan.sweep.name)
        offers = _everything(plan, placement, gpu_bytes, measured)
        listener.starting(plan, Room(placement, address, len(found)))
        yield offers, placement, cluster_nodes


def _here(slots: int | None) -> tuple[Placement, float | None]:
    """Return the placement on this machine, and the bytes of its smallest GPU."""
    from orchestrator.connection.nodes import cpu_count, gpu_bytes, gpu_count
    from orchestrator.sizing.placement import Machine, place

    machine = Machine(cpu_count(), gpu_count())
    return place(machine, slots), gpu_bytes() if machine.gpus else None


def _everything(
    plan: Plan, placement: Placement, gpu_bytes: float | None, measured: Measured
) -> list[Offer]:
    """Return the runs as they are offered, then the measurements."""
    runs = _offers(plan.to_run, plan.store, placement, gpu_bytes, measured)
    return runs + _measurement_offers(plan.to_measure, plan.store, placement)


def _measurement_offers(
    to_measure: list[Measurement], store: Store, placement: Placement
) -> list[Offer]:
    """Return measurements as they are offered: one rank on one slot each."""
    from orchestrator.policy.next_start import Waiting
    from orchestrator.policy.occupancy import Demand
    from orchestrator.sizing.estimates import measuring_seconds
    from orchestrator.tuning.trials import Offer
    from workers.ranks.rank_process import Job

    return [
        Offer(
            Waiting(one.work_id, Demand(), measuring_seconds(one)),
            {
                "run_id": one.work_id,
                "job": Job(
                    one.model_dump_json(),
                    store.location,
                    threads=placement.threads,
                    body="workers.rank_run:measure_rank",
                ),
                "fresh": bool(placement.gpus),
            },
        )
        for one in to_measure
    ]


def _offers(
    to_run: list[RunSpec],
    store: Store,
    placement: Placement,
    gpu_bytes: float | None,
    measured: Measured,
) -> list[Offer]:
    """Return runs as they are offered; UserError where one does not fit.

    A run on a GPU gets fresh processes, as does one of DeepSpeed: what one leaves on a device or in
    memory, the next would find. On CPUs a process runs one after another, warm.
    """
    from orchestrator.policy.occupancy import UNITS
    from orchestrator.sizing.estimates import line_up
    from orchestrator.sizing.placement import rank_processes
    from orchestrator.tuning.trials import Offer
    from workers.ranks.rank_process import Job

    lined = line_up(to_run, placement.slots, gpu_bytes, measured)
    return [
        Offer(
            waiting,
            {
                "run_id": run.run_id,
                "job": Job(
                    run.model_dump_json(),
                    store.location,
                    threads=max(1, int(placement.threads * share)),
                ),
                "fresh": bool(placement.gpus or rank_processes(run, placement.slots)),
            },
        )
        for waiting, run in lined
        for share in [waiting.demand.units / UNITS]
    ]
