"""``python -m tests.mutation.stem``: a process that runs pytest in children it forks.

Started in a copy of the tree. It imports what the tests need of other packages (torch and
transformers take ten seconds) and never the product: a child does, with the fault that is in the
file by then. One request a line on standard input, one answer a line on standard output.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import resource
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import pytest

from tests.mutation.selection import Chosen, Survey

OPTIONS = ("-x", "-q", "-m", "not slow", "-p", "no:cacheprovider", "-p", "no:randomly")
NO_TESTS = 5


def main() -> None:
    """Answer ``{"tests": files}`` and then any ``{"wanted": tests}``."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    known: dict[str, object] = {}
    for line in sys.stdin:
        request = json.loads(line)
        if "tests" in request:
            _import_what_others_wrote(request["tests"])
            answer = _survey(request["tests"])
            known = answer["tests"]
        else:
            answer = _trial(request["wanted"], known, request["limit"], request["wall"])
        print(json.dumps(answer), file=answers, flush=True)


def _import_what_others_wrote(tests: Sequence[str]) -> None:
    """Import here the modules outside the tree that collecting the tests imports."""

    def collect(place: Path) -> int:
        code = pytest.main([*OPTIONS, "--collect-only", *tests])
        here = str(Path.cwd())
        found = [
            name
            for name, module in list(sys.modules.items())
            if (getattr(module, "__file__", None) or here).startswith(here) is False
        ]
        place.write_text(json.dumps(found))
        return int(code)

    _, text, _ = _in_child(collect, None)
    for name in json.loads(text or "[]"):
        if name not in sys.modules:
            with suppress(Exception):  # it is imported by the child, then
                importlib.import_module(name)
    gc.freeze()


def _survey(tests: Sequence[str]) -> dict[str, object]:
    def surveyed(place: Path) -> int:
        survey = Survey()
        code = pytest.main([*OPTIONS, *tests], plugins=[survey])
        place.write_text(json.dumps({"tests": survey.tests, "failed": survey.failed}))
        return int(code)

    code, text, said = _in_child(surveyed, None)
    return {"code": code, "said": said, **json.loads(text or '{"tests": {}, "failed": []}')}


def _trial(
    wanted: Sequence[str], known: dict[str, object], limit: float, wall: float
) -> dict[str, object]:
    def tried(_: Path) -> int:
        seconds = max(1, round(limit))
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
        files = list(dict.fromkeys(test.partition("::")[0] for test in wanted))
        options = (*OPTIONS, "--hypothesis-seed=0")
        return int(pytest.main([*options, *files], plugins=[Chosen(wanted, known)]))

    code, _, said = _in_child(tried, wall)
    return {"passed": code in (0, NO_TESTS), "said": said}


def _in_child(work: Callable[[Path], int], limit: float | None) -> tuple[int, str, str]:
    """Return how a child ended (-9 where it ran over its seconds), what it wrote, what it said."""
    with tempfile.TemporaryDirectory(prefix="trial-") as folder:
        place, said = Path(folder) / "answer", Path(folder) / "said"
        child = os.fork()
        if not child:
            _work(work, place, said)
        code = _awaited(child, limit)
        with suppress(ProcessLookupError):
            os.killpg(child, signal.SIGKILL)  # what its tests left behind
        text = place.read_text() if place.exists() else ""
        return code, text, said.read_text(errors="replace")[-3000:]


def _work(work: Callable[[Path], int], place: Path, said: Path) -> None:
    code = 1
    try:
        os.setpgid(0, 0)
        out = os.open(said, os.O_WRONLY | os.O_CREAT)
        os.dup2(out, 1)
        os.dup2(out, 2)
        os.environ["TMPDIR"] = tempfile.tempdir = str(place.parent)
        code = work(place)
        sys.stdout.flush()
    finally:
        os._exit(code)


def _awaited(child: int, limit: float | None) -> int:
    began = time.monotonic()
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        if limit is not None and time.monotonic() - began > limit:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return -9
        time.sleep(0.02)


if __name__ == "__main__":
    main()
