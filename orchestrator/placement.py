"""How many runs share a machine, and what each gets."""

from __future__ import annotations

from dataclasses import dataclass


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
