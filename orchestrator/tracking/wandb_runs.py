"""Weights & Biases: a run of a project for each run, under an id of our own.

Online, W&B itself says after which step it goes on, and drops a step that it has. Offline there is
nobody to ask and a second folder of one run would be a second history, so that each run's folder is
written whole, at its end, and takes the place of the one before. `wandb sync` brings them.
"""

from __future__ import annotations

import os
import secrets
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import wandb

from orchestrator.tracking.tracker import Outcome, RunCard, StepRow
from sweeps.files.whole_files import read_if_readable, write_json
from sweeps.store.records import COMPLETE

STATUS = "status"
RECORD = "depthsweep.json"
# Seconds that its own client waits for its server.
BEGIN, FINISH = 30.0, 30.0
WORKS = "offline-run-"


class WandbRuns:
    """The runs of one sweep, a group of a project; ``folder`` where it is offline."""

    kind = "wandb"

    def __init__(
        self,
        project: str,
        entity: str | None,
        tags: Sequence[str],
        sweep: str,
        folder: Path | None,
    ) -> None:
        # It asks for a key on the terminal otherwise, in the middle of a sweep.
        wandb.setup(wandb.Settings(silent=True, console="off"))
        self._project, self._entity, self._tags = project, entity, list(tags)
        self._sweep, self._folder = sweep, folder

    def ended(self) -> dict[str, str]:
        """Return the runs whose status was said."""
        if self._folder is not None:
            records = map(read_if_readable, self._folder.glob(f"{WORKS}*/{RECORD}"))
            return {str(one["key"]): str(one[STATUS]) for one in records if one}
        path = f"{self._entity}/{self._project}" if self._entity else self._project
        try:
            # Not lazily, which asks for each run's summary by itself.
            found = wandb.Api(timeout=20).runs(path, filters={"group": self._sweep}, lazy=False)
            runs = list(found)
        except ValueError:  # the first run makes the project
            return {}
        return {run.id: run.summary[STATUS] for run in runs if run.summary.get(STATUS)}

    def open(self, card: RunCard) -> WandbOnline | WandbOffline:
        """Return the run of this id."""
        if self._folder is not None:
            return WandbOffline(self, card, self._folder)
        return WandbOnline(self, card)

    def close(self) -> None:
        """Each run is finished by itself."""

    def begin(self, card: RunCard, mode: Literal["online", "offline"], place: Path) -> Any:
        """Begin a run of W&B's own, whose local files go below ``place``."""
        return wandb.init(
            project=self._project,
            entity=self._entity,
            id=card.key,
            name=card.name,
            group=card.sweep,
            tags=list(dict.fromkeys([*self._tags, *_tags(card)])),
            notes=card.description,
            config=card.parameters,
            dir=str(place),
            resume="allow",
            mode=mode,
            reinit="create_new",
            settings=wandb.Settings(
                # The driver's console, machine and code are not those of the run.
                console="off",
                silent=True,
                disable_git=True,
                disable_code=True,
                x_disable_meta=True,
                x_disable_stats=True,
                x_disable_machine_info=True,
                x_save_requirements=False,
                init_timeout=BEGIN,
                finish_timeout=FINISH,
                finish_timeout_raises=True,
            ),
        )


class WandbOnline:
    """A run that goes to the server as it comes."""

    def __init__(self, runs: WandbRuns, card: RunCard) -> None:
        self._place = tempfile.TemporaryDirectory(prefix="depthsweep-wandb-")
        self._run = runs.begin(card, "online", Path(self._place.name))
        # The server says at which step it goes on: 0 for a run that it has not.
        self.logged_to = max(int(self._run.starting_step) - 1, 0)

    def log(self, rows: Sequence[StepRow]) -> None:
        """Add a line of history for each step."""
        for row in rows:
            self._run.log(row.numbers, step=row.step, commit=True)

    def end(self, outcome: Outcome) -> None:
        """Say how it ended in the summary, which holds each thing once."""
        _say_end(self._run, outcome)
        self._place.cleanup()

    def leave(self) -> None:
        """Have the client let go of the run: it opens none twice."""
        try:
            self._run.finish(exit_code=1)
        finally:
            self._place.cleanup()


class WandbOffline:
    """A run whose folder is written when it ends."""

    logged_to = 0

    def __init__(self, runs: WandbRuns, card: RunCard, folder: Path) -> None:
        self._runs, self._card, self._folder = runs, card, folder
        self._rows: list[StepRow] = []

    def log(self, rows: Sequence[StepRow]) -> None:
        """Keep steps until the end."""
        self._rows += rows

    def end(self, outcome: Outcome) -> None:
        """Write the run's folder beside its place, whole, and put it there."""
        self._folder.mkdir(parents=True, exist_ok=True)
        for torn in self._folder.glob(f".{self._card.key}-*.tmp"):  # of a driver that was killed
            shutil.rmtree(torn, ignore_errors=True)
        aside = self._folder / f".{self._card.key}-{secrets.token_hex(4)}.tmp"
        try:
            aside.mkdir()
            self._write(aside, outcome)
            (made,) = aside.glob(f"wandb/{WORKS}*")
            for own in ("logs", "tmp"):  # of its client, and of this machine
                shutil.rmtree(made / own, ignore_errors=True)
            write_json(made / RECORD, {"key": self._card.key, STATUS: outcome.status})
            for before in self._folder.glob(f"{WORKS}*-{self._card.key}"):
                shutil.rmtree(before)
            os.replace(made, self._folder / made.name)
        finally:
            shutil.rmtree(aside, ignore_errors=True)

    def _write(self, aside: Path, outcome: Outcome) -> None:
        run = self._runs.begin(self._card, "offline", aside)
        try:
            for row in self._rows:
                run.log(row.numbers, step=row.step, commit=True)
            _say_end(run, outcome)
        except BaseException:
            run.finish(exit_code=1)
            raise

    def leave(self) -> None:
        """Nothing was written yet."""
        self._rows.clear()


def _say_end(run: Any, outcome: Outcome) -> None:
    run.summary.update({**outcome.numbers, STATUS: outcome.status})
    if outcome.profiles is not None:
        rows = [list(row) for row in outcome.profiles.iter_rows()]
        run.summary["profiles"] = wandb.Table(columns=[*outcome.profiles.columns], data=rows)
        run.summary["profile"] = wandb.Html(outcome.picture("svg").decode(), inject=False)
    run.finish(exit_code=0 if outcome.status in COMPLETE else 1)


def _tags(card: RunCard) -> list[str]:
    """Return what a run can be filtered by; W&B takes 64 characters of each."""
    return [card.heads[name][:64] for name in ("model", "objective", "control")]
