"""Texts and pairs of texts with a class, a number or several labels."""

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, f1_score, mean_squared_error
from torch.nn.functional import binary_cross_entropy_with_logits, mse_loss
from transformers import BertConfig, BertForSequenceClassification

from sweeps.spec import OBJECTIVE_DEFAULTS, BuiltinData, Objective
from workers.data.packing import pad
from workers.models.pretrained import ModelFacts, PretrainedModel
from workers.objectives.objective import few_of
from workers.objectives.registry import build_objective

DATA = BuiltinData(builtin="python-docs", digest="0" * 64)
FACTS = ModelFacts("", "", "", 3, 32, 0)
TEXTS = [f"the value of item {k} is returned {'very ' * (k % 4)}" for k in range(6)]
PAIRS = [f"function {k} {'was called first ' * (k % 3)}" for k in range(6)]


class Run:
    seed, batch_size = 3, 6


def prepared(kind, language_model, tokenizer, rows, length=24, **options):
    options = {**OBJECTIVE_DEFAULTS[kind], **options}
    objective = build_objective(Objective(kind=kind, data=DATA, **options))
    model = objective.build_model(PretrainedModel(language_model, tokenizer, FACTS)).eval()
    return objective, model, objective.batch(objective.tokenise(tokenizer, rows, length), Run, 1)


@pytest.fixture
def with_pairs(make_language_model):
    """A BERT whose tokenizer frames pairs and numbers their texts, as published ones do."""
    from tokenizers import processors

    _, tokenizer = make_language_model("bert")
    import copy

    tokenizer = copy.deepcopy(tokenizer)
    cls, sep = tokenizer.cls_token, tokenizer.sep_token
    numbered = [(token, tokenizer.convert_tokens_to_ids(token)) for token in (cls, sep)]
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{cls} $A {sep}",
        pair=f"{cls} $A {sep} $B:1 {sep}:1",
        special_tokens=numbered,
    )
    tokenizer.model_input_names = ["input_ids", "token_type_ids", "attention_mask"]
    torch.manual_seed(0)
    shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = BertConfig(
        vocab_size=len(tokenizer), intermediate_size=32, hidden_dropout_prob=0.0, **shape
    )
    return BertForSequenceClassification(config).eval(), tokenizer


def test_a_pair_is_read_as_transformers_alone_reads_it(with_pairs):
    language_model, tokenizer = with_pairs
    rows = {"text": TEXTS, "text_pair": PAIRS, "label": [k % 3 for k in range(6)]}
    objective, model, batch = prepared(
        "classification", language_model, tokenizer, rows, 60, labels=3, pooling="first"
    )
    encoded = tokenizer(TEXTS, PAIRS, padding=True, return_tensors="pt")
    states = language_model.bert(**encoded).last_hidden_state[:, 0]
    logits = objective.logits(model, batch)
    order = [row.tolist() for row in encoded["input_ids"]]
    found = [order.index(row.tolist()) for row in batch["input_ids"]]
    torch.testing.assert_close(logits, model.head(states)[found])
    # The second text is told from the first by its number, too.
    without = {name: t for name, t in batch.items() if name != "token_type_ids"}
    assert (objective.logits(model, without) - logits).abs().max() > 1e-3


