"""One folder, one reference, and the stores that faults befall: round after round, each judged."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from sweeps.declaration.expand import read_sweep
from sweeps.files.whole_files import read_json, write_json
from sweeps.spec import RunSpec
from sweeps.store.store import Store
from tests.faults import forked
from tests.faults.grounds import Bucket, BucketGround, FolderGround, Ground
from tests.faults.harm.on_disk import Disk
from tests.faults.on_command import Sessions
from tests.faults.on_workers import FAULTS_A_ROUND, Round
from tests.faults.schedule import ARRIVES_LATE, Fault, needs_mending

SWEEP = Path(__file__).with_name("study.yaml")
# Faults of one series of commands, over one store.
FAULTS_A_SERIES = 25
MENDINGS = 3


class Campaign:
    """Applies faults and judges; on a ``bucket`` where there is one, in folders otherwise."""

    def __init__(
        self, folder: Path, say: Callable[[str], None], bucket: Bucket | None = None
    ) -> None:
        self.folder = folder
        self.say = say
        self.bucket = bucket
        self.sweep = read_sweep(SWEEP)
        self.applied = {"workers": Counter[str](), "command": Counter[str]()}
        self.mended: list[str] = []
        self.wrong: list[str] = []
        self.verdicts: list[dict[str, Any]] = []
        self.hung = 0
        self.disk = Disk(folder / "disk")
        self.reference = Store(folder / "disk" / "reference")

    def unbroken(self) -> None:
        """Run the sweep without a fault."""
        (self.folder / "cache").mkdir()
        ground = FolderGround(self.disk, "reference", self.folder / "cache")
        self.reference.save_sweep(self.sweep)
        Round(list(self.sweep.runs), ground, self._logs("reference"), []).carry_out()
        if self.bucket is not None:
            os.environ.update(self.bucket.environment(self.folder / "cache"))

    def on_workers(self, faults: list[Fault], sabotage: Callable[[], None] | None = None) -> None:
        """Apply all faults, round after round, each over a new store.

        Those that need mending are in rounds of their own: after the others nothing may need it.
        """
        for mends in (False, True):
            left = [fault for fault in faults if needs_mending(fault.kind) is mends]
            while left:
                left = self._round(left, mends, sabotage)

    def _round(
        self, faults: list[Fault], mends: bool, sabotage: Callable[[], None] | None
    ) -> list[Fault]:
        """Apply faults to one store; return those that it was too early finished for."""
        name = f"workers-{len(self.verdicts) + 1}"
        ground, logs = self._ground(name), self._logs(name)
        part, rest = faults[:FAULTS_A_ROUND], faults[FAULTS_A_ROUND:]
        runs = list(self.sweep.runs)
        current = Round(runs, ground, logs, part, sabotage)
        current.carry_out()
        self._resume(ground, runs)
        self.applied["workers"] += current.applied
        self.wrong += current.wrong
        if mends and ground.store is not None:
            again = Round(runs, ground, logs, [], sabotage)
            self._mend(ground.store, again.carry_out)
        self._judge(ground, current.applied)
        missed = Counter(fault.kind for fault in part) - current.applied
        return [f for f in part if missed[f.kind] > 0 and not missed.subtract([f.kind])] + rest

    def _resume(self, ground: Ground, runs: list[RunSpec]) -> None:
        """Do what a driver does at last with runs that were closed by an attempt that was cut off
        right after: two faults at once may leave one that nobody owes another attempt."""

        def resumed() -> None:
            from sweeps.attempts.left_open import finish_off

            if self.bucket is not None:
                cache = self.folder / "readers"
                os.environ.update(self.bucket.environment(cache, directly=True))
            finish_off(Store.at(ground.location), runs)

        forked.in_a_child(resumed)

    def on_command(self, faults: list[Fault]) -> None:
        left = faults
        while left:
            name = f"command-{len(self.verdicts) + 1}"
            ground, logs = FolderGround(self.disk, name, self.folder / "cache"), self._logs(name)
            part, rest = left[:FAULTS_A_SERIES], left[FAULTS_A_SERIES:]
            runs, store = len(self.sweep.runs), Store(Path(ground.location))
            sessions = Sessions(SWEEP, runs, store, self.disk, logs, part)
            try:
                sessions.carry_out()
                self.applied["command"] += sessions.applied
                again = Sessions(SWEEP, runs, store, self.disk, logs, [])
                self._mend(store, again.carry_out)
                again.put_away()
            finally:
                sessions.put_away()
            self._judge(ground, sessions.applied)
            self.hung += sessions.hung
            left = list(reversed(sessions.faults)) + rest

    def _mend(self, store: Store, resume: Callable[[], None]) -> None:
        """Do what a user does, doctor and resume, until doctor is content."""
        answer = self.folder / "answer.json"

        def mended() -> None:
            from tests.faults.verdict import mend

            write_json(answer, {"found": mend(store)})

        for _ in range(MENDINGS):
            forked.in_a_child(mended)
            found = list(read_json(answer)["found"])
            self.mended += found
            if not found:
                break
            resume()

    def _judge(self, ground: Ground, applied: Counter[str]) -> None:
        """Compare a store with the reference, as readers of it do; keep it where it differs."""
        answer = self.folder / "answer.json"
        late = self.bucket is not None and any(applied[kind] for kind in ARRIVES_LATE)

        def judged() -> None:
            from tests.faults.verdict import judge

            if self.bucket is not None:
                cache = self.folder / "readers"
                os.environ.update(self.bucket.environment(cache, directly=True))
            Store.at(ground.location).save_sweep(self.sweep)
            verdict = judge(self.reference.root, ground.location, late)
            write_json(answer, {**vars(verdict), "sound": verdict.sound})

        forked.in_a_child(judged)
        verdict = {"store": ground.name, **read_json(answer)}
        self.verdicts.append(verdict)
        total = sum(counter.total() for counter in self.applied.values())
        said = "sound" if verdict["sound"] else f"{verdict} after {dict(applied)}"
        self.say(f"{ground.name}: {total} faults so far, {said}")
        if not verdict["sound"] and ground.store is not None:
            kept = self.folder / f"failed-{ground.name}"
            shutil.copytree(ground.location, kept, symlinks=True)
        if verdict["sound"] or ground.store is not None:
            ground.remove()

    def _ground(self, name: str) -> Ground:
        if self.bucket is not None:
            return BucketGround(self.bucket, name, self.folder)
        return FolderGround(self.disk, name, self.folder / "cache")

    def _logs(self, name: str) -> Path:
        logs = self.folder / "logs" / name
        logs.mkdir(parents=True)
        return logs

    @property
    def sound(self) -> bool:
        return not self.hung and not self.wrong and all(v["sound"] for v in self.verdicts)

    def summary(self) -> dict[str, Any]:
        count = {
            name: sum(len(v[name]) for v in self.verdicts)
            for name in ("different", "not_finished", "by_hand", "came_late")
        }
        return {
            "sound": self.sound,
            "stores": len(self.verdicts),
            "rows_compared": sum(v["rows"] for v in self.verdicts),
            "rows_lost": sum(v["lost"] for v in self.verdicts),
            "rows_duplicated": sum(v["duplicated"] for v in self.verdicts),
            "tables_different": count["different"],
            "runs_not_finished": count["not_finished"],
            "findings": count["by_hand"],
            "came_late": count["came_late"],
            "mended_by_doctor": len(self.mended),
            "wrong": self.wrong,
            "commands_hung": self.hung,
            "faults_of_workers": dict(sorted(self.applied["workers"].items())),
            "faults_of_command": dict(sorted(self.applied["command"].items())),
        }

    def close(self) -> None:
        with suppress(OSError):
            self.disk.close()
