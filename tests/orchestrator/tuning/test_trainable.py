"""The trial adapter as a plain object: no Ray is started."""

import signal

import pytest

from orchestrator.ranks.gang import RankLost, RunBroken
from orchestrator.tuning import trainable
from orchestrator.tuning.request import Request
from orchestrator.tuning.trainable import PORTS, RunTrainable
from sweeps.store.store import Store
from workers.progress import Progress
from workers.ranks.rank_process import Broken

SEATS = [("node", "3"), ("node", "5")]


def request(run_id="a" * 12, **fields):
    return Request(run_id, "", "store", {"CPU": 1.0}, **fields)


class Scripted(RunTrainable):
    """A trial each of whose attempts is the next of a list of generators of progress."""

    def __init__(self, *script, asked=None):
        self.script, self.started = list(script), []
        self.setup((asked or request()).config({}))

    def seats(self, request):
        del request
        return SEATS

    def start(self, request):
        self.started.append(request.run_id)
        return self.script.pop(0)(self._notice)


@pytest.fixture(autouse=True)
def sigterm_as_before(monkeypatch):
    monkeypatch.setattr(trainable, "REPORT_SECONDS", 0.0)
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


def raises(error):
    def attempt(notice):
        del notice
        yield Progress(0, 9, None)
        raise error

    return attempt


def broken(what, text):
    return raises(RunBroken(Broken(what, text)))


def finishes(notice):
    del notice
    yield Progress(4, 9, 0.5, None, 3, 1e-3)
    yield Progress(9, 9, 0.25, "finished", 3, 1e-4, {"step": 9, "slope": 0.1})


def goes_on(notice):
    for step in range(1, 10**6):
        progress = Progress(step, 10**6, 0.5, notice.cause)
        yield progress
        if progress.status:
            return


def reports_of(trial):
    found = [trial.step()]
    while not found[-1]["status"]:
        found.append(trial.step())
    return found


def last_of(*script, **fields):
    return reports_of(Scripted(*script, **fields))[-1]


def test_the_first_report_says_where_the_run_is_and_the_others_how_far():
    first, between, last = reports_of(Scripted(finishes))
    assert (first["seats"], first["status"], first["done"]) == (SEATS, None, False)
    assert (between["step"], between["steps"], between["loss"]) == (4, 9, 0.5)
    assert (last["status"], last["done"], last["resumed_from"]) == ("finished", True, 3)
    assert (last["learning_rate"], last["probe"]) == (1e-4, {"step": 9, "slope": 0.1})
    assert "seats" not in between
    assert "seats" not in last


def test_every_report_has_the_run_and_the_metric_that_tune_insists_on():
    for script in (finishes, broken("mistake", "UserError: no"), raises(RankLost("rank 0"))):
        assert all({"step", "run_id", "done"} <= set(one) for one in reports_of(Scripted(script)))


@pytest.mark.parametrize("what", ["error", "memory", "store", "mistake", "superseded", "fork"])
def test_a_run_that_broke_asks_for_another_try_and_says_why(what):
    report = last_of(broken(what, "Error: so it was"))
    assert (report["status"], report["what"], report["done"]) == ("again", what, False)
    assert report["error"] == "Error: so it was"


def test_a_lost_rank_asks_for_another_try():
    report = last_of(raises(RankLost("rank 1 of 2: process 7 died")))
    assert (report["status"], report["what"]) == ("again", "lost")
    assert report["error"] == "rank 1 of 2: process 7 died"


def test_a_taken_port_is_tried_again_by_the_trial_itself():
    port = broken("port", "OSError: EADDRINUSE")
    trial = Scripted(*[port] * PORTS, finishes)
    assert reports_of(trial)[-1]["status"] == "finished"
    assert len(trial.started) == PORTS + 1
    assert last_of(*[port] * (PORTS + 1))["what"] == "port"


def test_a_run_without_a_result_ends_the_process():
    def says_nothing(notice):
        del notice
        yield Progress(0, 9, None)

    trial = Scripted(says_nothing)
    trial.step()
    with pytest.raises(RuntimeError, match="without a result"):
        reports_of(trial)


def test_a_node_that_does_not_see_the_store_is_named_before_the_run_begins(tmp_path):
    Store(tmp_path).identify()
    asked = Request("a" * 12, "", str(tmp_path), {"CPU": 1.0}, store_id="another")
    trial = Scripted(finishes, asked=asked)
    report = trial.step()
    assert (report["status"], report["what"], report["seats"]) == ("again", "node", SEATS)
    assert "is not the store that the driver sees" in report["error"]
    assert trial.started == []


def test_the_store_of_the_driver_is_written(tmp_path):
    asked = Request("a" * 12, "", str(tmp_path), {}, store_id=Store(tmp_path).identify())
    assert last_of(finishes, asked=asked)["status"] == "finished"


def test_a_run_that_is_given_up_fails_without_being_started():
    trial = Scripted(finishes, asked=request(given_up="lost 3 times"))
    report = trial.step()
    assert (report["status"], report["done"], report["error"]) == ("failed", True, "lost 3 times")
    assert trial.started == []


def test_a_trial_that_steps_back_is_handed_back_without_being_started():
    trial = Scripted(finishes, asked=request(steps_back=True))
    report = trial.step()
    assert (report["status"], report["done"], trial.started) == ("again", False, [])


def test_sigterm_stops_the_run_which_is_to_go_on_elsewhere():
    trial = Scripted(goes_on)
    trial.step()
    trial.step()
    signal.raise_signal(signal.SIGTERM)
    report = reports_of(trial)[-1]
    assert (report["status"], report["done"]) == ("preempted", False)


def test_a_trial_that_is_ended_finishes_the_step_it_is_in():
    seen = []

    def noted(notice):
        for progress in goes_on(notice):
            yield progress
            seen.append(progress.status)

    trial = Scripted(noted)
    trial.step()
    trial.step()
    trial.cleanup()
    assert seen[-1] == "cancelled"
    assert len(seen) < 5


def test_a_trial_that_is_ended_while_it_loads_does_not_wait_for_that():
    closed = []

    def loads(notice):
        del notice
        try:
            while True:
                yield Progress(0, 9, None)
        except GeneratorExit:
            closed.append(True)
            raise

    trial = Scripted(loads)
    trial.step()
    trial.step()
    trial.cleanup()
    assert closed == [True]


def test_the_ranks_of_a_run_are_gone_when_its_end_is_told():
    gone = []

    def held(notice):
        del notice
        yield Progress(1, 1, 0.5, "finished")
        gone.append(True)

    assert (last_of(held)["status"], gone) == ("finished", [True])


def test_a_trial_goes_on_with_another_run_as_if_it_were_the_first():
    trial = Scripted(broken("port", "EADDRINUSE"), goes_on, finishes)
    trial.step()
    trial.step()
    signal.raise_signal(signal.SIGTERM)
    assert reports_of(trial)[-1]["status"] == "preempted"
    assert trial.reset_config(request("b" * 12).config({}))
    reports = reports_of(trial)
    assert {report["run_id"] for report in reports} == {"b" * 12}
    assert (reports[0]["seats"], reports[-1]["status"]) == (SEATS, "finished")
    assert trial.started == ["a" * 12, "a" * 12, "b" * 12]
