"""From what a sweep asks for to the trackers themselves; what cannot be is said before a start."""

from __future__ import annotations

import importlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sweeps.declaration.entries.track import (
    TRACKERS,
    MlflowOptions,
    TensorboardOptions,
    Track,
    WandbOptions,
)
from sweeps.declaration.expand import Sweep
from sweeps.errors import UserError, closest
from sweeps.files.whole_files import is_local
from sweeps.store.store import Store

if TYPE_CHECKING:
    from orchestrator.tracking.tracker import Tracker

NONE = "none"


def chosen(track: Track, said: Sequence[str]) -> Track:
    """Return what a sweep file asks for and the command line beside it; ``none`` alone takes all
    away. Raises UserError for ``none`` beside others, and for what is no tracker."""
    said = [said] if isinstance(said, str) else said
    for kind in said:
        if kind not in (NONE, *TRACKERS):
            raise UserError(f"no tracker {kind!r}; {closest(kind, list(TRACKERS))}")
    if NONE not in said:
        return track.with_also(said)
    if set(said) != {NONE}:
        raise UserError("--track none stands alone: it turns off what the sweep file asks for")
    return Track()


def arguments(sweep: Sweep, said: Sequence[str]) -> list[str]:
    """Return ``--track`` as a driver elsewhere is told it; raises as ``chosen`` does. The sweep
    file's own section goes along in the file."""
    chosen(sweep.track, said)
    return [word for kind in dict.fromkeys(said) for word in ("--track", kind)]


def require_trackers(track: Track) -> None:
    """Raise UserError unless the package of each tracker is installed here."""
    for kind in track.kinds:
        try:
            importlib.import_module(kind)
        except ImportError as error:
            raise UserError(
                f"--track {kind}: its package cannot be imported ({error}); pip install"
                f" 'depthsweep[{kind}]'"
            ) from None


def make_trackers(track: Track, sweep: Sweep, store: Store) -> list[Tracker]:
    """Return the trackers of a sweep; nothing is connected to yet.

    Raises UserError where a package is missing, or where nothing says where a tracker is.
    """
    require_trackers(track)
    made: list[Tracker] = []
    if track.wandb is not None:
        made.append(_wandb(track.wandb, sweep, store))
    if track.mlflow is not None:
        made.append(_mlflow(track.mlflow, sweep))
    if track.tensorboard is not None:
        made.append(_tensorboard(track.tensorboard, sweep, store))
    return made


def _wandb(options: WandbOptions, sweep: Sweep, store: Store) -> Tracker:
    from orchestrator.tracking.wandb_runs import WandbRuns

    mode = options.mode or os.environ.get("WANDB_MODE", "online")
    if mode not in ("online", "offline"):
        raise UserError(f"--track wandb: WANDB_MODE is {mode}; set it to online or offline")
    folder = _folder("wandb", options.folder, store) if mode == "offline" else None
    project = options.project or os.environ.get("WANDB_PROJECT", "depthsweep")
    entity = options.entity or os.environ.get("WANDB_ENTITY")
    return WandbRuns(project, entity, options.tags, sweep.name, folder)


def _mlflow(options: MlflowOptions, sweep: Sweep) -> Tracker:
    from orchestrator.tracking.mlflow_runs import MlflowRuns

    uri = options.uri or os.environ.get("MLFLOW_TRACKING_URI")
    if not uri:
        raise UserError(
            "--track mlflow: nothing says which server; set MLFLOW_TRACKING_URI, or add"
            " `track: {mlflow: {uri: http://HOST:PORT}}` to the sweep file"
        )
    experiment = options.experiment or os.environ.get("MLFLOW_EXPERIMENT_NAME") or sweep.name
    return MlflowRuns(uri, experiment, options.tags, sweep.name)


def _tensorboard(options: TensorboardOptions, sweep: Sweep, store: Store) -> Tracker:
    from orchestrator.tracking.tensorboard_files import TensorboardFiles

    return TensorboardFiles(_folder("tensorboard", options.folder, store) / sweep.name)


def _folder(kind: str, folder: str, store: Store) -> Path:
    """Return a tracker's folder: as it is where it is absolute, else within the store."""
    given = Path(folder).expanduser()
    if given.is_absolute():
        return given
    if not is_local(store.root):
        raise UserError(
            f"--track {kind}: the store {store.location} is no folder; say where its files go:"
            f" `track: {{{kind}: {{folder: /A/FOLDER}}}}` in the sweep file"
        )
    own = [Path(str(store.root / room)) for room in ("sweeps", "runs", "measurements", "cache")]
    place = (store.root / given).resolve()
    root = store.root.resolve()
    if root not in place.parents or any(place.is_relative_to(one.resolve()) for one in own):
        raise UserError(
            f"track.{kind}.folder: {folder} is not a folder of its own within the store; give"
            " another name, or an absolute folder"
        )
    return place
