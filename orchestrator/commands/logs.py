"""``depthsweep logs``: what the job of a sweep said, or a run or measurement by attempts."""

from __future__ import annotations

import re
import time

import click

from orchestrator.shell.completion import SWEEP_OR_RUN
from sweeps.attempts.living import Vigil
from sweeps.attempts.run_log import event_text, read_events
from sweeps.errors import UserError, nearest
from sweeps.files.whole_files import Place
from sweeps.spec import is_measurement
from sweeps.store.store import Store
from sweeps.store.sweep_records import job_records
from sweeps.versions.version_id import SweepName

POLL_SECONDS = 0.5
WORK_ID = re.compile(r"([a-z]+-)?[0-9a-f]{12}")


@click.command("logs")
@click.argument("name", metavar="NAME|ID", shell_complete=SWEEP_OR_RUN)
@click.option("--store", "location", default="./store", show_default=True, help="Results folder.")
@click.option("--attempt", type=click.IntRange(min=1), help="Which attempt (default: the newest).")
@click.option("-f", "--follow", is_flag=True, help="Go on until the attempt ends.")
@click.option("--cluster", "profile_name", help="Profile (default: where it was submitted).")
@click.option("--json", "as_json", is_flag=True, help="Print a run's events as JSON lines.")
def command(
    name: str,
    location: str,
    attempt: int | None,
    follow: bool,
    profile_name: str | None,
    as_json: bool,
) -> int:
    """Show what the job of sweep NAME said on its cluster, or the log of run or measurement ID."""
    if WORK_ID.fullmatch(name) and ("-" not in name or is_measurement(name)):
        return _run_log(name, location, attempt, follow, as_json)
    if attempt or as_json:
        raise UserError("--attempt and --json are for the log of one run: give its ID")
    from orchestrator.jobs.submission import find

    if profile_name is None:
        _refuse_a_part_of_an_id(name, location)
    found = find(name, location, profile_name)
    said = (
        found.queue.follow(found.job.submission_id)
        if follow
        else [found.queue.log(found.job.submission_id)]
    )
    for text in said:
        click.echo(text, nl=False)
    return 0


def _refuse_a_part_of_an_id(name: str, location: str) -> None:
    """Raise UserError naming the run or measurement whose id a name is like, if it is of no sweep
    and like that of none."""
    store = Store.at(location)
    sweeps = store.sweep_names()
    if SweepName.parse(name).name in sweeps or job_records(store, name):
        return
    ids = [folder.run_id for folder in (*store.runs(), *store.measurements())]
    begun = (one for one in ids if one.startswith(name))
    near = next(begun, None) or nearest(name, [*sweeps, *ids])
    if near in ids:
        raise UserError(
            f"store {store.location}: no sweep and no id {name!r}; did you mean {near!r}?"
        )


def _run_log(run_id: str, location: str, attempt: int | None, follow: bool, as_json: bool) -> int:
    folder = Store.at(location).known(run_id)
    numbers = [record["attempt"] for record in folder.attempts()]
    number = attempt or numbers[-1]
    if number not in numbers:
        raise UserError(f"{run_id} has attempts {numbers[0]} to {numbers[-1]}, not {number}")
    shown, vigil = 0, Vigil(folder)
    while True:
        going_on = follow and _goes_on(vigil, number)
        shown = _show(folder.log_path(number), shown, as_json)
        if not going_on:
            break
        time.sleep(POLL_SECONDS)
    record = folder.attempts()[number - 1]
    if record["error"] and not as_json:
        click.echo(record["error"].rstrip())
    return 0


def _goes_on(vigil: Vigil, number: int) -> bool:
    alive, seen = vigil.look() != "gone", vigil.sighting
    return alive and seen is not None and seen.number == number


def _show(path: Place, shown: int, as_json: bool) -> int:
    """Print the events after the first ``shown``; return how many there are."""
    if not path.is_file():
        return shown
    if as_json:
        lines = path.read_text(encoding="utf-8").splitlines()
    else:
        lines = [event_text(event) for event in read_events(path)]
    for line in lines[shown:]:
        click.echo(line)
    return len(lines)
