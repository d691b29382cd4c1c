"""Studies from Python: run, resume, submit and ask, with results as objects and Polars frames.

The commands are thin over these. In a notebook:

    from orchestrator import run_sweep, status

    result = run_sweep("sweeps/library/demo.yaml", "./store", max_gpus=4)
    result.frame  # a Polars row a run and measurement
    status("demo")  # a row a run, as it stands in the store
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.display.plan_table import control_name
from orchestrator.ledger.recovery import EVERYTHING, Choice, Ledger, works_of
from orchestrator.ledger.run_filter import matching, parse_where, require_known
from orchestrator.ledger.sweep_account import Limits, Listener, SweepResult
from orchestrator.sweep_run import SILENT, carry_out
from sweeps.declaration.expand import Sweep, SweepFile, read_sweep
from sweeps.declaration.settings import Setting, control_options, varied
from sweeps.declaration.sweep_files import sweep_file_of
from sweeps.errors import UserError, closest
from sweeps.spec import MEASUREMENTS, RunSpec, is_measurement, score_column
from sweeps.store.store import Store

if TYPE_CHECKING:
    import polars as pl

    from orchestrator.jobs.job_identity import Submission
    from orchestrator.jobs.submission import Request

# Not finished ones: a result is run again by its id only.
STATES = ("failed", "diverged", "cancelled", "preempted", "lost", "waiting")


def run_sweep(
    sweep: str | Path | Sweep,
    store: str | Path | Store = "./store",
    *,
    address: str | None = None,
    max_concurrent: int | None = None,
    max_gpus: int | None = None,
    runs_per_gpu: int | None = None,
    time_budget: float | None = None,
    track: Sequence[str] = (),
    listener: Listener = SILENT,
) -> SweepResult:
    """Run and measure what a store has not of a sweep (a file, or as read), and return what became
    of it.

    ``address`` is of the Ray cluster to run on; without one a Ray is started for this process.
    ``time_budget`` is in seconds, ``track`` names trackers (wandb, mlflow, tensorboard). Raises
    UserError for what a user can mend, before anything is started.
    """
    found = sweep if isinstance(sweep, Sweep) else read_sweep(str(sweep))
    place = _store(store)
    place.require_writable()
    limits = Limits(max_concurrent, max_gpus, runs_per_gpu, time_budget)
    return carry_out(found, place, EVERYTHING, address, limits, listener, track)


def resume(
    name: str,
    store: str | Path | Store = "./store",
    *,
    only: str | None = None,
    force: bool = False,
    address: str | None = None,
    max_concurrent: int | None = None,
    max_gpus: int | None = None,
    runs_per_gpu: int | None = None,
    time_budget: float | None = None,
    track: Sequence[str] = (),
    listener: Listener = SILENT,
) -> SweepResult:
    """Run and measure what is left of a sweep that a store knows; see ``run_sweep``.

    ``only`` is a state (failed, lost, …), a kind of measurement, or the id of a run or measurement;
    ``force`` makes again what that id has a result of.
    """
    place = _store(store)
    sweep = place.load_sweep(name)
    choice = choice_of(sweep, only, force)
    place.require_writable()
    limits = Limits(max_concurrent, max_gpus, runs_per_gpu, time_budget)
    return carry_out(sweep, place, choice, address, limits, listener, track)


def submit(
    sweep_file: str | Path,
    cluster: str,
    store: str | Path,
    *,
    max_concurrent: int | None = None,
    max_gpus: int | None = None,
    runs_per_gpu: int | None = None,
    time_budget: float | None = None,
    track: Sequence[str] = (),
    say: Callable[[str], None] = lambda _: None,
) -> Submission:
    """Give a sweep to a cluster (a profile's name or file) and return its job; the same submission
    again attaches to it, or goes on with what is left."""
    from orchestrator.jobs.submission import submit as submitted

    limits = Limits(max_concurrent, max_gpus, runs_per_gpu, time_budget)
    return submitted(request_for(sweep_file, cluster, str(store), limits, track), say)


def status(name: str | None = None, store: str | Path | Store = "./store") -> pl.DataFrame:
    """Return a row a run of a sweep, or of every sweep of a store: its settings, state, newest
    checkpoint, attempts, seconds in them, what the last one said, and what it scored in the end."""
    import polars as pl

    place = _store(store).reading(())
    sweeps = {one: place.load_sweep(one) for one in ([name] if name else place.sweep_names())}
    standing = Ledger(place, [i for found in sweeps.values() for i in works_of(found)])
    rows = [
        {
            "sweep": one,
            **{
                name: value for name, value in row.items() if name not in ("settings", "evaluation")
            },
            **{score_column(name): value for name, value in row.get("evaluation", {}).items()},
            **row["settings"],
        }
        for one, found in sweeps.items()
        for row in runs_as_they_stand(found, standing)
    ]
    return pl.DataFrame(rows, infer_schema_length=None)


def chosen_runs(sweep: Sweep, store: Store, only: str | None, limit: int | None) -> Choice:
    """Return the choice of the runs for which conditions such as ``model=gpt2,seed=0`` hold, all
    without, and of those the first ``limit`` that are left.

    Raises UserError for a setting that runs have not, or a value that none of them has.
    """
    if only is None:
        return replace(EVERYTHING, most=limit)
    conditions = parse_where(only, option="--only")
    require_known(sweep.runs, conditions, "--only")
    standing = Ledger(store, works_of(sweep))
    found = matching(sweep.runs, conditions, lambda run_id: standing(run_id).state)
    if not found:
        raise UserError(f"--only {only}: no run of {sweep.name} is all of that")
    return Choice(runs=frozenset(run.run_id for run in found), most=limit)


def choice_of(sweep: Sweep, only: str | None, force: bool) -> Choice:
    """Return what ``only`` and ``force`` ask for; raise UserError for what a sweep has not."""
    measured = [one.work_id for one in sweep.to_measure]
    if only is not None and only not in (*STATES, *sweep.by_id, *MEASUREMENTS, *measured):
        like = measured if is_measurement(only) else list(sweep.by_id)
        words = [*STATES, *MEASUREMENTS]
        hint = closest(only, like if only[:1].isdigit() or is_measurement(only) else words)
        raise UserError(f"--only {only}: neither a state nor a run of {sweep.name}; {hint}")
    if force and only not in (*sweep.by_id, *measured):
        raise UserError("--force makes a result again: say which with --only and its id")
    return Choice(only, force)


def request_for(
    sweep_file: str | Path, cluster: str, store: str, limits: Limits, track: Sequence[str]
) -> Request:
    """Return what is submitted of a sweep file."""
    from cluster.library import read_profile
    from orchestrator.jobs.submission import Request, absolute_store
    from orchestrator.tracking.kinds import arguments

    file = SweepFile.read(sweep_file_of(sweep_file).absolute())
    sweep, profile = file.sweep(), read_profile(cluster)
    options = (*limits.within(profile.most_gpus).as_words(), *arguments(sweep, tuple(track)))
    place = absolute_store(store)
    return Request(sweep, file, ["run", file.path.name], place, cluster, profile, options)


def runs_as_they_stand(sweep: Sweep, standing: Ledger) -> list[dict[str, Any]]:
    """Return what a store says of each run of a sweep; ``settings`` has those that it varies."""
    options = control_options()
    settings = [one for one in varied(sweep.runs) if one.name not in options]
    conditions: dict[tuple[object, ...], dict[str, Any]] = {}
    found = []
    for run in sweep.runs:
        key = run.but_for_the_seed()
        if key not in conditions:
            conditions[key] = _condition(run, settings)
        found.append(
            {"run_id": run.run_id, **conditions[key], "seed": run.seed, **_state(run, standing)}
        )
    return found


def _condition(run: RunSpec, settings: list[Setting]) -> dict[str, Any]:
    return {
        "model": run.model.name,
        "objective": run.objective.label,
        "control": control_name(run),
        "settings": {one.name: one.value(run) for one in settings},
    }


def _state(run: RunSpec, standing: Ledger) -> dict[str, Any]:
    attempts = standing.closings.attempts(run.run_id)
    stands = standing(run.run_id)
    return {
        "state": stands.state,
        "checkpoint": stands.checkpoint,
        "attempts": len(attempts),
        "seconds": sum(attempt["seconds"] or 0 for attempt in attempts),
        "started": attempts[0]["started"] if attempts else None,
        "ended": attempts[-1]["ended"] if attempts else None,
        "error": last_line(attempts[-1]["error"]) if attempts else None,
        **({"evaluation": _scores(run, standing)} if run.evaluation else {}),
    }


def _scores(run: RunSpec, standing: Ledger) -> dict[str, float]:
    """Return what a run with a result scored at its end, by name."""
    if standing.closings.status(run.run_id) is None:
        return {}
    closed = standing.closings.closed(run.run_id)
    return closed.evaluation.get("last", {}) if closed is not None else {}


def last_line(error: str | None) -> str | None:
    """Return what an attempt's error comes down to."""
    return error.strip().splitlines()[-1] if error else None


def _store(store: str | Path | Store) -> Store:
    return store if isinstance(store, Store) else Store.at(str(store))
