"""The ``depthsweep`` command: what it offers, and how an error reaches the user.

Each command stands in a file of ``orchestrator.commands`` and is imported only when it is called,
so that ``--help`` and ``plan`` start neither torch nor ray.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import io
import os
import sys
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

from orchestrator.shell.own_package import require_own_sweeps

require_own_sweeps()  # what comes next would fail in words that say nothing of it

from sweeps.errors import UserError, closest  # noqa: E402
from sweeps.files.patience import REFUSED, remedy  # noqa: E402
from sweeps.liveness.watch import telling  # noqa: E402

# Name, file of orchestrator.commands, line of the help page: known without importing the command.
COMMANDS: dict[str, tuple[str, str]] = {
    "init": ("init", "Write a first sweep file for your model and data."),
    "plan": ("plan", "Show what a sweep would run and need; start nothing."),
    "power": ("power", "Show what a sweep can decide, and the seeds it takes."),
    "run": ("run", "Run a sweep on this machine; finished runs are skipped."),
    "resume": ("resume", "Run what is left of a sweep the store knows."),
    "submit": ("submit", "Give a sweep to a cluster; return at once."),
    "cancel": ("cancel", "Stop a sweep's job on its cluster; what is done is kept."),
    "status": ("status", "Show how far a sweep is, from the store and its cluster."),
    "ls": ("ls", "List what a store holds: sweeps, versions, runs, sizes."),
    "profile": ("profile", "Show the depth profiles of a sweep, per condition."),
    "compare": ("compare", "Compare two controls: persists, collapses or reverses."),
    "diff": ("diff", "Show in what two sweeps differ: settings and findings."),
    "claims": ("claims", "Check the claims that a sweep brings."),
    "report": ("report", "Write one self-contained HTML report of a sweep."),
    "distance": ("distance", "Measure how far each objective is from pretraining."),
    "measure": ("measure", "Probe weights that were kept on another text, without training."),
    "watch": ("watch", "Serve the report on this machine while the sweep runs."),
    "digest": ("digest", "Print a checksum of a sweep's rows, to compare two stores."),
    "export": ("export", "Show a sweep in a tracker, or write a run's model to a folder."),
    "query": ("query", "Ask the store's tables in SQL."),
    "logs": ("logs", "Show what a sweep's job or a run said."),
    "forget": ("forget", "Throw away what the store holds of one run."),
    "gc": ("gc", "Remove what no record of a store lists any more."),
    "pull": ("pull", "Bring a sweep, or all, of another store into this one."),
    "merge": ("merge", "Bring several stores into one."),
    "doctor": ("doctor", "Check every record of a store; mend with --fix."),
    "cluster": ("cluster", "List and render cluster profiles; start a local one."),
    "schema": ("schema", "Print the JSON Schema of a sweep file, or of what --json says."),
    "man": ("man", "Print the manual page."),
}

# Set where a shell asks what may come next.
COMPLETES = "_DEPTHSWEEP_COMPLETE"


class _Commands(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        del ctx
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        del ctx
        if cmd_name not in COMMANDS:
            raise UserError(f"no command {cmd_name!r}; {closest(cmd_name, list(COMMANDS))}")
        module, _ = COMMANDS[cmd_name]
        command = importlib.import_module(f"orchestrator.commands.{module}").command
        assert isinstance(command, click.Command)
        return command

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Return the commands that a word begins, none of them imported, and options."""
        found = {name: line for name, (_, line) in COMMANDS.items() if name.startswith(incomplete)}
        options = click.Command.shell_complete(self, ctx, incomplete)
        return [*(CompletionItem(name, help=line) for name, line in found.items()), *options]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="depthsweep")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
@click.pass_context
def cli(context: click.Context, /, **_: Any) -> None:
    """Fine-tuning studies in the hundreds of runs: where in depth do representations change?"""
    context.with_resource(telling(_say_watching))


def _say_watching(number: int, seconds: float) -> None:
    """Say on stderr what a command waits for."""
    what = "an attempt's heartbeat" if number == 1 else f"the heartbeats of {number} attempts"
    click.echo(f"watching {what}, for {seconds:g} s at most", err=True)


def _lacks_a_right(error: BaseException) -> str | None:
    """Return what to do about a file that this user may not read or write; None for another
    error."""
    if not isinstance(error, OSError) or error.errno not in REFUSED or not error.filename:
        return None
    place = Path(os.fsdecode(error.filename))
    there = next(one for one in (place, *place.parents) if one.exists())
    try:
        owner = there.owner()
    except (KeyError, OSError):
        owner = f"user {there.lstat().st_uid}"
    right = "ask for the right, which a group of both and umask 002 give"
    advice = remedy(error, f"{there} belongs to {owner}: {right}")
    return f"{place}: {error.strerror}; {advice}, or name a store of your own with --store"


def _print_in_any_encoding() -> None:
    """Have a question mark printed where stdout's encoding lacks a drawn character: what else a
    page says is worth more than its end at a sparkline. stderr shows such characters escaped by
    itself, and an ASCII stdout click takes for UTF-8."""
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="replace")


def main() -> None:
    """Run the command line: exit code 2 for a user's mistake, 1 for a failure."""
    _print_in_any_encoding()
    # The records of thousands of runs are read once and kept: looking for garbage among them takes
    # a quarter of a command's time after every 700 objects, and a tenth after every 200,000.
    gc.set_threshold(2_000_000, 20, 20)
    if COMPLETES in os.environ:
        with contextlib.suppress(UserError):  # a shell that completes shows no message
            cli.main(args=[], prog_name="depthsweep")
        sys.exit(1)
    debug = "--debug" in sys.argv[1:]
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    try:
        returned = cli.main(args=arguments, prog_name="depthsweep", standalone_mode=False)
        code = returned if isinstance(returned, int) else 0
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except (click.Abort, KeyboardInterrupt) as error:
        from orchestrator.tuning.interruption import Terminated

        click.echo("interrupted", err=True)
        code = 143 if isinstance(error.__cause__, Terminated) else 130
    except UserError as error:
        if debug:
            raise
        click.echo(f"depthsweep: {error}", err=True)
        code = 2
    except BaseException as error:
        # A panic of Polars, on a file that is damaged, is no Exception.
        if debug or not (isinstance(error, Exception) or type(error).__name__ == "PanicException"):
            raise
        refused = _lacks_a_right(error)
        if refused is not None:
            click.echo(f"depthsweep: {refused}", err=True)
            sys.exit(2)
        text = " ".join(str(error).split()) or type(error).__name__
        if not isinstance(error, Exception):
            text = f"a file of the store is damaged ({text}); `depthsweep doctor` says which"
        click.echo(f"depthsweep: {text} (--debug shows where)", err=True)
        code = 1
    sys.exit(code)
