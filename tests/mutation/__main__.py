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
    """What became of the faults of one subject that a seed takes."""

    subject: str
    seed: int
    noticed: list[Verdict] = field(default_factory=list)
    equivalent: list[Fault] = field(default_factory=list)
    survived: list[Verdict] = field(default_factory=list)

    @property
    def share(self) -> float:
        """Noticed of those that are not equivalent."""
        judged = len(self.noticed) + len(self.survived)
        return len(self.noticed) / judged if judged else 1.0


def main(words: Sequence[str] | None = None) -> int:
    """Print what survives, as it does, and a line a subject and seed.

    Return 0 where at least 95 % of the faults of each subject are noticed.
    """
    given = _parser().parse_args(words)
    chosen = [one for one in SUBJECTS if not given.only or one.name in given.only]
    known = _equivalent()
    results = []
    with tempfile.TemporaryDirectory(prefix="mutation-") as place:
        copies = [Copy(Path(place) / str(k)) for k in range(given.workers)]
        for subject in chosen:
            tests = subject.nearest() if given.near else subject.test_files()
            for result in _judge(subject, tests, given.each, given.seed, copies, known):
                results.append(result)
                print(_line(result), flush=True)
        for copy in copies:
            copy.close()
    if given.output:
        Path(given.output).write_text(json.dumps([_record(one) for one in results], indent=1))
    return int(any(one.share < WANTED for one in results))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.mutation", description=__doc__)
    names = [one.name for one in SUBJECTS]
    parser.add_argument(
        "--seed", type=int, nargs="+", default=[20261125], help="which faults are taken"
    )
    parser.add_argument(
        "--each", type=int, default=20, metavar="N", help="faults a subject and seed"
    )
    parser.add_argument("--only", nargs="+", choices=names, help="subjects; all of them otherwise")
    parser.add_argument(
        "--near", action="store_true", help="ask only tests that are called after a subject's file"
    )
    parser.add_argument("--workers", type=int, default=2, help="how many are tried side by side")
    parser.add_argument("-o", "--output", metavar="FILE.json", help="also write what was found")
    return parser


def _judge(
    subject: Subject,
    tests: Sequence[str],
    count: int,
    seeds: Sequence[int],
    copies: Sequence[Copy],
    known: set[tuple[str, str, str]],
) -> list[Result]:
    """Judge what each seed takes; a fault that two of them take is tried once."""
    texts = {file: (ROOT / file).read_text() for file in subject.files}
    taken = {seed: sample(texts, count, seed) for seed in seeds}
    distinct = dict.fromkeys(fault for faults in taken.values() for fault in faults)
    open_ones = [one for one in distinct if (one.file, one.was, one.becomes) not in known]
    verdicts: dict[Fault, Verdict] = {}
    with ThreadPoolExecutor(len(copies)) as pool:
        list(pool.map(lambda copy: copy.survey(tests, subject.files), copies))
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
            fault, verdicts[verdict.fault] = verdict.fault, verdict
            if not verdict.noticed:
                reached = "" if verdict.asked else " (no test calls it)"
                print(f"{subject.name}: {fault.file}:{fault.line}{reached}")
                print(f"  - {fault.was}\n  + {fault.becomes}", flush=True)
            if sys.stderr.isatty():
                done = f"{subject.name} {len(verdicts)} of {len(open_ones)}"
                print(f"\r{done}", end="\r", file=sys.stderr)
    results = []
    for seed, faults in taken.items():
        tried = [verdicts[one] for one in faults if one in verdicts]
        results.append(
            Result(
                subject.name,
                seed,
                noticed=[one for one in tried if one.noticed],
                equivalent=[one for one in faults if one not in verdicts],
                survived=[one for one in tried if not one.noticed],
            )
        )
    return results


def _equivalent() -> set[tuple[str, str, str]]:
    listed = yaml.safe_load(EQUIVALENT.read_text()) or []
    return {(one["file"], one["was"], one["becomes"]) for one in listed}


def _line(result: Result) -> str:
    counts = f"{len(result.noticed):3d} noticed, {len(result.survived):2d} survived"
    equivalent = f"{len(result.equivalent):2d} equivalent"
    return f"{result.subject:<11} {result.seed:<9} {counts}, {equivalent} {result.share:6.0%}"


def _record(result: Result) -> dict[str, object]:
    def row(fault: Fault) -> dict[str, object]:
        return {"file": fault.file, "line": fault.line, "was": fault.was, "becomes": fault.becomes}

    def judged(one: Verdict) -> dict[str, object]:
        seconds = round(one.seconds, 1)
        return {**row(one.fault), "asked": one.asked, "by": one.by, "seconds": seconds}

    return {
        "subject": result.subject,
        "seed": result.seed,
        "share": result.share,
        "noticed": [judged(one) for one in result.noticed],
        "survived": [judged(one) for one in result.survived],
        "equivalent": [row(one) for one in result.equivalent],
    }


if __name__ == "__main__":
    sys.exit(main())
