"""A sweep that never failed against the same sweep under hundreds of faults, byte for byte.

    python -m tests.faults --seed 1 --faults 500

Most faults befall forked workers, which start in a tenth of a second; one in ten befalls the real
command, its Ray and its workers. Every kind is drawn as often as another, from the seed; when
exactly a fault strikes depends on the machine, too. Exits with 1 when any row is lost, doubled or
different, a run is not finished, or a person would have to clean up; the folder is then kept.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sweeps.declaration.expand import read_sweep
from sweeps.files.whole_files import read_json, write_json
from sweeps.liveness.watch import STALE_VARIABLE
from sweeps.store.store import Store
from tests.faults import forked, schedule
from tests.faults.harm import Disk
from tests.faults.on_command import Sessions
from tests.faults.on_workers import FAULTS_A_ROUND, Round

SWEEP = Path(__file__).with_name("study.yaml")
STALE_SECONDS = 1.0
# Faults of one series of commands, over one store.
FAULTS_A_SERIES = 25
MENDINGS = 3


class Campaign:
    """One folder, one reference, and the stores that faults befall."""

    def __init__(self, folder: Path, say: Callable[[str], None]) -> None:
        self.folder = folder
        self.say = say
        self.sweep = read_sweep(SWEEP)
        self.applied = {"workers": Counter[str](), "command": Counter[str]()}
        self.mended: list[str] = []
        self.verdicts: list[dict[str, Any]] = []
        self.hung = 0
        self.disk = Disk(folder / "disk")
        self.reference = Store(folder / "reference")

    def unbroken(self) -> None:
        """Run the sweep without a fault."""
        self.reference.save_sweep(self.sweep)
        logs = self._logs("reference")
        Round(list(self.sweep.runs), self.reference, self.disk, logs, []).carry_out()

    def on_workers(
        self, faults: list[schedule.Fault], sabotage: Callable[[], None] | None = None
    ) -> None:
        """Apply all faults, round after round, each over a new store."""
        left = faults
        while left:
            store, logs = self._store(f"workers-{len(self.verdicts) + 1}")
            part, rest = left[:FAULTS_A_ROUND], left[FAULTS_A_ROUND:]
            runs = list(self.sweep.runs)
            current = Round(runs, store, self.disk, logs, part, sabotage)
            current.carry_out()
            self.applied["workers"] += current.applied
            self._close(
                store,
                Round(runs, store, self.disk, logs, [], sabotage).carry_out,
            )
            # What this store was too early finished for befalls the next one.
            missed = Counter(fault.kind for fault in part) - current.applied
            left = [f for f in part if missed[f.kind] > 0 and not missed.subtract([f.kind])] + rest

    def on_command(self, faults: list[schedule.Fault]) -> None:
        left = faults
        while left:
            store, logs = self._store(f"command-{len(self.verdicts) + 1}")
            part, rest = left[:FAULTS_A_SERIES], left[FAULTS_A_SERIES:]
            sessions = Sessions(SWEEP, len(self.sweep.runs), store, self.disk, logs, part)
            try:
                sessions.carry_out()
                self.applied["command"] += sessions.applied
                again = Sessions(SWEEP, len(self.sweep.runs), store, self.disk, logs, [])
                self._close(store, again.carry_out)
                again.put_away()
            finally:
                sessions.put_away()
            self.hung += sessions.hung
            left = list(reversed(sessions.faults)) + rest

    def _close(self, store: Store, resume: Callable[[], None]) -> None:
        """Do what a user does, doctor and resume, until doctor is content; then compare."""
        store.save_sweep(self.sweep)
        answer = self.folder / "answer.json"

        def mended() -> list[str]:
            from tests.faults.verdict import mend

            forked.in_a_child(lambda: write_json(answer, {"found": mend(store)}))
            return list(read_json(answer)["found"])

        for _ in range(MENDINGS):
            found = mended()
            self.mended += found
            if not found:
                break
            resume()

        def judge() -> None:
            from tests.faults.verdict import judge

            verdict = judge(self.reference.root, store)
            write_json(answer, {**vars(verdict), "sound": verdict.sound})

        forked.in_a_child(judge)
        verdict = {"store": store.root.name, **read_json(answer)}
        self.verdicts.append(verdict)
        total = sum(counter.total() for counter in self.applied.values())
        self.say(
            f"{store.root.name}: {total} faults so far, {'sound' if verdict['sound'] else verdict}"
        )
        if verdict["sound"]:
            shutil.rmtree(store.root)
        else:
            shutil.copytree(store.root, self.folder / f"failed-{store.root.name}", symlinks=True)

    def _store(self, name: str) -> tuple[Store, Path]:
        root = self.disk.path / name
        root.mkdir()
        (root / "cache").symlink_to(self.reference.cache)
        return Store(root), self._logs(name)

    def _logs(self, name: str) -> Path:
        logs = self.folder / "logs" / name
        logs.mkdir(parents=True)
        return logs

    @property
    def sound(self) -> bool:
        return not self.hung and all(verdict["sound"] for verdict in self.verdicts)

    def summary(self) -> dict[str, Any]:
        count = {
            name: sum(len(v[name]) for v in self.verdicts)
            for name in ("different", "not_finished", "by_hand")
        }
        return {
            "sound": self.sound,
            "stores": len(self.verdicts),
            "rows_compared": sum(v["rows"] for v in self.verdicts),
            "rows_lost": sum(v["lost"] for v in self.verdicts),
            "rows_duplicated": sum(v["duplicated"] for v in self.verdicts),
            "tables_different": count["different"],
            "runs_not_finished": count["not_finished"],
            "left_to_a_person": count["by_hand"],
            "mended_by_doctor": len(self.mended),
            "commands_hung": self.hung,
            "faults_of_workers": dict(sorted(self.applied["workers"].items())),
            "faults_of_command": dict(sorted(self.applied["command"].items())),
        }


def unchecked() -> None:
    """A broken protocol: whatever a checkpoint's manifest says, it is trusted."""
    import workers.checkpoint

    workers.checkpoint.damage = lambda *_: None


