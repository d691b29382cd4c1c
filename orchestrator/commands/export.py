"""``depthsweep export``: a sweep to trackers, or a trained model to a folder."""

from __future__ import annotations

from pathlib import Path

import click

from orchestrator.display.output import require_file
from orchestrator.options import sweep_of
from orchestrator.shell.completion import SWEEP_OR_RUN
from sweeps.declaration.entries.track import TRACKERS
from sweeps.errors import UserError


@click.command("export")
@click.argument("what", metavar="SWEEP|RUN_ID", shell_complete=SWEEP_OR_RUN)
@click.option(
    "--to",
    "kinds",
    multiple=True,
    type=click.Choice(TRACKERS),
    help="Of a sweep: the tracker to show its runs in; repeatable.",
)
@click.option(
    "-o", "--output", "folder", type=click.Path(path_type=Path), help="Of a run: a new folder."
)
@click.option(
    "--merge", is_flag=True, help="With -o: add the adapter to the weights it stands beside."
)
@click.option("--store", "location", default="./store", show_default=True, help="Results folder.")
def command(
    what: str, kinds: tuple[str, ...], folder: Path | None, merge: bool, location: str
) -> None:
    """Show the runs of a sweep in a tracker (--to), or write the model that a run ended with to a
    folder that transformers reads (-o).

    To a tracker goes all that has begun, each run once: where tracking stopped half-way, or an
    export did, this adds what is missing. Options come from the sweep's `track:` section.

    A model can be written of a run that kept its weights (`keep: final` or `keep: best` in the
    sweep file). An adapter is written in peft's layout, or merged into the model with --merge.
    """
    if (folder is None) == (not kinds):
        raise UserError("export takes --to and a sweep, or -o and the id of a run")
    if folder is not None:
        require_file(str(folder), "the folder of a model")
        _to_folder(what, folder, merge, location)
        return
    if merge:
        raise UserError("--merge goes with -o and the id of a run")
    _to_trackers(what, kinds, location)


def _to_trackers(sweep_file_or_name: str, kinds: tuple[str, ...], location: str) -> None:
    from orchestrator.tracking.feed import export
    from orchestrator.tracking.kinds import make_trackers
    from sweeps.store.store import Store

    sweep, _ = sweep_of(sweep_file_or_name, location)
    store = Store.at(location)
    for tracker in make_trackers(sweep.track.only(dict.fromkeys(kinds)), sweep, store):
        done = export(tracker, sweep, store)
        click.echo(f"{sweep.name}: {done} to {tracker.kind}")


def _to_folder(run_id: str, folder: Path, merge: bool, location: str) -> None:
    from sweeps.store.store import Store
    from workers.weights.kept import kept_model, recorded_run
    from workers.weights.model_folder import write_model_folder

    store = Store.at(location)
    if run_id.partition("@")[0] in store.sweep_names():
        raise UserError(
            f"-o takes the id of a run, and {run_id} is a sweep: `depthsweep ls {run_id}` shows"
            " the ids of its runs"
        )
    run = recorded_run(store.known(run_id))
    trained = kept_model(run, store)
    files = write_model_folder(trained, store.cache, folder, merge=merge)
    click.echo(f"{run.describe()}, after step {trained.step}: {', '.join(files)} in {folder}")
