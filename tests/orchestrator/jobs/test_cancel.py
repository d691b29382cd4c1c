"""What a cancelled sweep says of what is left of it."""

import dataclasses

import pytest
from planted_measurements import record_result
from planted_store import run_spec, save_sweep, write_run

from orchestrator.jobs import submission
from orchestrator.jobs.job_identity import JobState
from sweeps.store.store import Store
from tests.orchestrator.command_line import typed


@dataclasses.dataclass
class Job:
    """A queue with one job, which ends when it is told to."""

    state: str = "running"

    def jobs(self):
        return [JobState("depthsweep-s-1", self.state)]

    def stop(self, submission_id):
        assert submission_id == "depthsweep-s-1"
        self.state = "stopped"


@pytest.fixture
def store(tmp_path, monkeypatch):
    queue = Job()
    found = submission.Found(queue, queue.jobs()[0], "local")
    monkeypatch.setattr(submission, "find", lambda *_: found)
    return Store.at(str(tmp_path / "store"))


@pytest.mark.parametrize(
    ("finished", "measured", "left"),
    [(1, True, True), (2, False, True), (2, True, False)],
    ids=["a run", "a measurement", "nothing"],
)
def test_a_resume_is_proposed_where_something_is_left(store, finished, measured, left):
    runs = [run_spec("gpt2", "clm", "standard", seed) for seed in (0, 1)]
    for run in runs[:finished]:
        write_run(store, run, [0.1, 0.2, 0.3, 0.4])
    sweep = save_sweep(store, "s", runs)
    for one in sweep.to_measure if measured else ():
        record_result(store, one, {})
    done = typed("cancel", "s", "--store", store.location)
    assert done.returncode == 0, done.stderr
    head, counts, last = done.stdout.splitlines()
    assert head == "depthsweep-s-1 stopped"
    assert counts.startswith(f"  {finished} finished")
    resume = f"  depthsweep resume s --cluster local --store {store.location}"
    assert last == (resume if left else "  nothing is left to run")
