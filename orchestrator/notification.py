"""Somebody is told when a sweep ends or breaks off: a command is run, or a URL is posted to.

Where it goes is an option of the command line, ``DEPTHSWEEP_NOTIFY``, or the ``notify:`` section
of the sweep file; who is named in two places is told once. It decides no result, and whatever goes
wrong with it is said in one line and changes nothing of the sweep. A driver that is killed outright
tells nobody.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import threading
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

import click

from orchestrator.ledger.sweep_account import SweepResult
from sweeps.declaration.entries.notify import Notify, is_address, looks_like_address
from sweeps.declaration.expand import Sweep
from sweeps.declaration.settings import RunLabels
from sweeps.errors import UserError

# A command may take this long, a server this long for its answer.
COMMAND_SECONDS, URL_SECONDS = 60.0, 15.0
# Failed runs that are named one by one.
NAMED = 10
# The word with which nobody is told.
NOBODY = "none"

Say = Callable[[str], object]


def _valid(context: click.Context, option: click.Parameter, said: str | None) -> str | None:
    del context, option
    if said is None or not said.strip():
        return None
    if looks_like_address(said) and not is_address(said):
        raise UserError("--notify: give an http:// or https:// URL, or a command")
    return said


NOTIFY = click.option(
    "--notify",
    envvar="DEPTHSWEEP_NOTIFY",
    callback=_valid,
    metavar="COMMAND|URL",
    help="Tell it, too, when the sweep ends or breaks off: JSON on standard input, or posted; none:"
    " nobody, whatever the sweep file says.",
)


@contextlib.contextmanager
def notifying(target: str | None, sweep: Sweep, store: str) -> Iterator[Callable[[Any], None]]:
    """Yield where a sweep's result is to be given; tell ``target``, and whom the sweep names, of
    it, or of the error, at the end."""
    targets = targets_of(target, sweep.notify, _aloud)
    results: list[SweepResult] = []
    try:
        yield results.append
    except BaseException as error:
        _tell_each(targets, broken_off(sweep, store, error))
        raise
    _tell_each(targets, told(sweep, store, results[0]))


def targets_of(option: str | None, section: Notify | None, say: Say) -> dict[str, bool]:
    """Return who is to be told, and of each whether it is told of failures alone.

    ``option`` is told of every end; ``NOBODY`` takes the place of all. A variable that is not set
    is said at once, while somebody looks.
    """
    if option == NOBODY:
        return {}
    found = {} if option is None else {option: False}
    if section is None:
        return found
    named = section.command or section.url or os.environ.get(section.variable or "", "").strip()
    if not named:
        say(f"notify: {section.variable} is not set here: nobody is told through it")
    elif looks_like_address(named) and not is_address(named):
        say(f"notify: {section.variable} is no http:// or https:// URL: nobody is told through it")
    else:
        found.setdefault(named, section.when == "failure")
    return found


def asked(section: Notify) -> str:
    """Return what a sweep file asks for, in words: a command of it is run where the driver is."""
    what = f"`{section.command}` is run here"
    if section.url is not None:
        what = f"{_shown(section.url)} is told"
    if section.variable is not None:
        what = f"what ${section.variable} says is told"
    return f"{what}{', if not as it should' if section.when == 'failure' else ''} (notify:)"


def _tell_each(targets: dict[str, bool], page: dict[str, Any]) -> None:
    for target, failures_only in targets.items():
        if not failures_only or page["outcome"] != "finished":
            tell(target, page, _aloud)


def _aloud(text: str) -> None:
    click.echo(text, err=True)


def told(sweep: Sweep, store: str, result: SweepResult) -> dict[str, Any]:
    """Return what is told of a sweep that ended.

    ``text`` is one line for a person, under the key that chat services read; ``outcome`` is
    finished, failed, stopped or interrupted; ``runs`` counts them by status; ``failed`` has the
    first failed runs: id, what they are, error.
    """
    runs = dict(sorted(Counter(result.ended.values()).items()))
    outcome = "finished"
    if result.interrupted is not None:
        outcome = "interrupted"
    elif result.stopped is not None:
        outcome = "stopped"
    elif result.exit_code:
        outcome = "failed"
    said = ", ".join(f"{count} {status}" for status, count in runs.items()) or "nothing left to run"
    label, by_id = RunLabels(sweep.runs), sweep.by_id
    wrong = [i for i, status in result.ended.items() if status == "failed" and i in by_id]
    failed = [
        {"run_id": i, "what": label(by_id[i]), "error": result.errors.get(i)} for i in wrong[:NAMED]
    ]
    first = f"; {failed[0]['what']}: {failed[0]['error']}" if failed else ""
    return {
        "text": f"depthsweep: {sweep.name} {outcome}: {said}{first}",
        "sweep": sweep.name,
        "store": store,
        "outcome": outcome,
        "exit_code": result.exit_code,
        "runs": runs,
        "skipped": result.skipped,
        "failed": failed,
    }


def broken_off(sweep: Sweep, store: str, error: BaseException) -> dict[str, Any]:
    """Return what is told of a sweep that an error ended."""
    interrupted = isinstance(error, KeyboardInterrupt)
    outcome = "interrupted" if interrupted else "failed"
    said = " ".join(str(error).split()) or type(error).__name__
    return {
        "text": f"depthsweep: {sweep.name} {outcome}: {said}",
        "sweep": sweep.name,
        "store": store,
        "outcome": outcome,
        "exit_code": 130 if interrupted else 2 if isinstance(error, UserError) else 1,
        "runs": {},
        "skipped": 0,
        "failed": [],
    }


def tell(target: str, page: dict[str, Any], say: Say) -> None:
    """Run the command or post to the URL, in bounded time; say what went wrong, and raise
    nothing."""
    try:
        if urlsplit(target).scheme in ("http", "https"):
            wrong = _post(target, page)
        else:
            wrong = _run(target, page)
    except Exception as error:
        wrong = _reason(error)
    if wrong is not None:
        say(f"notify: {_shown(target)}: {wrong}; nothing of the sweep is changed by that")


def _post(url: str, page: dict[str, Any]) -> str | None:
    """Post a page; return what went wrong. A server that answers slowly, byte by byte, is left."""
    wrong: list[str | None] = []

    def send() -> None:
        body = json.dumps(page).encode()
        headers = {"Content-Type": "application/json", "User-Agent": "depthsweep"}
        request = urllib.request.Request(url, body, headers, method="POST")
        try:
            with urllib.request.urlopen(request, timeout=URL_SECONDS):
                wrong.append(None)
        except Exception as error:
            wrong.append(_reason(error))

    thread = threading.Thread(target=send, name="notify", daemon=True)
    thread.start()
    thread.join(URL_SECONDS)
    return wrong[0] if wrong else f"no answer in {URL_SECONDS:g} s"


def _run(command: str, page: dict[str, Any]) -> str | None:
    """Give a page to a command on standard input, its line in DEPTHSWEEP_TEXT; return what went
    wrong."""
    environment = {
        **os.environ,
        "DEPTHSWEEP_TEXT": page["text"],
        "DEPTHSWEEP_OUTCOME": page["outcome"],
    }
    process = subprocess.Popen(
        command,
        shell=True,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=2,  # standard output may be for JSON
        text=True,
        start_new_session=True,
    )
    try:
        # A command that reads nothing has closed its end: that is its own affair.
        process.communicate(json.dumps(page) + "\n", timeout=COMMAND_SECONDS)
    except subprocess.TimeoutExpired:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        return f"it took longer than {COMMAND_SECONDS:g} s and was ended"
    return f"exit code {process.returncode}" if process.returncode else None


def _reason(error: Exception) -> str:
    if isinstance(error, urllib.error.HTTPError):
        return f"HTTP {error.code}"
    if isinstance(error, urllib.error.URLError):
        return str(error.reason)
    return " ".join(str(error).split()) or type(error).__name__


def _shown(target: str) -> str:
    """Return a target without what may be secret in it: of a URL the server alone."""
    parts = urlsplit(target)
    if parts.scheme in ("http", "https"):
        return f"{parts.scheme}://{parts.hostname}"
    return target.split()[0]
