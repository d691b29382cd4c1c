"""Runs under a selection: what they train on, in which order, and after they were stopped."""

import json
import re
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from sample_norms import batches_of
from small_run import make_run

from sweeps.errors import UserError
from sweeps.reading.digest import digests
from sweeps.reading.query import query, render
from sweeps.reading.tables import open_store
from sweeps.rows.data_files import data_files
from sweeps.sources.content import data_digest
from sweeps.spec import (
    All,
    Execution,
    FileData,
    High,
    LayerRates,
    Low,
    Moderate,
    Objective,
    Random,
)
from sweeps.store.store import Store
from sweeps.upkeep.audit import audit
from workers.train import train

CPU = torch.device("cpu")


@pytest.fixture
def new_store(share_cache):
    def made(folder):
        store = Store.at(str(share_cache(folder)))
        store.identify()
        return store

    return made


def table(store, run, name):
    parts = store.run(run.run_id).parts(name)
    return [row for part in parts for row in pq.read_table(part, partitioning=None).to_pylist()]


def finish(run, store):
    return [one.status for one in train(run, store, CPU)][-1]


def test_every_arm_makes_as_many_updates_of_as_many_examples(new_store, tmp_path):
    store, targets = new_store(tmp_path), {}
    for selection in (All(), Random(), Low(), High(share=0.5)):
        run = make_run(selection=selection)
        assert finish(run, store) == "finished"
        steps = table(store, run, "steps")
        targets[selection.kind] = [row["targets"] for row in steps]
        rows = table(store, run, "samples")
        assert len(rows) == (0 if selection.kind == "all" else 7 * run.candidates)
        assert sum(row["chosen"] for row in rows) == (7 * 4 if rows else 0)
    assert len({str(each) for each in targets.values()}) == 1
    tables = open_store(tmp_path)
    sql = (
        "SELECT selection, chosen, count(*) AS n, avg(grad_norm) AS g FROM samples"
        " WHERE step = 1 GROUP BY ALL ORDER BY selection, chosen"
    )
    found = {(row[0], row[1]): row[3] for row in query(tables, sql).iter_rows()}
    assert found["high", True] > found["high", False]
    assert found["low", True] < found["low", False]
    assert found["random", True] is None
    assert [one.what for one in audit(store)] == []
    text = render(query(tables, "SELECT layer_shares FROM samples WHERE selection = 'low'"), "csv")
    assert len(text.splitlines()[1].split()) == 5, "embedding, three blocks and a head"


def test_what_is_trained_on_are_the_chosen_rows_of_the_candidates(new_store, tmp_path):
    run = make_run(selection=Low(share=0.5), steps=3)
    store = new_store(tmp_path)
    finish(run, store)
    rows = table(store, run, "samples")
    first = [row["loss"] for row in rows if row["step"] == 1 and row["chosen"]]
    step, *_ = table(store, run, "steps")
    assert step["loss"] == pytest.approx(sum(first) / len(first), rel=1e-5)


@pytest.mark.parametrize("micro", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_the_micro_batch_does_not_show(micro, new_store, tmp_path):
    chosen = []
    for size in (micro, 4):
        run = make_run(selection=Moderate(), execution=Execution(micro_batch_size=size))
        finish(run, store := new_store(tmp_path / str(size)))
        rows = table(store, run, "samples")
        chosen.append([(r["step"], r["example"]) for r in rows if r["chosen"]])
    assert chosen[0] == chosen[1]


@pytest.mark.parametrize("stopped_after", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_a_run_that_is_stopped_chooses_and_ends_as_one_that_is_not(
    stopped_after, new_store, tmp_path
):
    run = make_run(selection=High())
    assert finish(run, new_store(tmp_path / "whole")) == "finished"
    store = new_store(tmp_path / "stopped")
    for progress in train(run, store, CPU):
        if progress.step == stopped_after:
            break
    assert finish(run, store) == "finished"
    one, other = (list(digests(open_store(tmp_path / name))) for name in ("whole", "stopped"))
    assert one == other
    assert {each.table for each in one} >= {"samples", "steps"}


def test_a_control_that_learns_from_batches_goes_with_it(new_store, tmp_path):
    run = make_run(selection=High(), control=LayerRates(rates="rgn"), steps=3)
    assert finish(run, store := new_store(tmp_path)) == "finished"
    assert len(table(store, run, "samples")) == 3 * 20


@pytest.mark.parametrize("family", ["bert", "gpt2"])
def test_what_is_masked_of_an_example_is_what_it_was_chosen_with(family):
    batches, _, _ = batches_of(family, "full", 4)
    candidates, examples = batches.candidates(2)
    batch, rows = batches.of(2)
    chosen = [row["candidate"] for row in rows if row["chosen"]]
    assert len(chosen) == 4
    assert all(torch.equal(batch[name], candidates[name][chosen]) for name in candidates)
    assert [row["example"] for row in rows] == examples.tolist()


def test_the_question_on_the_page_is_answered(new_store, tmp_path):
    run = make_run(selection=High(share=0.5), steps=3)
    finish(run, new_store(tmp_path))
    page = Path("workers/selection/README.md").read_text(encoding="utf-8")
    (sql,) = re.findall(r"```sql\n(.*?)```", page, flags=re.S)
    answer = query(open_store(tmp_path), sql).sort("chosen")
    assert answer["chosen"].to_list() == [False, True]
    shares = [row["layer_shares"][0] for row in table_of_chosen(tmp_path, run)]
    assert answer["of_embedding"][1] == pytest.approx(sum(shares) / len(shares))


def table_of_chosen(folder, run):
    return [row for row in table(Store.at(str(folder)), run, "samples") if row["chosen"]]


def test_fewer_examples_than_candidates_are_refused(new_store, tmp_path):
    path = tmp_path / "rows.jsonl"
    rows = [{"text": f"line {k} of text", "label": k % 2} for k in range(12)]
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    data = FileData(
        file=str(path),
        digest=data_digest(data_files(path, None)),
        columns={"text": "text", "label": "label"},
    )
    objective = Objective(kind="classification", data=data, labels=2, pooling="mean")
    run = make_run(selection=High(), objective=objective)
    store = new_store(tmp_path / "store")
    with pytest.raises(UserError, match="chooses from 20 candidates, and there are 12"):
        list(train(run, store, CPU))
    run = make_run(selection=High(share=0.5), objective=objective)
    finish(run, store)
    lengths = {row["length"] for row in table(store, run, "samples")}
    assert lengths
    assert max(lengths) <= 16
