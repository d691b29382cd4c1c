"""Scores do not depend on how many ranks there are, on micro-batches, or on what was evaluated
before."""

import json

import numpy as np
import polars as pl
import pytest
import torch
from engine_cells import in_ranks
from small_run import DOCS, make_run
from torch import nn

from sweeps.declaration.entries.sweep_spec import DataEntry
from sweeps.declaration.sources import resolve_data
from sweeps.errors import UserError
from sweeps.spec import (
    DATA_FORMS,
    LOSS,
    OBJECTIVE_DEFAULTS,
    SCORES,
    Evaluation,
    Execution,
    Objective,
    Optimizer,
    scores_of,
)
from sweeps.store.store import Store
from workers import __main__ as worker
from workers.assembly import assemble
from workers.evaluation.evaluator import scoring
from workers.evaluation.held_out import batches_of
from workers.objectives.registry import KINDS, build_objective
from workers.ranks.process_group import ALONE
from workers.train import train

CPU = torch.device("cpu")


def test_batches_go_through_all_examples_in_order():
    assert [list(batch) for batch in batches_of(7, 3, None)] == [[0, 1, 2], [3, 4, 5], [6]]
    assert [list(batch) for batch in batches_of(7, 3, 9)] == [[0, 1, 2], [3, 4, 5], [6]]


def test_some_batches_are_spread_evenly_over_the_examples():
    assert [list(batch) for batch in batches_of(100, 2, 2)] == [[0, 25], [50, 75]]
    whole = np.concatenate(batches_of(1000, 8, 3))
    assert len(set(whole)) == 24
    assert np.diff(whole).min() >= 41


def test_modules_are_left_in_the_mode_in_which_they_were():
    model = nn.Sequential(nn.Dropout(), nn.Sequential(nn.Dropout()), nn.Linear(2, 2))
    model[1].eval()
    before = [module.training for module in model.modules()]
    with scoring(model):
        assert not any(module.training for module in model.modules())
        assert not model[2](torch.ones(2)).requires_grad
    assert [module.training for module in model.modules()] == before
    assert any(before)
    assert not all(before)


def write_rows(folder):
    words = ["red", "blue", "green", "small", "large", "item", "list", "value"]
    for name, count in (("train", 40), ("test", 22)):
        rows = []
        for k in range(count):
            text = " ".join(words[(k * j + len(name)) % 8] for j in range(2 + k % 9))
            rows.append({"text": text, "label": k % 2, "anchor": text, "positive": f"{text} {k}"})
        (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))


def run_of(folder, kind, **fields):
    def data(name):
        return resolve_data(
            DataEntry(file=f"{name}.jsonl"), tuple(DATA_FORMS[kind][0].roles), folder
        )

    objective = Objective(kind=kind, data=data("train"), **OBJECTIVE_DEFAULTS[kind])
    return make_run(
        **{
            "objective": objective,
            "evaluation": Evaluation(data=data("test"), every=2),
            "steps": 4,
            "sequence_length": 8,
            # With an eps far above rounding, steps of two ranks are those of one.
            "optimizer": Optimizer(learning_rate=2e-3, eps=1e-3),
            **fields,
        }
    )


def scores(store, run):
    folder = store.run(run.run_id)
    rows = pl.concat([pl.read_parquet(path) for path in folder.parts("evaluations")])
    return {(row["step"], row["score"]): row["value"] for row in rows.to_dicts()}


