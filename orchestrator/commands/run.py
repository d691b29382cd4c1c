"""``depthsweep run``: a sweep on this machine, or on the Ray cluster at an address."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from orchestrator.display.actions_text import summary_lines
from orchestrator.ledger.recovery import EVERYTHING, Choice, decide, ledger
from orchestrator.policy.occupancy import UNITS
from sweeps.declaration.changes import compare_sweeps
from sweeps.declaration.content import require_sources
from sweeps.declaration.expand import Sweep, read_sweep
from sweeps.errors import UserError
from sweeps.spec import RunSpec
from sweeps.store.claims_file import keep_claims
from sweeps.store.store import Store

if TYPE_CHECKING:
    from orchestrator.sizing.estimates import Measured
    from orchestrator.sizing.placement import Placement
    from orchestrator.tuning.trials import Offer


# What a shell says of a process that Ctrl-C ended.
INTERRUPTED = 130

ON_CLUSTER = click.option(
    "--address",
    envvar="RAY_ADDRESS",
    help="Run on the Ray cluster there (HOST:PORT or auto), not on this machine.",
)


@click.command("run")
@click.argument("sweep_file")
@click.option("--store", "location", default="./store", show_default=True, help="Results folder.")
@click.option("--slots", type=click.IntRange(min=1), help="Runs side by side (default: all).")
@ON_CLUSTER
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON.")
def command(
    sweep_file: str, location: str, slots: int | None, address: str | None, as_json: bool
) -> int:
    """Run SWEEP_FILE. Finished runs are skipped, the rest continue from their checkpoints."""
    sweep = read_sweep(sweep_file)
    store = Store.at(location)
    store.require_writable()
    keep_claims(store, sweep.name, Path(sweep_file))
    return run_sweep(sweep, store, slots, as_json, address=address)


def run_sweep(
    sweep: Sweep,
    store: Store,
    slots: int | None,
    as_json: bool,
    choice: Choice = EVERYTHING,
    address: str | None = None,
) -> int:
    """Run what is left of a sweep; return 0 when every run has a result, 1 otherwise, 130 when
    interrupted and 143 when terminated.

    ``address`` is of the Ray cluster to run on; None or ``local`` starts one for this process.
    """
    from rich.console import Console

    console = Console(stderr=as_json, highlight=False)
    actions = decide(sweep.runs, ledger(store), choice)
    to_run = [action.run for action in actions if action.kind == "run"]
    console.print(f"{sweep.name}: {len(sweep.runs)} runs in {location_of(store)}")
    for line in (*_changes(sweep, store), *summary_lines(actions)):
        console.print(f"  {line}", markup=False)
    require_sources(to_run)
    store.save_sweep(sweep)
    for action in actions:
        if action.again:
            store.run(action.run.run_id).forget_results()
    if not to_run:
        console.print("  nothing to do: every run has a result")
        return _close(sweep, {}, {}, len(actions), as_json, console)

    from orchestrator.connection.nodes import (
        cluster_nodes,
        connected_ray,
        local_ray,
        own_nodes,
        require_workers,
    )
    from orchestrator.connection.store_probe import require_store_on
    from orchestrator.display.progress import Board, Display
    from orchestrator.sizing.estimates import measure
    from orchestrator.sizing.placement import place_on, slots_of
    from orchestrator.tuning.interruption import Interruption
    from orchestrator.tuning.trainable import RunTrainable
    from orchestrator.tuning.tune_sweep import run_all

    board = Board({run.run_id: run for run in to_run})
    measured = measure(store, sweep.runs)
    with contextlib.ExitStack() as until_done:
        if address in (None, "", "local"):
            placement, gpu_bytes = _here(slots)
            offers = _offers(to_run, store, placement, gpu_bytes, measured)
            until_done.enter_context(local_ray(placement))
            living = own_nodes

        else:
            until_done.enter_context(connected_ray(address))
            living = cluster_nodes
            found = living()
            placement, gpu_bytes = place_on(found, slots), require_workers(found)
            require_store_on([node.name for node in found], store.location, sweep.name)
            offers = _offers(to_run, store, placement, gpu_bytes, measured)
            console.print(f"  on the Ray cluster at {address}: {len(found)} nodes", markup=False)

        room = f"on {placement.slots} GPUs"
        if not placement.gpus:
            room = f"{min(placement.slots, len(to_run))} side by side"
        console.print(f"  {len(to_run)} to run, {room}")
        display = until_done.enter_context(Display(board, console))
        interruption = until_done.enter_context(Interruption())
        try:
            run_all(
                RunTrainable,
                offers,
                lambda: slots_of(living(), placement, slots),
                placement.holds,
                lambda event: display.event(event.run_id, event.kind, event.report),
            )
        except KeyboardInterrupt:
            return interruption.code
        except Exception:
            living()  # says so where the cause is that Ray itself is gone
            raise
    skipped = len(actions) - len(to_run)
    for run_id in board.runs:
        if run_id not in board.ended:
            board.ended[run_id] = "cancelled" if run_id in board.running else "not started"
    if board.resumed:
        steps = sorted(board.resumed.values())
        span = f"step {steps[0]}" if steps[0] == steps[-1] else f"steps {steps[0]} to {steps[-1]}"
        runs = "1 run" if len(steps) == 1 else f"{len(steps)} runs"
        console.print(f"{runs} resumed from checkpoints of {span}")
    code = _close(sweep, board.ended, board.errors, skipped, as_json, console)
    if code != INTERRUPTED:
        return code
    for line in _kept(store, list(board.running)):
        console.print(line, markup=False)
    return interruption.code


def _here(slots: int | None) -> tuple[Placement, float | None]:
    """Return the placement on this machine, and the bytes of its smallest GPU."""
    from orchestrator.connection.nodes import gpu_bytes, gpu_count
    from orchestrator.sizing.placement import Machine, place

    machine = Machine(os.cpu_count() or 1, gpu_count())
    return place(machine, slots), gpu_bytes() if machine.gpus else None


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


def _kept(store: Store, stopped: list[str]) -> list[str]:
    """Return a line that says up to where the runs that were stopped have been kept."""
    standing = ledger(store)
    steps = sorted(standing(run_id).checkpoint for run_id in stopped)
    if not steps:
        return []
    return [
        f"{len(steps)} running: kept up to step {', '.join(map(str, steps[:8]))}"
        + (f" and {len(steps) - 8} more" if steps[8:] else "")
    ]


def _changes(sweep: Sweep, store: Store) -> list[str]:
    """Return what changed since the store last ran this sweep, a line each."""
    if sweep.name not in store.sweep_names():
        return []
    try:
        before = store.load_sweep(sweep.name)
    except UserError:
        return ["what the store recorded of this sweep cannot be read: it is written anew"]
    changes = compare_sweeps(before.runs, sweep.runs)
    if not changes.any:
        return []
    lines = [
        f"the sweep has changed: {changes.same} runs as before, {changes.changed} changed,"
        f" {changes.added} added, {len(changes.gone)} no longer in it (kept in the store)"
    ]
    for path, (old, new, count) in changes.fields.items():
        lines.append(f"  {path}: {old} -> {new} in {count} runs")
    return lines


def _close(
    sweep: Sweep,
    ended: dict[str, str],
    errors: dict[str, str],
    skipped: int,
    as_json: bool,
    console: Any,
) -> int:
    counts = {s: sum(1 for e in ended.values() if e == s) for s in sorted(set(ended.values()))}
    if as_json:
        summary = {"sweep": sweep.name, "runs": ended, "errors": errors, "skipped": skipped}
        click.echo(json.dumps(summary, indent=1))
    if ended:
        said = ", ".join(f"{count} {status}" for status, count in counts.items())
        console.print(f"{sweep.name}: {said}" + (f", {skipped} skipped" if skipped else ""))
    if counts.get("cancelled") or counts.get("not started"):
        console.print("interrupted: finished runs are kept; the same command runs the rest")
        return INTERRUPTED
    if counts.get("failed"):
        console.print("the traceback of a failed run: runs/<run id>/attempts/ in the store")
        return 1
    return 0


def location_of(store: Store) -> str:
    """Return the store's place as a person would write it here."""
    if not isinstance(store.root, Path):
        return store.location
    relative = os.path.relpath(store.root)
    return str(store.root) if relative.startswith("..") else f"./{relative}"