@pytest.mark.parametrize("length", [6, 9, 30])
def test_of_a_pair_the_longer_text_is_cut_first_and_the_two_are_told_apart(
    length, make_language_model
):
    _, tokenizer = make_language_model("gpt2")
    texts, pairs = ["the value " * 10, "x"], ["function", "was called " * 10]
    arrays = pad(tokenizer, texts, length, pairs=pairs)
    ends = (arrays["input_ids"] == tokenizer.eos_token_id) & (arrays["attention_mask"] == 1)
    assert ends.sum(axis=1).tolist() == [1, 1]
    second = tokenizer("function")["input_ids"]
    kept = arrays["input_ids"][0][arrays["attention_mask"][0] == 1].tolist()
    most = max(length - 1 - len(second), length // 2)
    assert kept[kept.index(tokenizer.eos_token_id) + 1 :] == second[: length - 1 - most]
    assert arrays["attention_mask"].sum(axis=1).max() <= length


def test_regression_is_the_mean_squared_error_of_a_linear_head(make_language_model):
    numbers = [0.5, -2.0, 3.25, 1.0, 0.0, 8.0]
    rows = {"text": TEXTS, "label": numbers}
    objective, model, batch = prepared("regression", *make_language_model("gpt2"), rows)
    assert sorted(batch["wanted"].tolist()) == sorted(numbers)
    said = objective.predictions(model, batch)
    loss = objective.loss_sum(model, batch) / objective.targets(batch)
    torch.testing.assert_close(loss, mse_loss(said["predicted"], batch["wanted"]))


def test_scores_of_numbers_are_those_of_scikit_learn_and_numpy():
    objective = build_objective(Objective(kind="regression", data=DATA, pooling="mean"))
    generator = np.random.default_rng(1)
    wanted = generator.normal(size=50).astype(np.float32)
    predicted = (wanted + generator.normal(size=50)).astype(np.float32)
    found = objective.scores({"predicted": predicted, "wanted": wanted}, 0.0)
    assert found["rmse"] == pytest.approx(mean_squared_error(wanted, predicted) ** 0.5, rel=1e-6)
    assert found["pearson"] == pytest.approx(np.corrcoef(wanted, predicted)[0, 1], rel=1e-6)
    ranks = [np.argsort(np.argsort(one)) for one in (wanted, predicted)]
    assert found["spearman"] == pytest.approx(np.corrcoef(*ranks)[0, 1], rel=1e-6)
    # Of numbers that are all the same there is no correlation.
    alike = objective.scores({"predicted": wanted, "wanted": np.ones(50)}, 0.0)
    assert set(alike) == {"rmse"}


def test_several_labels_are_as_many_yes_and_no(make_language_model):
    rows = {"text": TEXTS, "labels": [[0], [1, 3], [], [3], [0, 1, 2, 3], [2]]}
    objective, model, batch = prepared("multi_label", *make_language_model("gpt2"), rows, labels=4)
    assert batch["indicators"].sum(dim=0).tolist() == [2, 2, 2, 3]
    loss = objective.loss_sum(model, batch) / objective.targets(batch)
    logits = objective.logits(model, batch)
    wanted = binary_cross_entropy_with_logits(logits, batch["indicators"].float())
    torch.testing.assert_close(loss, wanted)


def test_scores_of_several_labels_are_those_of_scikit_learn():
    objective = build_objective(Objective(kind="multi_label", data=DATA, labels=20, pooling="mean"))
    generator = np.random.default_rng(2)
    predicted, wanted = generator.random((2, 40, 20)) > 0.7
    predicted[:, 3] = wanted[:, 4] = False
    predicted[:, 5:7] = wanted[:, 5:7] = False
    found = objective.scores({"predicted": predicted, "wanted": wanted}, 0.0)
    assert found["micro_f1"] == pytest.approx(f1_score(wanted, predicted, average="micro"))
    assert found["macro_f1"] == pytest.approx(
        f1_score(wanted, predicted, average="macro", zero_division=0)
    )
    nothing = np.zeros((4, 20), bool)
    found = objective.scores({"predicted": nothing, "wanted": nothing}, 0.0)
    assert found == {"micro_f1": 0.0, "macro_f1": 0.0}


@pytest.mark.parametrize("classes", [2, 5])
def test_scores_of_one_label_are_those_of_scikit_learn(classes):
    objective = build_objective(
        Objective(kind="classification", data=DATA, labels=6, pooling="mean")
    )
    generator = np.random.default_rng(4)
    label = generator.integers(0, classes, 40)
    predicted = np.where(generator.random(40) < 0.6, label, generator.integers(0, 6, 40))
    found = objective.scores({"predicted": predicted, "label": label}, 0.0)
    assert found["accuracy"] == pytest.approx(accuracy_score(label, predicted))
    expected = f1_score(label, predicted, average="macro", zero_division=0)
    assert found["macro_f1"] == pytest.approx(expected)


def test_a_sample_of_a_batch_keeps_all_of_many_labels(make_language_model):
    rows = {"text": TEXTS, "labels": [[k, k + 20] for k in range(6)]}
    objective, model, batch = prepared("multi_label", *make_language_model("gpt2"), rows, labels=30)
    assert torch.isfinite(objective.loss_sum(model, few_of(batch)))
