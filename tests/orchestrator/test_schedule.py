"""The trial adapter as a plain object, and what a trial reserves: no Ray is started."""

import signal
from typing import ClassVar

import pytest
import torch

from orchestrator.schedule import resources_of
from orchestrator.trainable import Preempted, RunTrainable, with_half_the_micro_batch
from sweeps.errors import UserError
from sweeps.expand import read_sweep
from sweeps.spec import RunSpec
from workers.train import Progress

RUN = read_sweep("sweeps/library/demo.yaml").runs[0]


def test_ranks_share_a_node_where_one_has_room_for_them():
    gang = {"cpus": 2, "gpus": 1, "ranks": 2}
    together = resources_of({**gang, "one_node": True})
    assert together.strategy == "STRICT_PACK"
    assert together.bundles == [{"CPU": 2, "GPU": 1}] * 2
    assert resources_of({**gang, "one_node": False}).strategy == "PACK"
    alone = resources_of({"cpus": 0.5, "gpus": 0.25, "ranks": 0, "one_node": True})
    assert alone.bundles == [{"CPU": 0.5, "GPU": 0.25}]


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
        self.setup({"run_id": RUN.run_id, "spec": RUN.model_dump_json()})

    def start(self, config):
        self.started.append(RunSpec.model_validate_json(config["spec"]).micro_batch_size)

        def attempt():
            yield Progress(0, 1, None)
            if self.script:
                raise self.script.pop(0)
            yield Progress(1, 1, 0.5, "finished")

        return attempt()


def ended(*errors):
    Scripted.script = list(errors)
    trial = Scripted()
    return trial, trial.step()


def test_a_process_that_is_told_to_go_reports_and_then_ends():
    class Told(Scripted):
        def start(self, config):
            del config

            def attempt():
                yield Progress(0, 9, None)
                signal.raise_signal(signal.SIGTERM)
                assert self._notice.cause == "preempted"
                yield Progress(4, 9, 0.5, "preempted", 2)

            return attempt()

    trial = Told()
    report = trial.step()
    assert (report["status"], report["done"], report["step"]) == ("preempted", False, 4)
    assert report["resumed_from"] == 2
    with pytest.raises(Preempted):
        trial.step()


def test_a_trial_that_is_ended_finishes_the_step_it_is_in():
    seen = []

    class Long(Scripted):
        def start(self, config):
            del config

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


def test_an_error_is_tried_once_more():
    trial, report = ended(RuntimeError("flaky"))
    assert (report["status"], len(trial.started)) == ("finished", 2)


def test_the_second_error_fails_the_run_with_its_message():
    trial, report = ended(RuntimeError("one"), RuntimeError("two\nlines"))
    assert (report["status"], report["done"]) == ("failed", True)
    assert report["error"] == "RuntimeError: two lines"
    assert len(trial.started) == 2


def test_every_report_has_the_metric_that_tune_insists_on():
    class Broken(Scripted):
        def start(self, config):
            del config

            def attempt():
                raise UserError("no such column")
                yield

            return attempt()

    assert Broken().step()["step"] == 0


def test_a_mistake_of_the_users_is_not_tried_again():
    trial, report = ended(UserError("no such column"))
    assert (report["status"], len(trial.started)) == ("failed", 1)


def test_out_of_memory_halves_the_micro_batch_until_it_fits():
    trial, report = ended(torch.OutOfMemoryError(), torch.OutOfMemoryError())
    assert report["status"] == "finished"
    assert trial.started == [16, 8, 4]


def test_out_of_memory_with_one_sequence_fails():
    _, report = ended(*[torch.OutOfMemoryError() for _ in range(9)])
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