@pytest.mark.parametrize(
    ("kind", "stage"),
    [
        ("classification", 2),
        pytest.param("contrastive", 2, marks=pytest.mark.slow),
        pytest.param("classification", 3, marks=pytest.mark.slow),
    ],
)
def test_two_ranks_score_what_one_does(kind, stage, tmp_path):
    pytest.importorskip("deepspeed")
    write_rows(tmp_path)
    alone = run_of(tmp_path, kind, execution=Execution(part_steps=2))
    # 22 examples in batches of 4: six of them, the last one of two; one rank more has nothing then.
    shared = Execution(part_steps=2, processes=2, zero_stage=stage, micro_batch_size=1)
    together = alone.model_copy(update={"execution": shared})
    assert together.run_id == alone.run_id
    one, two = (Store(tmp_path / name) for name in ("one", "two"))
    for store in (one, two):
        store.identify()
    assert list(train(alone, one, CPU))[-1].status == "finished"
    (tmp_path / "run.json").write_text(together.model_dump_json())
    in_ranks(worker.__file__, [str(tmp_path / "run.json"), "--store", str(two.root)], 2)
    expected, found = scores(one, alone), scores(two, together)
    assert {step for step, _ in expected} == {0, 2, 3, 4}
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        assert found[key] == pytest.approx(value, abs=2e-5), key


@pytest.mark.parametrize("kind", ["clm", "classification", "contrastive"])
def test_micro_batches_change_nothing_but_rounding(kind, tmp_path):
    write_rows(tmp_path)
    rows = []
    for micro in (4, 1):
        execution = Execution(part_steps=2, micro_batch_size=micro)
        run = run_of(tmp_path, kind, execution=execution)
        evaluator = assemble(run, Store(tmp_path / "store"), CPU, ALONE).evaluator
        rows.append(evaluator.evaluate())
        assert evaluator.evaluate() == rows[-1]
    for one, other in zip(*rows, strict=True):
        assert one["value"] == pytest.approx(other["value"], rel=1e-5)
        assert {**one, "value": None} == {**other, "value": None}


def test_whole_batches_alone_are_compared_within(tmp_path):
    write_rows(tmp_path)
    run = run_of(tmp_path, "contrastive")
    rows = assemble(run, Store(tmp_path / "store"), CPU, ALONE).evaluator.evaluate()
    assert {row["targets"] for row in rows} == {20}  # of 22, in batches of 4
    large = run_of(tmp_path, "contrastive", batch_size=32)
    with pytest.raises(UserError, match="22 held-out examples, fewer than one batch of 32"):
        assemble(large, Store(tmp_path / "store"), CPU, ALONE)


@pytest.mark.parametrize(("batches", "refused"), [(1, True), (None, False)])
def test_batches_in_which_there_is_nothing_to_predict_are_refused(batches, refused, tmp_path):
    long = "one two three four five six seven eight nine ten"
    for name in ("train", "test"):
        rows = [{"prompt": prompt, "completion": " yes"} for prompt in [long] * 4 + ["a"]]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    run = run_of(tmp_path, "sft")
    said = run.evaluation.model_copy(update={"batches": batches})
    run = run.model_copy(update={"evaluation": said})
    if refused:
        with pytest.raises(UserError, match=r"test\.jsonl gives sft nothing to predict in its"):
            assemble(run, Store(tmp_path / "store"), CPU, ALONE)
    else:
        rows = assemble(run, Store(tmp_path / "store"), CPU, ALONE).evaluator.evaluate()
        assert rows[0]["targets"] > 0
        assert rows[0]["value"] > 0


def test_a_label_may_be_missing_among_what_is_held_out(tmp_path):
    write_rows(tmp_path)
    rows = (tmp_path / "test.jsonl").read_text().splitlines()
    (tmp_path / "test.jsonl").write_text("\n".join(rows[::2]))  # label 0 alone
    evaluator = assemble(
        run_of(tmp_path, "classification"), Store(tmp_path / "store"), CPU, ALONE
    ).evaluator
    assert {row["score"] for row in evaluator.evaluate()} == {"loss", "accuracy", "macro_f1"}


@pytest.mark.parametrize("kind", ["clm", "mlm", "span_corruption"])
def test_an_objective_gives_the_scores_that_it_is_said_to(kind):
    assert set(SCORES) <= set(KINDS)
    objective = Objective(kind=kind, data=DOCS, **OBJECTIVE_DEFAULTS[kind])
    assert (LOSS, *build_objective(objective).scores({}, 1.0)) == scores_of(kind)
