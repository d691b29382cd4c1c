"""Preferences: the reference is what the model said before training, and is asked once."""

from types import SimpleNamespace

import numpy as np
import pytest
from small_run import DOCS, make_run

from sweeps.errors import UserError
from sweeps.spec import Objective
from workers.data.datasets import batch_indices
from workers.models.pretrained import ModelFacts, PretrainedModel
from workers.objectives.registry import build_objective

FACTS = ModelFacts("", "", "", 3, 32, 0)
ROWS = {
    "prompt": [f"what does function {k} return " for k in range(20)],
    "chosen": [f" the value {k} " + "and more " * (k % 3) for k in range(20)],
    "rejected": [f" nothing {k}" for k in range(20)],
}


@pytest.fixture
def prepared(make_language_model):
    language_model, tokenizer = make_language_model("gpt2")
    objective = build_objective(Objective(kind="preference", data=DOCS, beta=0.3))
    pretrained = PretrainedModel(language_model, tokenizer, FACTS, content="c" * 64)
    model = objective.build_model(pretrained).eval()
    arrays = objective.tokenise(tokenizer, ROWS, 48)
    return objective, model, arrays, pretrained


def test_before_training_nothing_is_preferred_and_a_batch_needs_no_reference(
    prepared, tmp_path, engine_of
):
    objective, model, arrays, pretrained = prepared
    run = make_run(batch_size=4, steps=9)
    complete = objective.completed(arrays, engine_of(model), run, pretrained, tmp_path)
    for source in (arrays, complete):
        batch = objective.batch(source, run, 2)
        loss = objective.loss_sum(model, batch) / objective.targets(batch)
        assert float(loss.detach()) == pytest.approx(np.log(2), abs=1e-5)


def test_the_reference_is_asked_once_and_of_what_will_be_read_alone(prepared, tmp_path, engine_of):
    objective, model, arrays, pretrained = prepared
    run = make_run(batch_size=4, steps=3)
    engine = engine_of(model)
    found = objective.completed(arrays, engine, run, pretrained, tmp_path)
    read = {n for step in (1, 2, 3) for n in batch_indices(run.seed, step, 4, 20).tolist()}
    assert set(np.flatnonzero(np.isfinite(found["chosen_reference"]))) == read
    asked = engine.asked
    assert asked == 2 * 3
    again = objective.completed(arrays, engine, run, pretrained, tmp_path)
    assert engine.asked == asked
    np.testing.assert_array_equal(again["rejected_reference"], found["rejected_reference"])


@pytest.mark.parametrize("other", ["model", "precision", "texts"])
def test_another_model_arithmetic_or_text_has_a_reference_of_its_own(
    prepared, tmp_path, other, engine_of
):
    objective, model, arrays, pretrained = prepared
    run, engine = make_run(batch_size=4, steps=9), engine_of(model)
    objective.completed(arrays, engine, run, pretrained, tmp_path)
    asked = engine.asked
    if other == "model":
        pretrained = PretrainedModel(model.language_model, None, FACTS, content="d" * 64)
    elif other == "precision":
        run = run.model_copy(update={"precision": "bf16"})
    else:
        ids = arrays["chosen_input_ids"].copy()
        ids[3, 2] += 1
        arrays = {**arrays, "chosen_input_ids": ids}
    objective.completed(arrays, engine, run, pretrained, tmp_path)
    assert engine.asked > asked


def test_a_pair_without_a_token_of_an_answer_does_not_count(prepared):
    objective, model, _, pretrained = prepared
    rows = {name: list(cells) for name, cells in ROWS.items()}
    rows["prompt"][5] = "function " * 60
    arrays = objective.tokenise(pretrained.tokenizer, rows, 48)
    batch = objective.batch(arrays, SimpleNamespace(seed=0, batch_size=20), 1)
    assert objective.targets(batch) == 19
    said = objective.predictions(model, batch)
    assert len(said["margin"]) == 19
    assert objective.scores({"margin": np.array([0.5, -1.0, 2.0, 1.0])}, 0.0) == {"accuracy": 0.75}
    rows["prompt"] = ["function " * 60] * 20
    with pytest.raises(UserError, match="no pair has a token of both answers in its first 48"):
        objective.tokenise(pretrained.tokenizer, rows, 48)
