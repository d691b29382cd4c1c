"""A run that is evaluated while it trains: its rows, however often it is interrupted, and its end
where it gets no better."""

import json

import polars as pl
import pytest
import torch
from small_run import make_run

from sweeps.declaration.entries.sweep_spec import DataEntry
from sweeps.declaration.sources import resolve_data
from sweeps.reading.digest import digests
from sweeps.reading.tables import Tables
from sweeps.spec import Evaluation, Execution, NoImprovement, Objective, Optimizer
from sweeps.store.store import Store
from sweeps.upkeep.audit import audit
from workers.assembly import assemble
from workers.evaluation.held_out import HeldOut
from workers.models.standins import build_tokenizer
from workers.ranks.notice import Notice
from workers.ranks.process_group import ALONE
from workers.train import train

CPU = torch.device("cpu")


@pytest.fixture
def make_store(share_cache, tmp_path):
    def made(name):
        return Store(share_cache(tmp_path / name))

    return made


def a_run(**fields):
    evaluation = Evaluation(fraction=0.2, every=2, batches=3)
    return make_run(**{"evaluation": evaluation, "steps": 9, **fields})


def scores(store, run):
    table = Tables(store, [run], include_running=False).evaluations()
    return table.select("step", "score", "value", "targets").sort("step", "score").collect()


def table_digests(store, run):
    found = digests(Tables(store, [run], include_running=False))
    return {one.table: one.sha256 for one in found}


def test_it_is_scored_before_the_first_step_at_probes_in_between_and_at_the_end(make_store):
    store, run = make_store("store"), a_run()
    progress = list(train(run, store, CPU))
    found = scores(store, run)
    assert found["step"].unique().sort().to_list() == [0, 2, 3, 4, 6, 8, 9]
    assert found["score"].unique().sort().to_list() == ["loss", "perplexity"]
    assert found["targets"].unique().to_list() == [3 * 4 * 15]
    last = found.filter(pl.col("step") == 9, pl.col("score") == "loss")["value"].item()
    runs = Tables(store, [run], include_running=False).runs().collect()
    first = found.filter(pl.col("step") == 0, pl.col("score") == "loss")["value"].item()
    assert runs["evaluation_loss"].item() == last
    assert runs["evaluation_loss_change"].item() == pytest.approx(last - first)
    assert runs["evaluation_accuracy"].item() is None
    assert progress[1].evaluation["step"] == 0
    assert progress[-1].evaluation["loss"] == last
    assert list(audit(store)) == []


def test_a_run_without_evaluation_trains_the_same_steps(make_store):
    store, run = make_store("store"), a_run()
    data = run.objective.data
    scored = run.model_copy(update={"evaluation": Evaluation(data=data, every=2, batches=3)})
    plain = run.model_copy(update={"evaluation": None})
    for one in (scored, plain):
        list(train(one, store, CPU))
    steps = [
        Tables(store, [one], include_running=False).steps().select("step", "loss").sort("step")
        for one in (scored, plain)
    ]
    assert steps[0].collect().equals(steps[1].collect())


def test_held_out_rows_are_not_trained_on(make_store, tmp_path):
    lines = [json.dumps({"text": f"{7919 * k} is number {k}"}) for k in range(1, 301)]
    (tmp_path / "numbers.jsonl").write_text("\n".join(lines))
    data = resolve_data(DataEntry(file="numbers.jsonl"), ("text",), tmp_path)
    run = a_run(objective=Objective(kind="clm", data=data))
    parts = assemble(run, make_store("store"), CPU, ALONE)
    trained = {tuple(row) for row in parts.batches.arrays["input_ids"].tolist()}
    held_out = HeldOut(run, build_tokenizer(run.model.source), tmp_path / "cache")
    scored = {tuple(row) for row in held_out.arrays["input_ids"].tolist()}
    assert scored & trained == set()
    assert len(scored) / (len(scored) + len(trained)) == pytest.approx(0.2, abs=0.02)


IN_PARTS = a_run(execution=Execution(part_steps=4, checkpoint_share=1))


@pytest.fixture(scope="module")
def whole(share_cache, tmp_path_factory):
    """A store in which the run was not interrupted."""
    store = Store(share_cache(tmp_path_factory.mktemp("whole")))
    list(train(IN_PARTS, store, CPU))
    return store


@pytest.mark.parametrize("stop_after", [0, 3, 5])
def test_it_has_the_same_rows_however_it_was_interrupted(stop_after, whole, make_store):
    run, broken = IN_PARTS, make_store("broken")
    notice = Notice()
    for progress in train(run, broken, CPU, notice=notice):
        if progress.step == stop_after:
            notice.give("preempted")
    assert progress.status == "preempted"
    assert list(train(run, broken, CPU))[-1].status == "finished"
    assert table_digests(broken, run) == table_digests(whole, run)
    assert broken.run(run.run_id).done()["evaluation"] == whole.run(run.run_id).done()["evaluation"]


def test_it_has_the_same_rows_after_a_crash(whole, make_store):
    run, broken = IN_PARTS, make_store("broken")
    progress = train(run, broken, CPU)
    while next(progress).step < 7:
        pass
    with pytest.raises(ZeroDivisionError):
        progress.throw(ZeroDivisionError())
    assert list(train(run, broken, CPU))[-1].resumed_from == 4
    assert table_digests(broken, run) == table_digests(whole, run)


def stopping(**fields):
    """A learning rate so high that nothing gets better."""
    return a_run(
        stop=NoImprovement(over=2),
        optimizer=Optimizer(learning_rate=3.0),
        steps=12,
        **fields,
    )


def test_a_run_that_gets_no_better_stops_and_is_a_whole_result(make_store):
    store, run = make_store("store"), stopping()
    assert list(train(run, store, CPU))[-1].status == "stopped"
    done = store.run(run.run_id).done()
    assert (done["status"], done["step"]) == ("stopped", 3)  # after step 0 came 2 and 3
    tables = Tables(store, [run], include_running=False)
    assert tables.profiles().select("step").unique().collect()["step"].to_list() == [3]
    assert tables.jackknife().select("step").unique().collect()["step"].to_list() == [3]
    assert list(audit(store)) == []


def test_a_stop_is_seen_again_by_an_attempt_that_goes_on_from_there(make_store):
    execution = Execution(part_steps=4, checkpoint_share=1, keep_checkpoint=True)
    store, run = make_store("store"), stopping(execution=execution)
    list(train(run, store, CPU))
    folder = store.run(run.run_id)
    before = table_digests(store, run)
    assert folder.checkpoint_steps() == [3]
    (folder.path / "DONE.json").unlink()  # lost between the checkpoint and the closing record
    progress = list(train(run, store, CPU))
    assert (progress[-1].status, progress[-1].step) == ("stopped", 3)
    assert table_digests(store, run) == before
