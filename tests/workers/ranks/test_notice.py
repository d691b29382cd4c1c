"""A run that is told to stop keeps every step it has done."""

import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from small_run import make_run

from sweeps.spec import Execution
from sweeps.store.schema import TABLES
from sweeps.store.store import Store
from sweeps.upkeep.audit import audit
from tests.servers.forked_ranks import run_forked
from workers.ranks.notice import Notice, cause_of, given_by_signals
from workers.ranks.process_group import ALONE
from workers.train import train

CPU = torch.device("cpu")


def a_run(**fields):
    return make_run(
        **{"steps": 11, "execution": Execution(part_steps=4, checkpoint_share=1), **fields}
    )


def parts(store, run):
    folder = store.run(run.run_id)
    found = [(table, part) for table in TABLES for part in folder.parts(table)]
    return {(table, folder.last_step_of(part)): part.read_bytes() for table, part in found}


@pytest.fixture(scope="module")
def whole(share_cache, tmp_path_factory):
    store = Store(share_cache(tmp_path_factory.mktemp("whole")))
    list(train(a_run(), store, CPU))
    return store


@pytest.fixture
def store(share_cache, tmp_path):
    return Store(share_cache(tmp_path))


def stop_at(run, store, step, cause="preempted"):
    notice = Notice()
    for progress in train(run, store, CPU, notice=notice):
        if progress.step == step - 1:
            notice.give(cause)
    return progress


@pytest.mark.parametrize(
    "step", [3, 6, *(pytest.param(k, marks=pytest.mark.slow) for k in (2, 4, 7, 10))]
)
def test_it_stops_after_the_step_it_is_in_and_loses_none(step, store, whole):
    run = a_run()
    last = stop_at(run, store, step)
    assert (last.step, last.status) == (step, "preempted")
    folder = store.run(run.run_id)
    assert folder.attempts()[-1]["cause"] == "preempted"
    assert list(audit(store)) == []
    resumed = list(train(run, store, CPU))
    assert [p.step for p in resumed] == [0, *range(step + 1, 12), 11]
    assert {p.resumed_from for p in resumed[1:]} == {step}
    assert parts(store, run) == parts(whole, run)


def test_a_run_that_is_stopped_after_every_other_step_ends_with_the_same_bytes(store, whole):
    run = a_run()
    for step in (2, 4, 6, 8, 10):
        assert stop_at(run, store, step).step == step
    list(train(run, store, CPU))
    assert parts(store, run) == parts(whole, run)


def test_a_notice_that_comes_first_ends_the_attempt_with_what_there_was(store):
    run = a_run()
    stop_at(run, store, 6)
    notice = Notice()
    notice.give("cancelled")
    *_, last = train(run, store, CPU, notice=notice)
    assert (last.step, last.status, last.resumed_from) == (6, "cancelled", 6)
    assert store.run(run.run_id).checkpoint_steps() == [4, 6]


def test_a_notice_after_the_last_step_is_too_late(store):
    run = a_run()
    notice = Notice()
    for progress in train(run, store, CPU, notice=notice):
        if progress.step == 11:
            notice.give("preempted")
    assert progress.status == "finished"


def test_torn_rows_of_a_checkpoint_between_parts_are_not_trusted(store, whole):
    run = a_run()
    stop_at(run, store, 6)
    kept = store.run(run.run_id).checkpoints()[-1] / "rows-steps.parquet"
    data = bytearray(kept.read_bytes())
    data[len(data) // 2] ^= 1
    kept.write_bytes(data)
    list(train(run, store, CPU))
    assert store.run(run.run_id).attempts()[-1]["resumed_from"] == 4
    assert parts(store, run) == parts(whole, run)


def test_the_first_cause_stays_and_ranks_compare_it_as_a_number():
    notice = Notice()
    assert cause_of(notice.number) is None
    assert ALONE.agreed_cause(notice, CPU) is None
    notice.give("preempted")
    notice.give("cancelled")
    assert cause_of(notice.number) == ALONE.agreed_cause(notice, CPU) == "preempted"


def test_a_second_interrupt_does_not_wait():
    notice, before = Notice(), signal.getsignal(signal.SIGINT)
    with given_by_signals(notice):
        signal.raise_signal(signal.SIGINT)
        assert notice.cause == "cancelled"
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


WORKER = """
import os
from workers import __main__ as worker
with open("pid", "w") as file:
    file.write(str(os.getpid()))
worker.end_process(worker.main())
"""


def test_a_worker_that_gets_sigterm_says_what_it_kept(store):
    run = a_run(steps=400, execution=Execution(part_steps=100))
    (store.root / "run.json").write_text(run.model_dump_json(), encoding="utf-8")
    (store.root / "worker.py").write_text(WORKER)
    words = ["run.json", "--store", str(store.root)]
    pid, said = store.root / "pid", store.root / "said"
    said.touch()
    with ThreadPoolExecutor(1) as beside:
        asked = ([dict(os.environ)], str(said), 120, store.root)
        codes = beside.submit(run_forked, str(store.root / "worker.py"), words, *asked)
        while "step 10/" not in said.read_text() and not codes.done():
            time.sleep(0.05)
        os.kill(int(pid.read_text()), signal.SIGTERM)
        assert codes.result() == [143], said.read_text()
    (attempt,) = store.run(run.run_id).attempts()
    *_, step = store.run(run.run_id).checkpoint_steps()
    assert attempt["cause"] == "preempted"
    assert step >= 10
    assert f"preempted, kept up to step {step}" in said.read_text()


def test_the_last_checkpoint_is_kept_when_asked_for_and_is_sound(store, whole):
    run = a_run(execution=Execution(part_steps=4, checkpoint_share=1, keep="final"))
    list(train(run, store, CPU))
    folder = store.run(run.run_id)
    assert folder.checkpoint_steps() == [11]
    assert parts(store, run) == parts(whole, run)
    assert list(audit(store)) == []


def test_a_run_that_crashed_between_its_last_checkpoint_and_its_end_only_ends(store, whole):
    run = a_run(execution=Execution(part_steps=4, checkpoint_share=1, keep="final"))
    list(train(run, store, CPU))
    folder = store.run(run.run_id)
    (folder.path / "DONE.json").unlink()
    assert [p.step for p in train(run, store, CPU)] == [0, 11]
    assert folder.done()["step"] == 11
    assert parts(store, run) == parts(whole, run)
