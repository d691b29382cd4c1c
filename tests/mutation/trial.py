"""One fault in a copy of the tree, and whether the tests there notice it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.mutation.planting import Fault
from tests.mutation.subjects import ROOT

# Of what the tests take without a fault: a loop that no longer ends is noticed by this.
PATIENCE = 4.0
SPARE_SECONDS = 60.0


@dataclass(frozen=True)
class Verdict:
    """What became of a fault."""

    fault: Fault
    noticed: bool
    seconds: float


class Copy:
    """The tree as git knows it, in a folder where faults are planted one after another."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        listed = ("git", "ls-files", "--cached", "--others", "--exclude-standard", "-z")
        names = subprocess.run(listed, cwd=ROOT, check=True, capture_output=True, text=True).stdout
        for name in filter(None, names.split("\0")):
            if (ROOT / name).is_file():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, folder / name)

    def passes(self, tests: Sequence[str], limit: float | None = None) -> bool:
        """Run tests until one fails; a run over its limit of seconds has failed.

        Raises:
            RuntimeError: pytest found no test, or could not be started.
        """
        command = [sys.executable, "-m", "pytest", "-x", "-q", "-m", "not slow"]
        command += ["-p", "no:cacheprovider", "-p", "no:randomly", *tests]
        environment = {
            **os.environ,
            "PYTHONPATH": str(self.folder),
            "PYTHONDONTWRITEBYTECODE": "1",
            "OMP_NUM_THREADS": "1",
        }
        started = subprocess.Popen(
            command,
            cwd=self.folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            said = started.communicate(timeout=limit)[0].decode(errors="replace")
        except subprocess.TimeoutExpired:
            os.killpg(started.pid, 9)
            started.communicate()
            return False
        if started.returncode in (0, 1, 2):  # passed, failed, could not be collected
            return started.returncode == 0
        if started.returncode < 0:  # the fault ended the process
            return False
        raise RuntimeError(f"pytest ended with {started.returncode}:\n{said[-2000:]}")

    def try_fault(self, fault: Fault, tests: Sequence[str], usual: float) -> Verdict:
        """Plant a fault, run the tests, and put the file back."""
        place = self.folder / fault.file
        sound = place.read_text()
        began = time.monotonic()
        place.write_text(fault.text)
        try:
            passed = self.passes(tests, PATIENCE * usual + SPARE_SECONDS)
        finally:
            place.write_text(sound)
        return Verdict(fault, not passed, time.monotonic() - began)
