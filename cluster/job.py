"""One sweep on its way to a cluster: what a rendered file needs to know of it."""

from __future__ import annotations

import shlex
from dataclasses import dataclass


@dataclass(frozen=True)
class Job:
    """A sweep, where its results go, and the id under which the cluster knows it.

    ``version`` is a digest of which runs the sweep stands for, ``options`` are further arguments of
    its driver. ``notice_seconds`` is what its largest run should be given between the notice that
    a machine is taken away and its end.
    """

    submission_id: str
    sweep: str
    version: str
    sweep_file: str
    sweep_text: str
    store: str
    options: tuple[str, ...] = ()
    notice_seconds: int = 90

    def command(self, sweep_file: str | None = None) -> list[str]:
        """Return what the cluster runs: it starts the sweep, or goes on with what is left of it."""
        run = ["depthsweep", "run", sweep_file or self.sweep_file, *self.options]
        return [*run, "--address", "auto", "--store", self.store]

    def shell(self, sweep_file: str | None = None) -> str:
        return shlex.join(self.command(sweep_file))
