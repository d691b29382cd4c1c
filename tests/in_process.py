"""The ``depthsweep`` command in this process, for commands that start none: a tenth of the time."""

import contextlib
import io
import os
import sys
from unittest import mock

from orchestrator.cli import main


def depthsweep(*words, folder, **environment):
    """Return what a command that is given in ``folder`` ends with: its exit code, and what it
    printed to stdout and to stderr."""
    printed, complained = io.StringIO(), io.StringIO()
    with (
        contextlib.chdir(folder),
        contextlib.redirect_stdout(printed),
        contextlib.redirect_stderr(complained),
        mock.patch.dict(os.environ, environment),
        mock.patch.object(sys, "argv", ["depthsweep", *words]),
        mock.patch("gc.set_threshold"),
    ):
        try:
            main()
        except SystemExit as end:
            return end.code, printed.getvalue(), complained.getvalue()
    raise AssertionError("the command does not end")
