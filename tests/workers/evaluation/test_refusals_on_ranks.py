"""Answers under DeepSpeed, on two ranks that share the batches of prompts."""

import pytest

pytest.importorskip("deepspeed")

import answers_on_ranks
import polars as pl
import torch
from answers_on_ranks import answering_run
from engine_cells import in_ranks

from sweeps.reading.tables import Tables
from sweeps.store.store import Store
from workers.train import train


def rows(store, run):
    tables = Tables(store, [run], include_running=False)
    answers = tables.answers().sort("step", "prompt").collect()
    scores = tables.evaluations().sort("step", "score").collect()
    shown = ("step", "prompt", "answer", "answer_tokens", "refused_by_judge", "answer_kl")
    return answers.select(shown), scores


@pytest.mark.parametrize("stage", [pytest.param(1, marks=pytest.mark.slow), 3])
def test_two_ranks_answer_as_one_process_does(stage, tmp_path):
    alone, shared = (Store.at(str(tmp_path / name)) for name in ("alone", "shared"))
    for store in (alone, shared):
        store.identify()
    run = answering_run()
    list(train(run, alone, torch.device("cpu")))
    in_ranks(answers_on_ranks.__file__, [str(shared.root), str(stage)], 2)
    (answers, scores), (theirs, their_scores) = rows(alone, run), rows(shared, run)
    assert answers["prompt"].n_unique() == 128
    assert answers["refused_by_judge"].null_count() == 0
    assert theirs.drop("answer_kl").equals(answers.drop("answer_kl"))
    apart = (theirs["answer_kl"] - answers["answer_kl"]).abs().max()
    assert apart <= 1e-4
    assert their_scores["score"].to_list() == scores["score"].to_list()
    assert (their_scores["value"] - scores["value"]).abs().max() <= 1e-3
    assert answers.filter(pl.col("step") == 4)["answer_kl"].max() > 1e-3
