"""``python -m tests.mutation``: plant faults, and print how many of them the tests notice."""

from __future__ import annotations

import argparse
import json
import queue
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from tests.mutation.planting import Fault, sample
from tests.mutation.subjects import ROOT, SUBJECTS, Subject
from tests.mutation.trial import Copy, Verdict

EQUIVALENT = Path(__file__).with_name("equivalent.yaml")
WANTED = 0.95


@dataclass
class Result:
    """What became of the faults of one subject."""

    subject: str
    noticed: list[Verdict] = field(default_factory=list)
    equivalent: list[Fault] = field(default_factory=list)
    survived: list[Verdict] = field(default_factory=list)

    @property
    def share(self) -> float:
        """Noticed of those that are not equivalent."""
        judged = len(self.noticed) + len(self.survived)
        return len(self.noticed) / judged if judged else 1.0


def main(words: Sequence[str] | None = None) -> int:
    """Return 0 where at least 95 % of the faults of each subject are noticed."""
    given = _parser().parse_args(words)
    chosen = [one for one in SUBJECTS if not given.only or one.name in given.only]
    known = _equivalent()
    results = []
    with tempfile.TemporaryDirectory(prefix="mutation-") as place:
        copies = [Copy(Path(place) / str(k)) for k in range(given.workers)]
        for subject in chosen:
            results.append(_judge(subject, given.each, given.seed, copies, known))
            print(_line(results[-1]), flush=True)
        for copy in copies:
            copy.close()
    if given.output:
        Path(given.output).write_text(json.dumps([_record(one) for one in results], indent=1))
    for result in results:
        for verdict in result.survived:
            fault = verdict.fault
            print(f"\n{result.subject}: {fault.file}:{fault.line}")
            print(f"  - {fault.was}\n  + {fault.becomes}")
    return int(any(one.share < WANTED for one in results))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.mutation", description=__doc__)
    names = [one.name for one in SUBJECTS]
    parser.add_argument("--seed", type=int, default=20261125, help="which faults are taken")
    parser.add_argument("--each", type=int, default=20, metavar="N", help="faults a subject")
    parser.add_argument("--only", nargs="+", choices=names, help="subjects; all of them otherwise")
    parser.add_argument("--workers", type=int, default=2, help="how many are tried side by side")
    parser.add_argument("-o", "--output", metavar="FILE.json", help="also write what was found")
    return parser


def _judge(
    subject: Subject,
    count: int,
    seed: int,
    copies: Sequence[Copy],
    known: set[tuple[str, str, str]],
) -> Result:
    texts = {file: (ROOT / file).read_text() for file in subject.files}
    faults = sample(texts, count, seed)
    result = Result(subject.name)
    result.equivalent = [one for one in faults if (one.file, one.was, one.becomes) in known]
    open_ones = [one for one in faults if one not in result.equivalent]
    with ThreadPoolExecutor(len(copies)) as pool:
        list(pool.map(lambda copy: copy.survey(subject.test_files(), subject.files), copies))
        idle: queue.SimpleQueue[Copy] = queue.SimpleQueue()
        for copy in copies:
            idle.put(copy)

        def judged(fault: Fault) -> Verdict:
            copy = idle.get()
            try:
                return copy.try_fault(fault)
            finally:
                idle.put(copy)

        for verdict in pool.map(judged, open_ones):
            (result.noticed if verdict.noticed else result.survived).append(verdict)
            if sys.stderr.isatty():
                done = len(result.noticed) + len(result.survived)
                print(f"\r{subject.name} {done} of {len(open_ones)}", end="\r", file=sys.stderr)
    return result


def _equivalent() -> set[tuple[str, str, str]]:
    listed = yaml.safe_load(EQUIVALENT.read_text()) or []
    return {(one["file"], one["was"], one["becomes"]) for one in listed}


def _line(result: Result) -> str:
    counts = f"{len(result.noticed):3d} noticed, {len(result.survived):2d} survived"
    return (
        f"{result.subject:<11} {counts}, {len(result.equivalent):2d} equivalent {result.share:6.0%}"
    )


def _record(result: Result) -> dict[str, object]:
    def row(fault: Fault) -> dict[str, object]:
        return {"file": fault.file, "line": fault.line, "was": fault.was, "becomes": fault.becomes}

    def judged(one: Verdict) -> dict[str, object]:
        seconds = round(one.seconds, 1)
        return {**row(one.fault), "asked": one.asked, "by": one.by, "seconds": seconds}

    return {
        "subject": result.subject,
        "share": result.share,
        "noticed": [judged(one) for one in result.noticed],
        "survived": [judged(one) for one in result.survived],
        "equivalent": [row(one) for one in result.equivalent],
    }


if __name__ == "__main__":
    sys.exit(main())
