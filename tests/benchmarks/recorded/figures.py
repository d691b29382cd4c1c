"""What is measured, beside a peer of the same process and a physical limit, and kept in one file.

A figure is a ratio: of our median time to that of a named peer which did the same work in turns
with us, so that a busy machine slows both. Its limit is what no program beats: bytes moved or
operations done, at the rate at which this machine does them in the same run. Seconds are of the
machine that the file names; compare ratios.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

FILE = Path(__file__).with_name("measured.json")
WORSE = 1.10
"""A ratio of more than this times what is recorded is shown as a regression."""
PACKAGES = ("torch", "numpy", "scipy")


@dataclass(frozen=True)
class Figure:
    """One thing that takes time, in seconds, and what it is compared with.

    ``limit`` says in words what the physical limit is made of.
    """

    what: str
    size: str
    threads: int
    seconds: float
    peer: str
    peer_seconds: float
    ratio: float
    limit_seconds: float
    limit: str

    @property
    def key(self) -> tuple[str, str, int]:
        return (self.what, self.size, self.threads)

    @property
    def over_limit(self) -> float:
        return self.seconds / self.limit_seconds


def machine() -> dict[str, Any]:
    """Return what the figures were measured on, and with."""
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
        "system": platform.system(),
        "python": platform.python_version(),
        **{name: version(name) for name in PACKAGES},
        "commit": _commit(),
        "day": datetime.now(UTC).date().isoformat(),
        "load": round(os.getloadavg()[0], 1),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def _commit() -> str:
    said = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, cwd=FILE.parent
    )
    return said.stdout.strip() or "unknown"


def write(path: Path, figures: Sequence[Figure], measured_on: dict[str, Any]) -> None:
    """Put the figures away, whole or not at all."""
    text = json.dumps(
        {"machine": measured_on, "figures": [asdict(figure) for figure in figures]}, indent=1
    )
    beside = path.with_suffix(".tmp")
    beside.write_text(text + "\n", encoding="utf-8")
    beside.replace(path)


def read(path: Path) -> tuple[list[Figure], dict[str, Any]]:
    """Return figures that were put away and their machine; none and {} where there is no file."""
    if not path.exists():
        return [], {}
    held = json.loads(path.read_text(encoding="utf-8"))
    return [Figure(**figure) for figure in held["figures"]], held["machine"]


def regressions(before: Iterable[Figure], now: Iterable[Figure]) -> list[str]:
    """Return a line for each figure whose ratio to its peer is more than ``WORSE`` times what it
    was; one that was not there before is compared with nothing."""
    known = {figure.key: figure for figure in before}
    lines = []
    for figure in now:
        old = known.get(figure.key)
        if old is not None and old.peer == figure.peer and figure.ratio > WORSE * old.ratio:
            lines.append(
                f"slower: {figure.what}, {figure.size}, {_threads(figure.threads)}:"
                f" {figure.ratio:.2f} times {figure.peer}, was {old.ratio:.2f}"
            )
    return lines


def table(figures: Sequence[Figure], measured_on: dict[str, Any]) -> str:
    """Return the figures as text, and below them what they were measured on."""
    lines = [f"{'':<34}{'size':<14}{'threads':>7}{'median':>11}{'to peer':>9}{'to limit':>10}"]
    for peer in dict.fromkeys(figure.peer for figure in figures):
        lines.append(f"beside {peer}")
        lines += [
            f"  {f.what:<32}{f.size:<14}{f.threads:>7}{1e3 * f.seconds:>8.1f} ms"
            f"{f.ratio:>8.2f}×{f.over_limit:>9.2f}×"
            for f in figures
            if f.peer == peer
        ]
    lines.append("")
    lines += [f"limit: {limit}" for limit in dict.fromkeys(figure.limit for figure in figures)]
    packages = ", ".join(f"{name} {measured_on[name]}" for name in ("python", *PACKAGES))
    lines.append(
        f"{measured_on['processor']}, {measured_on['cores']} cores, load {measured_on['load']},"
        f" {measured_on['day']} at {measured_on['commit']}"
    )
    lines.append(packages)
    return "\n".join(lines)


def _threads(count: int) -> str:
    return "1 thread" if count == 1 else f"{count} threads"
