"""Outputs on a page that say which command made them: found, made again, and compared.

A block is a comment that names the command, and the fence below it:

    <!-- made by: depthsweep profile demo -->
    ```
    what it printed
    ```

``make readme`` runs the commands and writes the blocks; tests/test_readme.py runs them again, where
``make demo`` may have been computed by another processor, and compares.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted(
    page
    for page in [*ROOT.glob("*.md"), *ROOT.glob("[a-z]*/**/*.md")]
    if page.relative_to(ROOT).parts[0] not in ("shared", "store", "build")
)
BLOCK = re.compile(
    r"(?P<head><!-- made by: (?P<command>.+?) -->\n```\w*\n)(?P<body>.*?)(?=^```)", re.M | re.S
)

# What a run measures is the same bytes again on the same machine. Kernels of another processor add
# up in another order; hundreds of steps of pretraining and fine-tuning carry that on, as another
# seed would a little. So a measured number, which is one with a decimal point or a percentage, may
# differ by 0.15 of itself or by 0.01 (1 of a hundred); a count may not differ.
RELATIVE = 0.15
ABSOLUTE = 0.01
# Bars are heights of eight steps, the largest of a row its scale.
HEIGHTS = "▁▂▃▄▅▆▇█"
BAR_STEPS = 1

# Times are those of a machine and a moment: any will do.
_SPAN = r"\d+(?:\.\d+)? ?(?:ms|s|min|h|(?:second|minute|hour|day)s?)(?!\w)"
TIME = re.compile(rf"(?<![\w.])(?:{_SPAN}(?: {_SPAN})*|[\d.,]+ runs an hour)")
NUMBER = re.compile(r"(?<![\w.])-?\d+(?:\.\d+)?(?:e[+-]?\d+)?(?: ?%)?")


def blocks(text: str) -> Iterator[tuple[str, str]]:
    """Return command and output of each marked block, in order."""
    for match in BLOCK.finditer(text):
        yield match["command"], match["body"]


def made_again(text: str, run: Callable[[str], str]) -> str:
    """Return a page with every marked block as ``run`` gives it for its command."""
    return BLOCK.sub(lambda match: match["head"] + run(match["command"]), text)


def output_of(command: str, folder: Path) -> str:
    """Return what a command prints in ``folder``, which has the store as ``store``.

    ``depthsweep`` is this checkout's, whatever is installed. Raises RuntimeError when it fails.
    """
    program, *arguments = shlex.split(command)
    module = {"depthsweep": ["-m", "orchestrator"], "python": []}[program]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "80", "NO_COLOR": "1"}
    done = subprocess.run(
        [sys.executable, *module, *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        encoding="utf-8",
    )
    if done.returncode != 0:
        raise RuntimeError(f"{command}: exit code {done.returncode}\n{done.stderr}{done.stdout}")
    return done.stdout.strip("\n") + "\n"


def differences(shown: str, now: str) -> list[str]:
    """Return how what a page shows differs from what its command says now; times never do."""
    ours, theirs = _parts(shown), _parts(now)
    found = [
        f"shows {a!r}, now {b!r}" for a, b in zip(ours, theirs, strict=False) if not _alike(a, b)
    ]
    if len(ours) != len(theirs):
        found.append(f"shows {len(ours)} words and numbers, now {len(theirs)}")
    return found


def _parts(text: str) -> list[str]:
    """Cut a text into its numbers, its bars and the words between; how it is spaced is no part."""
    text = TIME.sub("<time>", text)
    pieces = re.split(f"({NUMBER.pattern}|[{HEIGHTS}]+)", text)
    return [" ".join(piece.split()) for piece in pieces if piece.strip()]


def _alike(a: str, b: str) -> bool:
    if a == b:
        return True
    if set(a + b) <= set(HEIGHTS):
        steps = [abs(HEIGHTS.index(x) - HEIGHTS.index(y)) for x, y in zip(a, b, strict=False)]
        return len(a) == len(b) and max(steps) <= BAR_STEPS
    if not (NUMBER.fullmatch(a) and NUMBER.fullmatch(b)):
        return False
    measured = "." in a + b or "%" in a + b
    if not measured or ("%" in a) != ("%" in b):
        return False
    scale = 100 if "%" in a else 1
    x, y = (float(number.rstrip(" %")) / scale for number in (a, b))
    return abs(x - y) <= max(ABSOLUTE, RELATIVE * max(abs(x), abs(y)))
