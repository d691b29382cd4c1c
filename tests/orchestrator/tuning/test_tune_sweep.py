"""The trial adapter as a plain object, and what a trial reserves: no Ray is started."""

import signal
from typing import ClassVar

import pytest

from orchestrator.ranks.gang import RankLost, RunBroken
from orchestrator.tuning import trainable
from orchestrator.tuning.trainable import Preempted, RunTrainable, with_half_the_micro_batch
from orchestrator.tuning.tune_sweep import resources_of
from sweeps.declaration.expand import read_sweep
from sweeps.spec import RunSpec
from workers.progress import Progress
from workers.ranks.rank_process import Broken, Job

RUN = read_sweep("sweeps/library/demo.yaml").runs[0]


def test_trials_of_all_shapes_ask_tune_for_the_same_on_their_node():
    wide = resources_of({"node": "a", "trial": "1", "run": {"gpus": 4}})
    assert wide == resources_of({"node": "a", "trial": "2", "run": None})
    assert wide != resources_of({"node": "b", "trial": "3", "run": None})
    assert wide.required_resources == {"memory": 1}


@pytest.fixture(autouse=True)
def sigterm_as_before():
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


class Scripted(RunTrainable):
    """A trial whose attempts raise what the script says, then finish."""

    script: ClassVar[list] = []

    def __init__(self):
        self.started = []
        run = {"run_id": RUN.run_id, "job": Job(RUN.model_dump_json(), "store", 1)}
        self.setup({"node": "n", "trial": "t", "run": run})

    def start(self, run):
        self.started.append(RunSpec.model_validate_json(run["job"].spec).micro_batch_size)

        def attempt():
            yield Progress(0, 1, None)
            if self.script:
                raise self.script.pop(0)
            yield Progress(1, 1, 0.5, "finished")

        return attempt()


def ended(*errors):
    Scripted.script = list(errors)
    trial = Scripted()
    return trial, last_report(trial)


def last_report(trial):
    while True:
        report = trial.step()
        if report["done"] or report["status"]:
            return report


def broken(what, text):
    return RunBroken(Broken(what, text))


def test_a_process_that_is_told_to_go_reports_and_then_ends():
    class Told(Scripted):
        def start(self, run):
            del run

            def attempt():
                yield Progress(0, 9, None)
                signal.raise_signal(signal.SIGTERM)
                assert self._notice.cause == "preempted"
                yield Progress(4, 9, 0.5, "preempted", 2)

            return attempt()

    trial = Told()
    report = last_report(trial)
    assert (report["status"], report["done"], report["step"]) == ("preempted", False, 4)
    assert report["resumed_from"] == 2
    with pytest.raises(Preempted):
        trial.step()


def test_a_trial_goes_on_with_the_runs_it_is_given_until_there_are_none(monkeypatch):
    trial, report = ended(broken("mistake", "UserError: no such column"))
    assert report["status"] == "failed"
    run = {"run_id": "second", "job": Job(RUN.model_dump_json(), "store", 1)}
    given = [None, run, {}]
    monkeypatch.setattr(trainable, "assignment", lambda *_: given.pop(0))
    assert trial.step() == {"step": 0, "status": None, "done": False}
    report = last_report(trial)
    assert (report["run_id"], report["status"]) == ("second", "finished")
    assert trial.step()["done"]


def test_the_ranks_of_a_run_are_gone_when_its_end_is_told():
    gone = []

    class Held(Scripted):
        def start(self, run):
            del run

            def attempt():
                yield Progress(1, 1, 0.5, "finished")
                gone.append(True)

            return attempt()

    assert (last_report(Held())["status"], gone) == ("finished", [True])


def test_a_trial_that_is_ended_finishes_the_step_it_is_in():
    seen = []

    class Long(Scripted):
        def start(self, run):
            del run

            def attempt():
                for step in range(1, 10**6):
                    yield Progress(step, 10**6, 0.5, self._notice.cause)
                    if self._notice.cause:
                        seen.append(step)
                        return

            return attempt()

    trial = Long()
    trial.step()
    trial.cleanup()
    assert len(seen) == 1


FULL = broken("memory", "OutOfMemoryError: 2 GiB")


def test_an_error_is_tried_once_more():
    trial, report = ended(broken("error", "RuntimeError: flaky"))
    assert (report["status"], len(trial.started)) == ("finished", 2)


def test_the_second_error_fails_the_run_with_its_message():
    trial, report = ended(
        broken("error", "RuntimeError: one"), broken("error", "RuntimeError: two")
    )
    assert (report["status"], report["done"]) == ("failed", False)
    assert report["error"] == "RuntimeError: two"
    assert len(trial.started) == 2


def test_every_report_has_the_metric_that_tune_insists_on():
    class Broken(Scripted):
        def start(self, run):
            del run

            def attempt():
                raise broken("mistake", "UserError: no such column")
                yield

            return attempt()

    assert Broken().step()["step"] == 0


def test_a_run_that_another_attempt_took_over_is_waited_for_as_often_as_it_takes():
    trial, report = ended(*[broken("superseded", "Superseded: attempt 2")] * 5)
    assert (report["status"], len(trial.started)) == ("finished", 6)


def test_a_store_that_stays_away_fails_the_run_at_once():
    trial, report = ended(broken("store", "StoreUnavailable: no space"))
    assert (report["status"], len(trial.started)) == ("failed", 1)


def test_a_lost_rank_ends_the_trial():
    with pytest.raises(RankLost):
        ended(RankLost("rank 1 of 2: process 7 died"))


def test_a_trial_without_a_run_waits_for_one_and_ends_when_there_is_none(monkeypatch):
    answers = [None, None, {}]
    monkeypatch.setattr(trainable, "assignment", lambda *_: answers.pop(0))
    trial = object.__new__(RunTrainable)
    trial.setup({"node": "n", "trial": "t", "run": None})
    reports = [trial.step() for _ in range(3)]
    assert [(report["done"], report["status"]) for report in reports] == [
        (False, None),
        (False, None),
        (True, None),
    ]


def test_a_trial_without_a_run_begins_the_one_it_is_given(monkeypatch):
    given = {"run_id": RUN.run_id, "job": Job(RUN.model_dump_json(), "store", 1)}
    monkeypatch.setattr(trainable, "assignment", lambda *_: given)
    trial = object.__new__(Scripted)
    trial.started = []
    trial.setup({"node": "n", "trial": "t", "run": None})
    assert last_report(trial)["status"] == "finished"


def test_a_mistake_of_the_users_is_not_tried_again():
    trial, report = ended(broken("mistake", "UserError: no such column"))
    assert (report["status"], len(trial.started)) == ("failed", 1)


def test_out_of_memory_halves_the_micro_batch_until_it_fits():
    trial, report = ended(FULL, FULL)
    assert report["status"] == "finished"
    assert trial.started == [16, 8, 4]


def test_out_of_memory_with_one_sequence_fails():
    _, report = ended(*[FULL] * 9)
    assert report["status"] == "failed"
    assert "OutOfMemoryError" in report["error"]


@pytest.mark.parametrize(("micro", "half"), [(None, 8), (16, 8), (2, 1), (1, None)])
def test_halving_keeps_the_run(micro, half):
    execution = RUN.execution.model_copy(update={"micro_batch_size": micro})
    spec = RUN.model_copy(update={"execution": execution}).model_dump_json()
    halved = with_half_the_micro_batch(spec)
    if half is None:
        assert halved is None
    else:
        smaller = RunSpec.model_validate_json(halved)
        assert (smaller.micro_batch_size, smaller.run_id) == (half, RUN.run_id)
