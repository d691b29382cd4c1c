"""A sweep as Ray Tune runs it: one trial a run, offered by a searcher, paused and resumed by a
scheduler, and both ask ``Admission``."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator
from typing import Any

from orchestrator.connection.node_scratch import node_scratch
from orchestrator.connection.ray_environment import ray  # before ray.tune is imported
from orchestrator.tuning.admission import Admission
from orchestrator.tuning.request import resources_of

from ray import tune  # isort: skip
from ray.tune.schedulers import FIFOScheduler, TrialScheduler  # isort: skip
from ray.tune.search import Searcher  # isort: skip

# Tune starts so many trials at a time that wait for a place: all that the policy offers.
PENDING = "TUNE_MAX_PENDING_TRIALS_PG"
MOST_PENDING = 4096
# Tune writes its own state so often; nobody reads it, since the store is the record.
STATE, STATE_SECONDS = "TUNE_GLOBAL_CHECKPOINT_S", 86_400
NAMED = ("model", "objective", "control", "seed")


class _Unpickled:
    """Of which Tune, where it writes its state, keeps nothing: see ``Store``."""

    def __getstate__(self) -> dict[str, Any]:
        return {}


class Offers(_Unpickled, Searcher):  # type: ignore[misc]
    """Offers each run once, when its turn has come."""

    def __init__(self, admission: Admission) -> None:
        Searcher.__init__(self, metric="step", mode="max")
        self._admission = admission

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        del trial_id
        self._admission.tick()
        if self._admission.all_offered or self._admission.stopped:
            return str(Searcher.FINISHED)
        return self._admission.offer()

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Nothing: the scheduler hears of it."""

    def save(self, checkpoint_path: str) -> None:
        """Nothing: what is left to do follows from the store."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: see ``save``."""


class Turns(_Unpickled, FIFOScheduler):  # type: ignore[misc]
    """Pauses the trial of a run that is to start again, and resumes it when its turn comes."""

    def __init__(self, admission: Admission) -> None:
        FIFOScheduler.__init__(self)
        self._admission = admission
        self._trials: dict[str, Any] = {}
        self.failed: set[str] = set()

    def choose_trial_to_run(self, tune_controller: Any) -> Any:
        self._admission.tick()
        actors = _actors(tune_controller)
        for run_id in self._admission.silent(actors):
            ray.kill(actors[run_id])  # Tune sees it gone
        found = self._admission.again()
        if found is None:
            return None
        run_id, config, request = found
        trial = self._trials[run_id]
        trial.set_config(config)
        trial.update_resources(request.resources())
        return trial

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        run_id = trial.config["run_id"]
        self._trials[run_id] = trial
        becomes = self._admission.reports(run_id, result)
        if becomes == "pauses":
            tune_controller.pause_trial(trial, should_checkpoint=False)
            return str(TrialScheduler.NOOP)
        if becomes == "ends":
            self.failed.add(run_id)
            return str(TrialScheduler.STOP)
        return str(TrialScheduler.CONTINUE)

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:
        """Take in a run's last report: of one that is done, Tune asks nobody what becomes of it."""
        del tune_controller
        if trial.config["run_id"] not in self.failed:
            self._admission.reports(trial.config["run_id"], result)

    def on_trial_error(self, tune_controller: Any, trial: Any) -> None:
        """A trial's process is gone: Tune starts it anew, with what the admission says."""
        del tune_controller
        config, request = self._admission.loses(trial.config["run_id"], _error_of(trial))
        trial.set_config(config)
        trial.update_resources(request.resources())


def _actors(controller: Any) -> dict[str, Any]:
    """Return the actors that have their place, by run; also those that have not answered yet, of
    which Tune tells nobody."""
    live = controller._actor_manager._live_actors_to_ray_actors_resources
    return {
        trial.config["run_id"]: live[tracked][0]
        for trial, tracked in controller._trial_to_actor.items()
        if tracked in live
    }


def _error_of(trial: Any) -> str:
    error = None
    with contextlib.suppress(Exception):
        error = trial.get_error()
    return "its process is gone" if error is None else " ".join(str(error).split())[-500:]


class Ends(_Unpickled, tune.Callback):  # type: ignore[misc]
    """Has the results of runs that are given up say so."""

    def __init__(self, turns: Turns) -> None:
        self._turns = turns

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        del iteration, trials, info
        if trial.config["run_id"] in self._turns.failed:
            result["status"] = "failed"


class Stop(_Unpickled, tune.Stopper):  # type: ignore[misc]
    """Ends all trials once the sweep stops; they checkpoint."""

    def __init__(self, admission: Admission) -> None:
        self._admission = admission

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        del trial_id, result
        return False

    def stop_all(self) -> bool:
        return self._admission.stopped is not None


def trial_name(trial: Any) -> str:
    """Return a trial's name: the run's id, model, objective, control and seed."""
    config = trial.config
    said = [str(config[name]) for name in NAMED if config.get(name) is not None]
    return "_".join([config["run_id"], *said]).replace("/", "-")


def run_all(
    trainable: type[tune.Trainable], admission: Admission, reuse: bool = False
) -> tune.ResultGrid:
    """Carry out a sweep, and return Tune's results: one a run. Needs a running Ray.

    ``reuse`` has a trial's process carry out one run after another that holds the same: for a
    cluster of one's own, which does not change. (A trial that ends takes over the process of one
    that waits, and a sweep then does not grow where others leave.)
    """
    # A lost process is an error to Tune, and to us a run that starts again: we say which.
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
    turns = Turns(admission)
    with _settings(), node_scratch("tune") as scratch:
        return tune.Tuner(
            tune.with_resources(trainable, resources_of),
            tune_config=tune.TuneConfig(
                search_alg=Offers(admission),
                scheduler=turns,
                num_samples=-1,
                max_concurrent_trials=None,
                reuse_actors=reuse,
                trial_name_creator=trial_name,
                trial_dirname_creator=lambda trial: trial.config["run_id"],
            ),
            run_config=tune.RunConfig(
                name="sweep",
                storage_path=str(scratch),
                verbose=0,
                stop=Stop(admission),
                failure_config=tune.FailureConfig(max_failures=-1),
                callbacks=[Ends(turns)],
            ),
        ).fit()


@contextlib.contextmanager
def _settings() -> Iterator[None]:
    """Have Tune take as many trials as the policy offers, and keep no state of its own."""
    said = {PENDING: str(MOST_PENDING), STATE: str(STATE_SECONDS)}
    before = {name: os.environ.get(name) for name in said}
    os.environ.update(said)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
