"""What a CPU cannot show, on one GPU: ``python -m tests.gpu`` prints a table and ends with 1 when
something failed.

    python -m tests.gpu [--minutes M] [--only NAME,…] [--json FILE] [--at-once N] [--list]

It needs no network and no Ray. Each check is a process of its own with a limit of time: what
crashes, hangs or poisons its CUDA context takes nothing from the others. Checks that measure time
have the GPU to themselves; others run side by side. Without a GPU the same code runs in little on
the CPU, as far as that goes.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
import traceback
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from tests.gpu.checks import Check, Place, Seen, chosen, skipped

ROOT = Path(__file__).resolve().parents[2]
# Limits are for a machine with a GPU, which has cores to start processes on: a CPU may be busy.
CPU_LIMIT = 10
POLL_SECONDS = 0.1
# The columns of the table: name, what was seen, how it was.
NAME, TEXT, RESULT = 13, 57, 8
# Of what a broken check printed so many lines are kept, and shown.
KEPT_LINES, SHOWN_LINES = 200, 14


@dataclass
class Result:
    """One check: its lines so far, how long it took, and the end of what it printed if it broke."""

    name: str
    seen: list[Seen] = field(default_factory=list)
    seconds: float | None = None
    trouble: str = ""

    @property
    def failed(self) -> bool:
        return any(one.ok is False for one in self.seen)


@dataclass
class Running:
    """A check in its process."""

    check: Check
    process: subprocess.Popen[bytes]
    folder: Path
    began: float
    until: float
    result: Result

    def take_in(self) -> None:
        """Take in the lines that have come since the last time."""
        with contextlib.suppress(FileNotFoundError):
            told = (self.folder / "seen").read_text(encoding="utf-8")
            whole = told[: told.rfind("\n") + 1].splitlines()
            for line in whole[len(self.result.seen) :]:
                self.result.seen.append(Seen(**json.loads(line)))

    def end(self) -> None:
        """End the process and those it started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.gpu", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--minutes", type=float, default=20.0, help="in all (default: 20)")
    parser.add_argument("--only", metavar="NAME,…", help="these checks; a beginning will do")
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep all figures here")
    parser.add_argument(
        "--at-once", type=int, default=4, metavar="N", help="processes (default: 4)"
    )
    parser.add_argument("--list", action="store_true", help="name the checks and their seconds")
    parser.add_argument("--in", dest="folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    try:
        checks = chosen(arguments.only)
    except ValueError as error:
        parser.error(str(error))
    if arguments.folder:
        return carry_out(checks[0], arguments.folder)
    if arguments.list:
        for check in checks:
            print(f"{check.name:<14}{check.expects:>5.0f} s  {check.body} {check.option}".rstrip())
        return 0
    return run_all(checks, arguments.minutes, arguments.at_once, arguments.json)


def carry_out(check: Check, folder: Path) -> int:
    """Be the process of one check: leave each line in a file the moment it is there."""
    device = torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")
    if device.type == "cpu" or not check.alone:  # the processes side by side share the cores
        torch.set_num_threads(1 if device.type == "cpu" else 4)
    with (folder / "seen").open("a", encoding="utf-8") as told:
        try:
            for seen in check.seen(Place(device, folder)):
                told.write(json.dumps(asdict(seen)) + "\n")
                told.flush()
        except BaseException:
            traceback.print_exc()
            sys.stderr.flush()
            os._exit(1)  # a poisoned context may hang on the way out
    sys.stdout.flush()
    os._exit(0)


def run_all(checks: Sequence[Check], minutes: float, at_once: int, kept: Path | None) -> int:
    began, until = time.monotonic(), time.monotonic() + 60 * minutes
    where = place_of()
    print(where["line"], heading(), sep="\n", flush=True)
    if where["device"] is None:  # where nothing is measured, nothing needs the machine alone
        checks = [replace(one, alone=False, limit=CPU_LIMIT * one.limit) for one in checks]
    results: list[Result] = []
    with tempfile.TemporaryDirectory(prefix="gpu", dir="/tmp") as folder:
        waiting, running, told = list(checks), list[Running](), 0
        try:
            while waiting or running:
                running[:] = [one for one in running if not follow(one)]
                if told != (told := sum(len(result.seen) for result in results)):
                    save(kept, where, results, began)
                while waiting and may_begin(waiting[0], running, at_once):
                    begin(waiting.pop(0), where, Path(folder), until, running, results)
                time.sleep(POLL_SECONDS)
        finally:
            for one in running:
                one.end()
    save(kept, where, results, began)
    failed = [result for result in results if result.failed]
    print(f"{time.monotonic() - began:.0f} s, {len(results)} checks, {len(failed)} failed")
    for result in failed:
        if "Traceback" in result.trouble:
            shown = result.trouble.splitlines()[-SHOWN_LINES:]
            print("", f"{result.name}:", *shown, sep="\n")
    return 1 if failed else 0


def save(kept: Path | None, where: dict[str, Any], results: list[Result], began: float) -> None:
    if kept is not None:
        write(kept, {**where, "seconds": round(time.monotonic() - began, 1)}, results)


def place_of() -> dict[str, Any]:
    """Return the device and the date, of which ``line`` is the headline."""
    date = time.strftime("%Y-%m-%d")
    # This process asks NVML only: a context of its own would take memory from the checks.
    if torch.cuda.is_available():
        name = device_name()
        line = f"{name}, torch {torch.__version__}, {date}"
        return {"device": name, "torch": torch.__version__, "date": date, "line": line}
    line = f"No GPU is here: torch {torch.__version__} on the CPU, in little, {date}"
    return {"device": None, "torch": torch.__version__, "date": date, "line": line}


def device_name() -> str:
    asked = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    try:
        found = subprocess.run(asked, capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return "a GPU"
    return found.stdout.splitlines()[0]


def may_begin(check: Check, running: list[Running], at_once: int) -> bool:
    if check.alone:
        return not running
    return len(running) < at_once and not any(one.check.alone for one in running)


def begin(
    check: Check,
    where: dict[str, Any],
    folder: Path,
    until: float,
    running: list[Running],
    results: list[Result],
) -> None:
    """Start a check, or say why it is not."""
    result = Result(check.name)
    results.append(result)
    left = until - time.monotonic()
    why = ""
    if where["device"] is None and not check.on_cpu:
        why = "needs a GPU"
    elif left < check.expects:
        why = f"takes about {check.expects:.0f} s, and {max(0.0, left):.0f} s are left"
    if why:
        result.seen.append(skipped(why))
        show(result)
        return
    own = folder / check.name
    own.mkdir()
    with (own / "output").open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.gpu", "--only", check.name, "--in", str(own)],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    now = time.monotonic()
    running.append(Running(check, process, own, now, min(until, now + check.limit), result))


def follow(one: Running) -> bool:
    """Take in what a check has to say; return whether it is over."""
    over = one.process.poll() is not None
    late = not over and time.monotonic() > one.until
    if late:
        one.end()
    one.take_in()
    if not over and not late:
        return False
    one.result.seconds = round(time.monotonic() - one.began, 1)
    printed = (one.folder / "output").read_text(errors="replace").strip().splitlines()
    if late or one.process.returncode:
        how = f"exit code {one.process.returncode}" if over else "ended by its limit of time"
        last = printed[-1].strip() if printed else "it printed nothing"
        text = f"{how} after {one.result.seconds:.0f} s: {last}"
        one.result.seen.append(Seen(text[:300], False))
    if one.result.failed:
        one.result.trouble = "\n".join(printed[-KEPT_LINES:])
    show(one.result)
    return True


def show(result: Result) -> None:
    """Print the lines of a check that is over."""
    for seen in result.seen:
        print(*table_lines(result.name, seen), sep="\n", flush=True)


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


if __name__ == "__main__":
    sys.exit(main())
