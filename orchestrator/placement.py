"""How many runs share a machine, and what each gets."""

from __future__ import annotations

from dataclasses import dataclass

from sweeps.errors import UserError
from sweeps.spec import RunSpec


@dataclass(frozen=True)
class Machine:
    """What this machine has to give."""

    cpus: int
    gpus: int


@dataclass(frozen=True)
class Placement:
    """What each run of a sweep reserves: whole CPUs, and a GPU where there is one.

    ``threads`` is how many CPU threads its arithmetic uses. On a CPU it is one, whatever the
    machine: the order of a parallel reduction depends on the thread count, and with it the last
    bits of every row.
    """

    slots: int
    cpus: int
    gpus: int
    threads: int


def place(machine: Machine, slots: int | None = None) -> Placement:
    """Return the placement of single-process runs; ``slots`` caps how many run side by side."""
    if machine.gpus:
        side_by_side = min(machine.gpus, slots or machine.gpus)
        cpus = max(1, machine.cpus // side_by_side)
        return Placement(side_by_side, cpus, 1, cpus)
    return Placement(min(machine.cpus, slots or machine.cpus), 1, 0, 1)


def rank_processes(run: RunSpec, slots: int) -> int:
    """Return how many processes of its own a run needs: none when it trains in the trial's.

    Raises UserError when it asks for more than can run side by side.
    """
    execution = run.execution.settled()
    if execution.engine == "plain":
        return 0
    processes = execution.processes or 1
    if processes > slots:
        raise UserError(
            f"run {run.run_id} ({run.describe()}) needs {processes} processes and {slots} can run"
            f" side by side here: set `processes: {slots}`, raise --slots, or use a larger machine"
        )
    return processes
