"""What a check is, and the checks in the order of their worth: what a CPU cannot show.

To add one is to add an entry: a generator of ``Seen`` that is given a ``Place``, and the entry's
``option`` where it has one.
"""

from __future__ import annotations

import importlib
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch


@dataclass(frozen=True)
class Place:
    """Where checks run: ``device``, the CPU where there is no GPU; ``folder`` is the check's own.

    On a CPU everything is done in little, to see that it runs.
    """

    device: torch.device
    folder: Path

    @property
    def small(self) -> bool:
        return self.device.type == "cpu"


@dataclass(frozen=True)
class Seen:
    """One line: what was seen, and whether it is as it should be; ``ok`` is None for what was
    skipped, or is a figure that nothing is asked of. ``figures`` go into the JSON only."""

    text: str
    ok: bool | None = True
    figures: dict[str, Any] = field(default_factory=dict)


def skipped(why: str) -> Seen:
    return Seen(f"skipped: {why}", None)


def broken(what: str, error: Exception) -> Seen:
    """Return the line of one thing that raised, whose traceback goes to what the check prints."""
    traceback.print_exception(error)
    text = " ".join(f"{type(error).__name__}: {error}".split())
    return Seen(f"{what}: {text}"[:300], False)


@dataclass(frozen=True)
class Check:
    """One check. ``body`` is ``module:function`` below tests.gpu.

    ``expects`` are seconds on a large GPU, start of the process included: with less time left it is
    not begun; after ``limit`` it is ended. ``alone`` says that it measures time, or needs most of
    the memory. ``on_cpu`` says what is done of it where there is no GPU; empty for nothing.
    """

    name: str
    body: str
    expects: float
    limit: float
    option: str = ""
    alone: bool = False
    on_cpu: str = ""

    def seen(self, place: Place) -> Iterator[Seen]:
        module, _, function = self.body.partition(":")
        found: Callable[..., Iterator[Seen]] = getattr(
            importlib.import_module(f"tests.gpu.{module}"), function
        )
        options: list[Any] = [self.option] if self.option else []
        yield from found(place, *options)


LITTLE = "in little, on the CPU"
CHECKS: tuple[Check, ...] = (
    Check("environment", "device:environment", 12, 60, alone=True),
    Check("forked", "forked:one_and_two", 25, 90, on_cpu=LITTLE),
    Check("resumed", "forked:resumed", 30, 120, "plain", on_cpu=LITTLE),
    Check("resumed-zero", "forked:resumed", 40, 120, "deepspeed"),
    Check("parity-gpt2", "parity:parity", 35, 120, "gpt2", on_cpu=LITTLE),
    Check("parity-bert", "parity:parity", 35, 120, "bert"),
    Check("parity-opt", "parity:parity", 35, 120, "opt"),
    Check("parity-mamba", "parity:parity", 40, 150, "mamba"),
    Check("controls", "controls:plain_engine", 20, 90, on_cpu=LITTLE),
    Check("controls-zero", "controls:deepspeed_engine", 30, 120),
    Check("stepping", "parity:stepping", 40, 150, alone=True),
    Check("optimizers", "controls:optimizers", 30, 120, alone=True, on_cpu=LITTLE),
    Check("families", "parity:families", 30, 150, on_cpu="float32 and bf16 on the CPU"),
    Check("kinds", "parity:kinds", 25, 120, on_cpu="a few of them, on the CPU"),
    Check("out-of-memory", "forked:out_of_memory", 30, 120, on_cpu="with a pretended error"),
    Check("hung", "forked:hung", 30, 90, alone=True, on_cpu="a body that sleeps"),
    Check("memory", "sizes:memory", 75, 240, "small", alone=True, on_cpu="shapes only"),
    Check("speed-gpt2", "sizes:speed", 20, 90, "gpt2", alone=True, on_cpu=LITTLE),
    Check("speed-410m", "sizes:speed", 25, 90, "pythia-410m", alone=True),
    Check("memory-1.3b", "sizes:memory", 30, 120, "opt-1.3b", alone=True),
    Check("memory-1.4b", "sizes:memory", 30, 120, "pythia-1.4b", alone=True),
    Check("speed-1.4b", "sizes:speed", 35, 120, "pythia-1.4b", alone=True),
    Check("probes", "probing:probes", 60, 200, alone=True, on_cpu=LITTLE),
    Check("memory-2.8b", "sizes:memory", 40, 150, "pythia-2.8b", alone=True),
    Check("memory-6.9b", "sizes:memory", 100, 300, "pythia-6.9b", alone=True),
)


def chosen(names: str | None) -> tuple[Check, ...]:
    """Return the checks that ``names`` asks for, a comma between them; a name's beginning will do.

    Raises ValueError for one that there is not.
    """
    if not names:
        return CHECKS
    asked = [name.strip() for name in names.split(",") if name.strip()]
    known = ", ".join(check.name for check in CHECKS)
    for name in asked:
        if not any(check.name.startswith(name) for check in CHECKS):
            raise ValueError(f"--only {name}: no such check; there are {known}")
    return tuple(check for check in CHECKS if any(check.name.startswith(name) for name in asked))
