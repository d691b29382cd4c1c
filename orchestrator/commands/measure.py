"""``depthsweep measure``: weights that runs kept, on another probe text, without training."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

import click

from sweeps.declaration.expand import Sweep
from sweeps.errors import UserError
from sweeps.spec import Probe, RunSpec
from sweeps.store.store import Store


@click.command("measure")
@click.argument("what", nargs=-1, required=True, metavar="SWEEP|RUN_ID...")
@click.option("--probe", "file", required=True, help="The text to probe on: a file of texts.")
@click.option("--name", help="What the sweep of these measurements is called.")
@click.option("--store", "location", default="./store", show_default=True, help="Results folder.")
def command(what: tuple[str, ...], file: str, name: str | None, location: str) -> int:
    """Compare the weights that runs kept with what they began with, on another text.

    Runs that kept none (`keep: final`) are passed over where a whole sweep is asked for. What comes
    out has the ids of the runs with that probe, and is a sweep of its own in the store, for
    `profile`, `compare`, `report` and `query`.
    """
    from workers.ranks.process_group import ALONE
    from workers.weights.another_probe import measure_kept, on_another_probe
    from workers.weights.kept import kept_checkpoint

    store = Store.at(location)
    store.require_writable()
    probe = _probe(file)
    runs, of, single = _asked(what, store)
    found: dict[str, RunSpec] = {}
    for run in runs:
        other = on_another_probe(run, probe)
        if other.run_id == run.run_id:
            click.echo(f"{run.run_id} {run.describe()}: was probed on {file} already")
            continue
        try:
            kept_checkpoint(store.run(run.run_id), run)
        except UserError as error:
            if run.run_id in single:
                raise
            click.echo(f"passed over: {error}", err=True)
            continue
        measure_kept(run, other, store, ALONE.device())
        click.echo(f"{run.run_id} {run.describe()}: {other.run_id}")
        found[other.run_id] = other
    if not found:
        raise UserError(f"nothing to measure: no run of {', '.join(what)} has kept its weights")
    sweep = name or _called(of, file)
    store.save_sweep(_sweep(sweep, f"{', '.join(what)} on {file}", found.values(), store))
    click.echo(f"{len(found)} measured: `depthsweep profile {sweep}` shows them")
    return 0


def _probe(file: str) -> Probe:
    from sweeps.declaration.sources import check_local, resolve_data
    from sweeps.declaration.sweep_spec import DataEntry

    data = resolve_data(DataEntry(file=file), ("text",), Path())
    check_local(data, None)
    return Probe(data=data)


def _asked(what: Iterable[str], store: Store) -> tuple[list[RunSpec], str, set[str]]:
    """Return the runs that are meant, each once, what they are of, and those named by their id."""
    from workers.weights.kept import recorded_run

    names, found, single, of = store.sweep_names(), dict[str, RunSpec](), set[str](), []
    for one in what:
        if one.partition("@")[0] in names:
            runs = list(store.load_sweep(one).runs)
            of.append(one.partition("@")[0])
        else:
            runs = [recorded_run(store.known(one))]
            single.add(one)
        found |= {run.run_id: run for run in runs}
    return list(found.values()), of[0] if len(of) == 1 and not single else "weights", single


def _called(of: str, file: str) -> str:
    stem = re.sub(r"[^A-Za-z0-9._-]+", "-", Path(file).name.split(".")[0]).strip("-.")
    return f"{of}-on-{stem or 'text'}"[:80]


def _sweep(name: str, description: str, runs: Iterable[RunSpec], store: Store) -> Sweep:
    """Return the sweep of some measurements, with those that it had before."""
    there = list(store.load_sweep(name).runs) if name in store.sweep_names() else []
    every = {run.run_id: run for run in (*there, *runs)}
    text = f"# Weights that were kept, measured by `depthsweep measure`: {description}\n"
    return Sweep(name, description, text, tuple(every.values()), measurements=())
