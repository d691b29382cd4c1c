"""A sweep on this machine or on a Ray cluster, as functions: data in, data out, no terminal.

``run_sweep`` compares the ledger with the sweep, starts what is left under Ray, and returns what
became of each run. Whoever wants to know more meanwhile gives a ``Listener``.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from orchestrator.ledger.index_keeper import IndexKeeper
from orchestrator.ledger.kept_weights import without_weights
from orchestrator.ledger.recovery import (
    EVERYTHING,
    Action,
    Choice,
    decide,
    decide_measurements,
    ledger_of,
)
from orchestrator.ledger.sweep_account import (
    NO_LIMITS,
    Limits,
    Listener,
    Plan,
    Room,
    SweepResult,
)
from orchestrator.sizing.choice import require_feasible
from orchestrator.sizing.tracer import tracing
from sweeps.attempts.left_open import finish_off
from sweeps.declaration.changes import compare_sweeps
from sweeps.declaration.expand import Sweep
from sweeps.declaration.settings import varied
from sweeps.errors import UserError
from sweeps.plugins.opened import require_at_hand
from sweeps.reading.closings import Closings
from sweeps.sources.content import require_sources
from sweeps.spec import Measurement
from sweeps.store.records import RESULTS
from sweeps.store.store import Store
from sweeps.upkeep.audit import harmed_part, unsound_result
from sweeps.versions.sweep_folder import SweepFolder

if TYPE_CHECKING:
    from orchestrator.tuning.cluster_view import OwnCluster, SharedCluster, View


SILENT = Listener()


def carry_out(
    sweep: Sweep,
    store: Store,
    choice: Choice,
    address: str | None,
    limits: Limits,
    listener: Listener,
    track: Sequence[str],
) -> SweepResult:
    """Do what ``run_sweep`` does, while the trackers listen that the sweep and ``track`` name."""
    from orchestrator.tracking.live import tracked
    from orchestrator.tuning.interruption import terminable

    with terminable(), tracked(sweep, store, track, listener) as both:
        return run_sweep(sweep, store, choice, address, limits, both)


def run_sweep(
    sweep: Sweep,
    store: Store,
    choice: Choice = EVERYTHING,
    address: str | None = None,
    limits: Limits = NO_LIMITS,
    listener: Listener = SILENT,
) -> SweepResult:
    """Run and measure what is left of a sweep, of what ``choice`` admits, and return what became
    of it.

    ``address`` is of the Ray cluster to run on; None or ``local`` starts a Ray for this process.
    Raises UserError where a run does not fit or no cluster answers, before anything is started.
    """
    plan = plan_sweep(sweep, store, choice)
    listener.planned(plan)
    starting = [*plan.to_run, *(one.run for one in plan.to_measure)]
    require_sources(starting)
    require_at_hand(starting)
    with tracing(listener.notice):
        require_feasible(plan.to_run)
    _save(plan, listener)
    unkept = without_weights(sweep.name, plan.actions, store)
    if unkept is not None:
        listener.notice(unkept)
    for work_id in plan.again:
        store.work(work_id).forget_results()
    finish_off(store, plan.left_open)
    result = SweepResult(sweep.name, len(plan.actions) - len(plan.to_run))
    with IndexKeeper(store, set(plan.unindexed) - set(plan.again)) as index:
        if plan.to_run or plan.to_measure:
            _carry_out(plan, address, limits, listener, result, index)
    result.unsound = _unsound(plan, result)
    result.refused = _refused(plan, result)
    return result


def _save(plan: Plan, listener: Listener) -> None:
    """Record the sweep, and say so where its name alone means another version from now on."""
    folder = SweepFolder(plan.store.sweep_folder(plan.sweep.name))
    before = folder.current()
    plan.store.save_sweep(plan.sweep)
    now = folder.current()
    if before is not None and now is not None and before.digest != now.digest:
        name = plan.sweep.name
        listener.notice(f"{name} means {name}@{now.digest} from now on, not @{before.digest}")


def _refused(plan: Plan, result: SweepResult) -> dict[str, str]:
    """Return which of the measurements that ended cannot be made, and why."""
    from sweeps.reading.measurements import refusal_of

    ended = [one for one in plan.to_measure if result.measured.get(one.work_id) == "finished"]
    closings = Closings(plan.store, [one.work_id for one in ended])
    said = {one.work_id: refusal_of(closings, one) for one in ended}
    return {work_id: why for work_id, why in said.items() if why is not None}


def _unsound(plan: Plan, result: SweepResult) -> dict[str, str]:
    """Return which runs are said to have a result that the store's files do not bear out.

    What this sweep has brought is read row by row; of what was there, checksums are compared. On
    an object store what was there and is in the index is left to `doctor`.
    """

    found = {}
    closings = Closings(plan.store, [run.run_id for run in plan.sweep.runs])
    for run in plan.sweep.runs:
        ended = result.ended.get(run.run_id)
        if ended is not None and ended not in RESULTS:
            continue
        if ended is None and closings.vouched_for(run.run_id):
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
    standing = ledger_of(store, sweep)
    actions = decide(sweep.runs, standing, choice)
    wanted = _to_measure(sweep, actions, choice)
    measures = decide_measurements(wanted, standing, choice)
    unindexed = standing.closings.unindexed()
    missing = set(unindexed)
    left_open = [
        run
        for run in sweep.runs
        if run.run_id in missing
        and any(one["cause"] is None for one in standing.closings.attempts(run.run_id)[-1:])
    ]
    return Plan(sweep, store, actions, changes, unreadable, measures, unindexed, left_open)


def _to_measure(sweep: Sweep, actions: Sequence[Action], choice: Choice) -> list[Measurement]:
    """Return what a sweep wants measured: where some of its runs are meant, what these share."""
    if choice.runs is None and choice.most is None:
        return sweep.to_measure
    meant = [one.run for one in actions if one.kind == "run" or one.why in RESULTS]
    return replace(sweep, runs=tuple(meant)).to_measure


def _with_later_wishes(sweep: Sweep, before: Sweep) -> Sweep:
    """Return a sweep whose file leaves open what is measured with what was asked of it since, as by
    ``depthsweep distance``."""
    return sweep.wanting({*sweep.measurements, *(before.measurements if sweep.usual else ())})


def _carry_out(
    plan: Plan,
    address: str | None,
    limits: Limits,
    listener: Listener,
    result: SweepResult,
    index: IndexKeeper,
) -> None:
    from orchestrator.connection.nodes import gone_where_it_is
    from orchestrator.connection.store_watch import StoreWatch
    from orchestrator.sizing.estimates import RUNS_PER_GPU, measure
    from orchestrator.tuning.admission import Admission
    from orchestrator.tuning.hearing import Event, Hearing
    from orchestrator.tuning.interruption import Interruption, terminable
    from orchestrator.tuning.requests import Requests, Works
    from orchestrator.tuning.trainable import RunTrainable
    from orchestrator.tuning.tune_sweep import run_all

    running: set[str] = set()
    store_id = plan.store.identify()
    requests = Requests(
        Works(
            plan.to_run,
            plan.to_measure,
            plan.store.location,
            store_id,
            measure(plan.store, plan.sweep.runs),
            limits.runs_per_gpu or RUNS_PER_GPU,
            limits.most_gpus,
        )
    )

    def note(event: Event) -> None:
        _note(result, running, event.run_id, event.kind, event.report)
        if event.kind == "ended" and result.status_of(event.run_id)[event.run_id] in RESULTS:
            index.closed(event.run_id)
        listener.event(event.run_id, event.kind, event.report)

    with contextlib.ExitStack() as until_done:
        cluster, view, own = until_done.enter_context(
            _ray(plan, store_id, address, limits, listener)
        )
        until_done.enter_context(terminable())
        waiting = requests.fit(view.nodes, view.to_come)
        assert waiting is not None
        assert requests.placement is not None
        listener.starting(plan, Room(requests.placement, view.nodes, address))
        watch = until_done.enter_context(contextlib.closing(StoreWatch(plan.store, store_id)))
        admission = Admission(
            requests,
            waiting,
            cluster,
            limits,
            Hearing(note, listener.notice),
            _settings_of(plan),
            watch.away,
            watch.looked_at,
        )
        until_done.enter_context(listener.running())
        interruption = until_done.enter_context(
            Interruption(gone_where_it_is()) if own else Interruption()
        )
        try:
            result.grid = run_all(RunTrainable, admission, reuse=own)
        except KeyboardInterrupt:
            result.interrupted = interruption.code
        except Exception:
            cluster.look()  # says so where the cause is that Ray itself is gone
            raise
        result.stopped = admission.stopped
    _account_for_the_rest(plan, running, result)
    if {"cancelled", "not started"} & {*result.ended.values(), *result.measured.values()}:
        result.interrupted = result.interrupted or (None if result.stopped else interruption.code)


def _settings_of(plan: Plan) -> Callable[[str], Mapping[str, Any]]:
    """Return what the config of a run's trial shows: model, objective, control, seed, and the
    settings that the sweep varies beside them."""
    by_id = plan.sweep.by_id
    varies = varied(plan.sweep.runs)
    measurements = {one.work_id: one.label for one in plan.to_measure}

    def settings(work_id: str) -> Mapping[str, Any]:
        run = by_id.get(work_id)
        if run is None:
            return {"measurement": measurements[work_id]}
        shown = {
            "model": run.model.name,
            "objective": run.objective.label,
            "control": run.control.kind,
            "seed": run.seed,
        }
        return {**shown, **{one.name: one.value(run) for one in varies}}

    return settings


def _account_for_the_rest(plan: Plan, running: set[str], result: SweepResult) -> None:
    """Say of what no event has ended what the store has of it: a run that was told to stop may have
    finished first."""
    everything = [run.run_id for run in plan.to_run] + [one.work_id for one in plan.to_measure]
    standing = ledger_of(plan.store, plan.sweep)
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
    elif kind in ("lost", "preempted", "again"):
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
    plan: Plan, store_id: str, address: str | None, limits: Limits, listener: Listener
) -> Iterator[tuple[OwnCluster | SharedCluster, View, bool]]:
    """Yield the cluster, what there is of it, and whether it is this process's own."""
    from orchestrator.connection.nodes import (
        connected_ray,
        cpu_count,
        gpu_bytes,
        gpu_count,
        local_ray,
        own_nodes,
        ray_is_here,
    )
    from orchestrator.tuning.cluster_view import OwnCluster, SharedCluster

    if ray_is_here():
        # A program that has a Ray of its own, as a notebook may: the sweep is one of its users.
        there = SharedCluster(plan.store.location, store_id, limits.most_gpus)
        yield there, there.first_look(listener.notice), False
        return
    if address in (None, "", "local"):
        cpus, gpus = cpu_count(), gpu_count()
        size = gpu_bytes() if gpus else None
        with local_ray(cpus, gpus):
            here = OwnCluster(own_nodes, size)
            yield here, here.look(), True
        return
    assert address is not None
    with connected_ray(address):
        there = SharedCluster(plan.store.location, store_id, limits.most_gpus)
        yield there, there.first_look(listener.notice), False
