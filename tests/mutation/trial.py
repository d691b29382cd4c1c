"""One fault in a copy of the tree, and whether the tests there notice it."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.mutation.planting import Fault
from tests.mutation.selection import function_of, telling, tests_for
from tests.mutation.subjects import ROOT

# Of what the tests take without a fault: a loop that no longer ends is noticed by this.
PATIENCE = 4.0
SPARE_SECONDS = 10.0
# Both are of a processor. What waits for something that never comes uses none: it is ended after so
# many times as long by the clock, for a machine may be busy.
WALL = 8.0


# The process that forks trials is of this tree, what its children import of the copy.
_HERE = str(ROOT)
_START = f"import sys; sys.path.append({_HERE!r}); from tests.mutation.stem import main; main()"


@dataclass(frozen=True)
class Verdict:
    """What became of a fault: how many tests were asked, and the one that noticed."""

    fault: Fault
    noticed: bool
    seconds: float
    asked: int = 0
    by: str = ""


class Copy:
    """The tree as git knows it, in a folder where faults are planted one after another."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._stem: subprocess.Popen[str] | None = None
        self._tests: dict[str, tuple[float, list[str]]] = {}
        listed = ("git", "ls-files", "--cached", "--others", "--exclude-standard", "-z")
        names = subprocess.run(listed, cwd=ROOT, check=True, capture_output=True, text=True).stdout
        for name in filter(None, names.split("\0")):
            if (ROOT / name).is_file():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, folder / name)

    def survey(self, tests: Sequence[str], files: Sequence[str]) -> float:
        """Run tests without a fault, see which functions each calls, and return their seconds.

        Raises:
            RuntimeError: one fails, or pytest could not be started.
        """
        self.close()
        environment = {**os.environ, "PYTHONPATH": str(self.folder), "OMP_NUM_THREADS": "1"}
        # A file that has changed within a second, by as many characters, would be taken for the one
        # that was compiled: its fault would not be there.
        environment["PYTHONDONTWRITEBYTECODE"] = "1"
        self._stem = subprocess.Popen(
            [sys.executable, "-c", _START],
            cwd=self.folder,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        with ExitStack() as telling_files:
            for file in files:
                text = telling((self.folder / file).read_text(), file)
                telling_files.enter_context(self._instead(file, text))
            found = self._asked({"tests": list(tests)})
        if found["code"] != 0:
            raise RuntimeError(
                f"without a fault pytest ends with {found['code']}:\n{found['said']}"
            )
        self._tests = found["tests"]
        return sum(seconds for seconds, _ in self._tests.values())

    def try_fault(self, fault: Fault) -> Verdict:
        """Plant a fault, run the tests that reach it, and put the file back."""
        sound = (self.folder / fault.file).read_text()
        began = time.monotonic()
        wanted = tests_for(self._tests, fault.file, function_of(sound, fault.line))
        if not wanted:
            return Verdict(fault, noticed=False, seconds=0.0)
        usual = sum(self._tests[test][0] for test in wanted)
        limit = PATIENCE * usual + SPARE_SECONDS
        with self._instead(fault.file, fault.text):
            answer = self._asked({"wanted": wanted, "limit": limit, "wall": WALL * limit})
        failed = re.search(r"^(?:FAILED|ERROR) (\S+)", answer["said"], re.MULTILINE)
        return Verdict(
            fault,
            not answer["passed"],
            time.monotonic() - began,
            len(wanted),
            failed.group(1) if failed else "",
        )

    @contextmanager
    def _instead(self, file: str, text: str) -> Iterator[None]:
        """Have a file say something else meanwhile."""
        place = self.folder / file
        sound, times = place.read_text(), place.stat()
        place.write_text(text)
        os.utime(place, (time.time() + 10, time.time() + 10))  # of no compiled file that is there
        try:
            yield
        finally:
            place.write_text(sound)
            os.utime(place, ns=(times.st_atime_ns, times.st_mtime_ns))

    def close(self) -> None:
        """End the process that forks the trials."""
        if self._stem is not None:
            self._stem.communicate()
            self._stem = None

    def _asked(self, request: dict[str, object]) -> dict[str, object]:
        print(json.dumps(request), file=self._stem.stdin, flush=True)
        answer = self._stem.stdout.readline()
        if not answer:
            raise RuntimeError(f"the process of the trials ended: {self._stem.wait()}")
        return json.loads(answer)
