"""A measurement as a rank carries it out: its records, its end, what cannot be measured."""

import pytest
import torch
from small_run import DOCS, make_run

from sweeps.errors import Impossible, UserError
from sweeps.reading.measurements import propagation_of, recorded, refusal_of
from sweeps.spec import MEASUREMENTS, Measurement, Objective
from sweeps.store.store import Store
from workers import measurement as module
from workers.measurement import measure
from workers.rank_run import measure_rank
from workers.ranks.notice import Notice
from workers.ranks.rank_process import Job

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return a_store(tmp_path_factory.mktemp("measured"))


def a_store(folder):
    store = Store.at(str(folder / "store"))
    store.identify()
    return store


def one_of(kind, **fields):
    objective = Objective(name="my-text", kind="clm", data=DOCS)
    return Measurement(kind=kind, run=make_run(objective=objective, **fields))


@pytest.mark.parametrize("kind", MEASUREMENTS)
def test_a_result_is_recorded_once_and_what_made_it(store, kind):
    wanted = one_of(kind)
    job = Job(wanted.model_dump_json(), store.location, threads=1)
    seen = list(measure_rank(job, Notice()))
    assert [progress.status for progress in seen[:-1]] == [None] * (len(seen) - 1)
    assert (seen[-1].status, seen[-1].step) == ("finished", len(seen) - 2)
    folder = store.work(wanted.work_id)
    assert [attempt["cause"] for attempt in folder.attempts()] == ["finished"]
    assert folder.log_path(1).is_file()
    result = recorded(store, wanted)
    assert result["made_on"]["hardware"]["device"] == "cpu"
    if kind == "propagation":
        assert (seen[-1].step, propagation_of(result)[2]) == (20, 20)
    again = list(measure(wanted, store, CPU))
    assert [progress.status for progress in again] == ["finished"]
    assert [attempt["cause"] for attempt in folder.attempts()] == ["finished", "not needed"]


def test_equal_seeds_give_equal_results(store, tmp_path):
    other = a_store(tmp_path)
    for kind in MEASUREMENTS:
        wanted = one_of(kind, seed=5)  # the run's own seed decides nothing
        list(measure(wanted, other, CPU))
        assert recorded(other, wanted) == recorded(store, one_of(kind))


@pytest.mark.parametrize("kind", MEASUREMENTS)
def test_a_notice_stops_it_without_a_result(share_cache, tmp_path, kind):
    share_cache(tmp_path / "store")
    here = a_store(tmp_path)
    wanted, notice = one_of(kind), Notice()
    going = measure(wanted, here, CPU, notice)
    for _ in range(3):
        next(going)
    notice.give("preempted")
    (last,) = going
    assert last.status == "preempted"
    folder = here.work(wanted.work_id)
    assert folder.done() is None
    assert folder.newest_attempt()["cause"] == "preempted"
    going = measure(wanted, here, CPU)
    next(going)
    going.close()
    assert folder.newest_attempt()["cause"] == "cancelled"


def test_what_the_model_cannot_do_is_a_result_and_what_a_user_may_mend_is_not(
    tmp_path, monkeypatch
):
    here, wanted = a_store(tmp_path), one_of("objective_distance")

    def refuse(*_, needs_head):
        assert needs_head
        raise Impossible("model tiny: its checkpoint lacks lm_head.weight")

    monkeypatch.setattr(module, "load_model", refuse)
    assert list(measure(wanted, here, CPU))[-1].status == "finished"
    assert "lacks lm_head.weight" in refusal_of(here, wanted)
    assert recorded(here, wanted) is None
    assert [p.status for p in measure(wanted, here, CPU)] == ["finished"], "not tried again"
    here.known(wanted.work_id).forget()
    assert refusal_of(here, wanted) is None

    def mistake(*_, needs_head):
        raise UserError(f"model tiny: its folder was edited ({needs_head})")

    monkeypatch.setattr(module, "load_model", mistake)
    with pytest.raises(UserError, match="was edited"):
        list(measure(wanted, here, CPU))
    assert here.work(wanted.work_id).done() is None
    assert here.work(wanted.work_id).newest_attempt()["cause"] == "failed"