def closed_first() -> None:
    """A broken protocol: the closing record is written before the last parts."""
    from sweeps.attempts.writer import RunWriter

    flush, finish = RunWriter._flush, RunWriter.finish

    def closing(self: RunWriter, status: Any, step: int) -> None:
        self._flush = lambda *_: None
        finish(self, status, step)
        if step:
            flush(self, *self._run.part_of(step))

    RunWriter.finish = closing


SABOTAGE = {"unchecked": unchecked, "closed-first": closed_first}


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.faults",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--faults", type=int, default=25)
    parser.add_argument("--json", action="store_true", help="print the summary as JSON")
    parser.add_argument("--folder", type=Path, help="where to work (default: a temporary folder)")
    parser.add_argument("--only", choices=("workers", "command"), help="only faults of one sort")
    parser.add_argument("--kinds", nargs="+", choices=schedule.WORKER_KINDS, default=())
    parser.add_argument("--broken", choices=SABOTAGE, help="break the protocol: it must be found")
    arguments = parser.parse_args()
    os.environ.setdefault(STALE_VARIABLE, str(STALE_SECONDS))
    began = time.monotonic()
    # Sockets of Ray lie below it, and their paths must be short.
    folder = arguments.folder or Path(tempfile.mkdtemp(prefix="faults-"))

    def say(line: str) -> None:
        print(f"[{time.monotonic() - began:5.0f} s] {line}", file=sys.stderr, flush=True)

    say(f"seed {arguments.seed}, {arguments.faults} faults, in {folder}")
    forked.warm_up()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # the disk is unmounted then, too
    campaign = Campaign(folder, say)
    of_workers, of_command = schedule.schedule(
        arguments.seed, arguments.faults, arguments.only, tuple(arguments.kinds)
    )
    try:
        if not campaign.disk.mounted:
            say("no tmpfs may be mounted here: writes fail by RLIMIT_FSIZE instead of a full disk")
        campaign.unbroken()
        say("the unbroken sweep is done")
        campaign.on_workers(of_workers, SABOTAGE.get(arguments.broken))
        campaign.on_command(of_command)
    finally:
        campaign.disk.close()
    seconds = time.monotonic() - began
    summary = {"seed": arguments.seed, **campaign.summary()}
    faults = sum(counter.total() for counter in campaign.applied.values())
    summary |= {
        "faults": faults,
        "seconds": round(seconds, 1),
        "seconds_a_fault": round(seconds / max(1, faults), 2),
    }
    if campaign.sound:
        shutil.rmtree(folder)
    else:
        summary["folder"] = str(folder)
    if arguments.json:
        print(json.dumps(summary, indent=1))
    else:
        print("\n".join(_text(summary)))
    return 0 if campaign.sound else 1


def _text(summary: dict[str, Any]) -> list[str]:
    lines = [
        f"seed {summary['seed']}: {summary['faults']} faults over {summary['stores']} stores in"
        f" {summary['seconds']:.0f} s, {summary['seconds_a_fault']} s a fault",
        f"  {summary['rows_compared']} rows compared: {summary['rows_lost']} lost,"
        f" {summary['rows_duplicated']} duplicated, {summary['tables_different']} tables different",
        f"  {summary['runs_not_finished']} runs not finished, {summary['commands_hung']} commands"
        f" hung, {summary['left_to_a_person']} states left to a person"
        f" ({summary['mended_by_doctor']} mended by doctor)",
    ]
    for where in ("workers", "command"):
        kinds = summary[f"faults_of_{where}"]
        lines.append(f"  {where}: " + ", ".join(f"{kind} {n}" for kind, n in kinds.items()))
    if "folder" in summary:
        lines.append(f"  kept: {summary['folder']}; again with --seed {summary['seed']}")
    return lines


if __name__ == "__main__":
    sys.exit(main())
