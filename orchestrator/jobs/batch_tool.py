"""Programs of a cluster's own (kubectl, sbatch, …): run when there, named when not."""

from __future__ import annotations

import shlex
import shutil
import subprocess

from sweeps.errors import UserError

ANSWER_SECONDS = 120.0


def run_tool(command: list[str], text: str | None = None) -> str:
    """Return what a program printed; ``text`` is given to it on its input.

    Raises UserError when it is not installed or fails, with the command to run where it is.
    """
    shown = shlex.join(command)
    if shutil.which(command[0]) is None:
        raise UserError(f"{command[0]} is not on PATH here; where it is, run: {shown}")
    try:
        done = subprocess.run(
            command, input=text, capture_output=True, text=True, timeout=ANSWER_SECONDS
        )
    except subprocess.TimeoutExpired:
        raise UserError(f"`{shown}` gave no answer in {ANSWER_SECONDS:.0f} s") from None
    if done.returncode:
        detail = " ".join((done.stderr or done.stdout).split())[:300]
        raise UserError(f"`{shown}` failed ({done.returncode}): {detail}")
    return done.stdout
