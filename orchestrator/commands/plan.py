"""``depthsweep plan``: what a sweep would run and what it needs; starts nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from orchestrator.display.actions_text import print_actions
from orchestrator.display.output import require_file, wrapped
from orchestrator.display.placement_table import placement_data, placement_lines
from orchestrator.display.plan_table import needs_lines, plan_table
from orchestrator.display.power_text import decides_data, decides_line
from orchestrator.display.simulation_text import simulation_data, simulation_lines
from orchestrator.ledger.kept_weights import without_weights
from orchestrator.ledger.recovery import decide, decide_measurements, ledger_of
from orchestrator.notification import asked
from orchestrator.options import names_sweep, sweep_of
from orchestrator.policy.priorities import weights_for
from orchestrator.policy.simulation import Schedule
from orchestrator.policy.simulation import simulate as simulate_runs
from orchestrator.shell.completion import SWEEP_OR_FILE
from orchestrator.sizing.choice import Host, require_feasible
from orchestrator.sizing.cost import estimate
from orchestrator.sizing.estimates import NOTHING_MEASURED, line_up, measure
from orchestrator.sizing.gpu_pool import GpuPool, gpu_pool
from orchestrator.sizing.memory import GIB
from orchestrator.sizing.tracer import tracing
from sweeps.declaration.expand import Sweep
from sweeps.errors import UserError
from sweeps.plugins.opened import require_at_hand
from sweeps.sources.content import require_sources
from sweeps.store.store import Store


@click.command("plan")
@click.argument("sweep", shell_complete=SWEEP_OR_FILE)
@click.option("--store", "location", help="Say what this store holds of it (NAME: ./store).")
@click.option(
    "--gpus",
    "pool",
    type=gpu_pool,
    metavar="COUNTxGIB[/PER_NODE][@NODE_GIB]",
    help="Place the runs on these: 8x80 is 8 GPUs of 80 GiB; nodes have 8 unless it says, and"
    " 8x80@1024 that they have 1024 GiB of memory.",
)
@click.option("--simulate", is_flag=True, help="Also say how long --gpus take for what is left.")
@click.option("--gantt", metavar="FILE.html", help="Draw the simulated schedule (with --simulate).")
@click.option("--json", "as_json", is_flag=True, help="Print the plan as JSON, with every run.")
def command(
    sweep: str,
    location: str | None,
    pool: GpuPool | None,
    simulate: bool,
    gantt: str | None,
    as_json: bool,
) -> int:
    """Show what SWEEP would run.

    Of a file: by model, objective and control, and what that needs. Of a sweep that the store
    knows, by its name: what would happen to each run, and why.
    """
    if simulate and pool is None:
        raise UserError("--simulate needs the GPUs to simulate: --gpus 8x80")
    if gantt is not None and not simulate:
        raise UserError("--gantt draws a simulated schedule: add --simulate --gpus 8x80")
    if gantt is not None:
        require_file(gantt, "a page beside the plan", "--gantt")
    found, place = sweep_of(sweep, location)
    if names_sweep(sweep) and place is not None and pool is None:
        _plan_named(found, place, as_json)
    else:
        with tracing(lambda text: click.echo(text, err=True)):
            require_feasible(found.runs)
            _plan(found, place, pool, simulate, gantt, as_json)
    if not as_json:
        for line in decides_line(found.runs):
            click.echo(line)
    return 0


def _plan_named(sweep: Sweep, location: str, as_json: bool) -> None:
    if not as_json:
        click.echo(f"{sweep.name}: {len(sweep.runs)} runs in {location}")
    standing = ledger_of(Store.at(location), sweep)
    actions = decide(sweep.runs, standing)
    measures = decide_measurements(sweep.to_measure, standing)
    print_actions(actions, measures, as_json)
    unkept = without_weights(sweep.name, actions, Store.at(location))
    if unkept is not None:
        click.echo("\n".join(wrapped(f"! {unkept}")), err=True)
    starting = [action.run for action in actions if action.kind == "run"]
    starting += [one.measurement.run for one in measures if one.kind == "measure"]
    try:
        require_sources(starting)
        require_at_hand(starting)
    except UserError as error:
        said = f"! resume refuses to start: {error}"
        click.echo("\n".join(wrapped(said)), err=True)


def _plan(
    sweep: Sweep,
    location: str | None,
    pool: GpuPool | None,
    simulate: bool,
    gantt: str | None,
    as_json: bool,
) -> None:
    done = _done(sweep, location)
    simulated = None
    if simulate and pool is not None:
        simulated = _simulated(sweep, done, location, pool)
        if gantt is not None:
            _draw(sweep, simulated[0], simulation_lines(simulated[0], pool, simulated[1]), gantt)
    if as_json:
        data = _as_data(sweep, done)
        if pool is not None:
            data["placement"] = placement_data(sweep, pool)
        if simulated is not None:
            data["simulation"] = simulation_data(*simulated)
        click.echo(json.dumps(data, indent=1))
        return
    click.echo(f"{sweep.name}: {len(sweep.runs)} runs")
    if sweep.description:
        click.echo("\n".join(wrapped(sweep.description, rest="")))
    click.echo()
    click.echo("\n".join(plan_table(sweep)))
    click.echo()
    click.echo("\n".join(needs_lines(sweep)))
    if sweep.notify is not None:
        click.echo(f"  when it ends {asked(sweep.notify)}")
    if pool is not None:
        click.echo()
        click.echo("\n".join(placement_lines(sweep, pool)))
    if simulated is not None and pool is not None:
        click.echo()
        click.echo("\n".join(simulation_lines(simulated[0], pool, simulated[1])))
    if gantt is not None:
        click.echo(f"  chart        {gantt}")
    if location is not None:
        kept = sum(1 for run in sweep.runs if done[run.run_id])
        click.echo(f"in {location}: {kept} have a result, {len(sweep.runs) - kept} to run")


def _simulated(
    sweep: Sweep, done: dict[str, str | None], location: str | None, pool: GpuPool
) -> tuple[Schedule, int]:
    """Return the schedule of the runs without a result, and how many estimates are measured."""
    left = [run for run in sweep.runs if not done[run.run_id]]
    measured = NOTHING_MEASURED
    if location is not None:
        measured = measure(Store.at(location), sweep.runs)
    size = pool.gib * GIB
    hosts: dict[float | None, Host] = {} if pool.host is None else {size: pool.host}
    waiting = [one.waiting for one in line_up(left, {size: pool.count}, measured, hosts=hosts)]
    known = sum(1 for run in left if measured.seconds(run) is not None)
    return simulate_runs(waiting, pool.nodes, weights_for(waiting, pool.nodes)), known


def _draw(sweep: Sweep, done: Schedule, summary: list[str], path: str) -> None:
    from orchestrator.display.gantt import gantt_page

    page = gantt_page(sweep.name, done, sweep.by_id, summary)
    try:
        Path(path).write_text(page, encoding="utf-8")
    except OSError as error:
        raise UserError(f"--gantt {path}: cannot be written ({error.strerror})") from None


def _done(sweep: Sweep, location: str | None) -> dict[str, str | None]:
    """Return of each run and measurement, by its id, the result the store has."""
    if location is None:
        ids = [run.run_id for run in sweep.runs] + [one.work_id for one in sweep.to_measure]
        return dict.fromkeys(ids, None)
    standing = ledger_of(Store.at(location), sweep)
    found = {
        one.measurement.work_id: one.why if one.kind == "skip" else None
        for one in decide_measurements(sweep.to_measure, standing)
    }
    for action in decide(sweep.runs, standing):
        found[action.run.run_id] = action.reason if action.kind == "skip" else None
    return found


def _as_data(sweep: Sweep, done: dict[str, str | None]) -> dict[str, Any]:
    return {
        "sweep": sweep.name,
        "decides": decides_data(sweep.runs),
        "measurements": [
            {"work_id": one.work_id, "label": one.label, "result": done[one.work_id]}
            for one in sweep.to_measure
        ],
        "runs": [
            {
                "run_id": run.run_id,
                "model": run.model.name,
                "objective": run.objective.label,
                "control": run.control.kind,
                "control_setting": run.control.setting,
                "seed": run.seed,
                "flops": estimate(run).flops,
                "parameters": estimate(run).parameters,
                "state_bytes": estimate(run).state_bytes,
                "result": done[run.run_id],
            }
            for run in sweep.runs
        ],
    }
