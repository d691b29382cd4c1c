"""What the store holds of one run, or of one measurement: its files, and which of them count."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from sweeps.files.records import create, left_beside
from sweeps.files.whole_files import (
    Place,
    children,
    names_with,
    occupied,
    read_if_readable,
    remove_folder,
)
from sweeps.spec import Keep
from sweeps.store.records import attempt_record, bury_result, closing_record, is_whole
from sweeps.store.schema import TABLES

_ATTEMPT_IN_NAME = re.compile(r"\.a(\d+)-[0-9a-f]+")


@dataclass(frozen=True)
class RunFolder:
    """What the store holds of one run, or of one measurement."""

    path: Place

    @property
    def run_id(self) -> str:
        """The id of the run, or of the measurement."""
        return self.path.name

    def record(self) -> dict[str, Any] | None:
        """Return what ran, or None where no attempt got that far or it cannot be read."""
        record = read_if_readable(self.path / "run.json")
        if record is None or not is_whole(record):
            return None
        return record if all(isinstance(record.get(k), dict) for k in ("spec", "facts")) else None

    def done(self) -> dict[str, Any] | None:
        """Return the closing record, or None where there is none that can be read."""
        return closing_record(read_if_readable(self.path / "DONE.json"))

    def attempts(self) -> list[dict[str, Any]]:
        """Return the attempts in order, each with its number under ``attempt``."""
        return [self.attempt(number) for number in self.attempt_numbers()]

    def newest_attempt(self) -> dict[str, Any] | None:
        """Return the last of ``attempts`` without reading the others."""
        numbers = self.attempt_numbers()
        return self.attempt(numbers[-1]) if numbers else None

    def attempt_numbers(self) -> list[int]:
        names = [path.name for path in children(self.path / "attempts")]
        stems = [name.removesuffix(".json") for name in names if name.endswith(".json")]
        return sorted(int(stem) for stem in stems if stem.isdecimal())

    def attempt(self, number: int) -> dict[str, Any]:
        """Return one of ``attempts``; what is not there, or cannot be read, says nothing."""
        return attempt_record(number, read_if_readable(self.attempt_path(number)))

    def attempt_path(self, number: int) -> Place:
        return self.path / "attempts" / f"{number}.json"

    def log_path(self, number: int) -> Place:
        return self.path / "logs" / f"attempt-{number}.log"

    def part_path(self, table: str, first: int, last: int, attempt: str = "") -> Place:
        """Return where an attempt puts the rows of steps ``first`` + 1 to ``last``.

        ``attempt`` is its label; "" gives the name that every attempt had in layout 1.
        """
        return self.path / table / f"part-{first:06d}-{last:06d}{_dotted(attempt)}.parquet"

    def parts(self, table: str) -> list[Place]:
        """Return the parts there are, also those that do not count."""
        return sorted((self.path / table).glob("part-*.parquet"))

    def open_parts(self, table: str) -> list[Place]:
        """Return the parts that count while the run has not ended: those that the newest checkpoint
        accounts for, and those that the newest attempt has written since."""
        there = {name_in(self, path): path for path in self.parts(table)}
        found = self.checkpoints()
        manifest = read_if_readable(found[-1] / "manifest.json") if found else None
        listed = (manifest or {}).get("parts", {})
        newest = max((_attempt_of(path) for path in there.values()), default=0)
        counted = {name: path for name, path in there.items() if name in listed}
        begun = max((self.last_step_of(path) for path in counted.values()), default=0)
        return [
            path
            for name, path in there.items()
            if name in counted or (_attempt_of(path) == newest and self.last_step_of(path) > begun)
        ]

    def checkpoint_path(self, step: int, attempt: str = "") -> Place:
        """Return the folder of an attempt's checkpoint after ``step``; ``attempt`` as above."""
        return self.path / "checkpoints" / f"step-{step:06d}{_dotted(attempt)}"

    def checkpoints(self) -> list[Place]:
        """Return the complete checkpoints, those with a manifest, oldest first."""
        folder = self.path / "checkpoints"
        names = names_with(folder, "manifest.json")
        complete = [folder / name for name in names if name.startswith("step-")]
        return sorted(complete, key=lambda path: (self.step_of(path), _attempt_of(path)))

    def checkpoint_steps(self) -> list[int]:
        """Return the steps of the complete checkpoints, oldest first."""
        return [self.step_of(path) for path in self.checkpoints()]

    @staticmethod
    def step_of(checkpoint: Place) -> int:
        """Return the step after which a checkpoint was made, from its name."""
        return int(checkpoint.name.removeprefix("step-").split(".")[0])

    @staticmethod
    def last_step_of(part: Place) -> int:
        """Return the last step whose rows a part holds, from its name."""
        return int(part.name.split(".")[0].split("-")[2])

    def is_of_layout_1(self) -> bool:
        """Return whether a closed run has parts of several attempts' one name, as all had once."""
        parts = (self.done() or {}).get("parts", {})
        return any(_attempt_of(self.path / name) == 0 for name in parts)

    def close(self, closing: dict[str, Any]) -> bool:
        """Write the closing record, which makes the result count; return whether it is ours.

        The first one stays. One that cannot be read is no record, and is replaced.
        """
        path = self.path / "DONE.json"
        while create(path, closing, within=self.path) is None:
            there = read_if_readable(path)
            if there is not None and (there == closing or closing_record(there) is not None):
                return bool(there == closing)
            bury_result(self.path)
            path.unlink(missing_ok=True)
        return True

    def keeps(self) -> Keep:
        """Return which weights the run's record says are kept after its end; the last ones where
        there is none, so that nothing is lost that somebody may have wanted."""
        record = self.record()
        said: Any = record["spec"].get("execution", {}) if record else {"keep": "final"}
        if "keep_checkpoint" in said:  # as it was said before ``keep``
            return "final" if said["keep_checkpoint"] else "none"
        found: Keep = said.get("keep", "none")
        return found

    def kept(self, keep: Keep) -> Place | None:
        """Return the checkpoint that stays after the end: of ``best`` the one of the lowest
        evaluation loss, the earliest of equals; the last one where none was evaluated."""
        whole = self.checkpoints() if keep != "none" else []
        if keep == "best":
            losses = [(self.evaluation_loss(path), k) for k, path in enumerate(whole)]
            known = [(loss, k) for loss, k in losses if loss is not None]
            if known:
                return whole[min(known)[1]]
        return whole[-1] if whole else None

    @staticmethod
    def evaluation_loss(checkpoint: Place) -> float | None:
        """Return what the weights of a checkpoint lose on held-out examples, if that was asked."""
        manifest = read_if_readable(checkpoint / "manifest.json") or {}
        found: float | None = manifest.get("evaluation_loss")
        return found

    def unlisted(self, keep: Keep) -> list[Place]:
        """Return what a closed run does not need any more: parts that its record does not list,
        checkpoints but the one that is kept, what crashes left beside its records."""
        listed = (self.done() or {}).get("parts", {})
        parts = [path for table in TABLES for path in children(self.path / table)]
        kept = self.kept(keep)
        return [
            *(path for path in parts if name_in(self, path) not in listed),
            *(path for path in occupied(self.path / "checkpoints") if path != kept),
            *left_beside(self.path),
            *left_beside(self.path / "attempts"),
        ]

    def remove_unlisted(self, keep: Keep) -> None:
        """Remove what a closed run does not need any more; see ``unlisted``."""
        for path in self.unlisted(keep):
            if path.parent.name == "checkpoints":
                remove_folder(path)
            else:
                path.unlink(missing_ok=True)

    def remove_of(self, attempt: str) -> None:
        """Remove what an attempt has written that no closing record lists."""
        listed = (self.done() or {}).get("parts", {})
        for table in TABLES:
            for path in self.parts(table):
                if f".{attempt}." in path.name and name_in(self, path) not in listed:
                    path.unlink(missing_ok=True)
        for path in children(self.path / "checkpoints"):
            if path.name.endswith(f".{attempt}"):
                remove_folder(path)

    def forget(self) -> None:
        """Remove everything; from the first moment on, no reader counts what is being removed."""
        self.forget_results()
        remove_folder(self.path)

    def forget_results(self) -> None:
        """Remove the closing record, then all that a run from the start replaces."""
        bury_result(self.path)
        (self.path / "DONE.json").unlink(missing_ok=True)
        remove_folder(self.path / "checkpoints")
        for table in TABLES:
            remove_folder(self.path / table)


def _dotted(attempt: str) -> str:
    return f".{attempt}" if attempt else ""


def _attempt_of(path: Place) -> int:
    """Return the number of the attempt that a part or checkpoint is named after, 0 for none."""
    found = _ATTEMPT_IN_NAME.search(path.name)
    return int(found.group(1)) if found else 0


def name_in(folder: RunFolder, path: Place) -> str:
    """Return the path of a run's file as the run's records name it: steps/part-…."""
    return str(path).removeprefix(f"{folder.path}/")
