"""What checks saw: lines that a check tells one by one, the table of them, and the JSON."""

from __future__ import annotations

import json
import textwrap
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

# The table goes into a page: name, what was seen, how it was.
NAME, TEXT, RESULT = 13, 57, 8


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


@dataclass
class Result:
    """One check: its lines so far, how long it took, and the end of what it printed if it broke."""

    name: str
    seen: list[Seen] = field(default_factory=list)
    seconds: float | None = None
    trouble: str = ""

    @property
    def failed(self) -> bool:
        return bool(self.trouble) or any(one.ok is False for one in self.seen)


def heading() -> str:
    return f"{'check':<{NAME}} {'seen':<{TEXT}} result"


def table_lines(name: str, seen: Seen) -> list[str]:
    """Return the lines of the table for one line of a check, at most 80 columns wide."""
    result = {True: "ok", False: "FAILED", None: ""}[seen.ok]
    if seen.text.startswith("skipped:"):
        result = "skipped"
    text = seen.text.removeprefix("skipped: ") or "-"
    wrapped = textwrap.wrap(text, TEXT, break_long_words=True)
    first = f"{name:<{NAME}} {wrapped[0]:<{TEXT}} {result:<{RESULT}}".rstrip()
    return [first, *(f"{'':<{NAME}} {line}" for line in wrapped[1:])]


def write(path: Path, where: dict[str, Any], results: list[Result]) -> None:
    """Write everything so far, whole."""
    data = {**where, "checks": [asdict(result) for result in results]}
    partial = path.with_name(path.name + ".part")
    partial.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
    partial.replace(path)
