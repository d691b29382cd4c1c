"""A label for each word: at the first of its tokens, whatever the tokenizer."""

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, f1_score

from sweeps.errors import Impossible
from sweeps.spec import BuiltinData, Objective
from workers.models.pretrained import ModelFacts, PretrainedModel
from workers.objectives.objective import IGNORED
from workers.objectives.registry import build_objective
from workers.objectives.token_classification import span_f1, spans_of

DATA = BuiltinData(builtin="python-docs", digest="0" * 64)
NAMES = ("O", "B-PER", "I-PER", "B-LOC")
WORDS = [["the", "returned", "value"], ["unpronounceablewords", "of", "ü", "functions", "x"]]
TAGS = [[0, 1, 2], [3, 0, 1, 2, 0]]


class Run:
    seed, batch_size = 3, 2


def objective(names=NAMES):
    found = Objective(kind="token_classification", data=DATA, labels=4, label_names=names)
    return build_objective(found)


@pytest.mark.parametrize("family", ["gpt2", "bert"])
def test_the_label_is_at_the_first_token_of_its_word(family, make_language_model):
    _, tokenizer = make_language_model(family)
    arrays = objective().tokenise(tokenizer, {"tokens": WORDS, "labels": TAGS}, 40)
    for ids, labels, words, tags in zip(
        arrays["input_ids"], arrays["labels"], WORDS, TAGS, strict=True
    ):
        places = np.flatnonzero(labels != IGNORED)
        assert labels[places].tolist() == tags
        ends = [*places[1:], len(ids)]
        for place, end, word in zip(places, ends, words, strict=True):
            assert tokenizer.decode(ids[place:end]).strip().startswith(word)


def test_words_that_are_cut_off_have_no_label(make_language_model):
    _, tokenizer = make_language_model("gpt2")
    arrays = objective().tokenise(tokenizer, {"tokens": WORDS, "labels": TAGS}, 5)
    assert arrays["labels"].shape == (2, 5)
    assert 0 < (arrays["labels"][1] != IGNORED).sum() < 5


def test_the_loss_is_the_mean_over_words(make_language_model):
    language_model, tokenizer = make_language_model("bert")
    ours = objective()
    facts = ModelFacts("", "", "", 3, 32, 0)
    model = ours.build_model(PretrainedModel(language_model, tokenizer, facts)).eval()
    batch = ours.batch(ours.tokenise(tokenizer, {"tokens": WORDS, "labels": TAGS}, 40), Run, 1)
    assert ours.targets(batch) == 8
    logits = model(batch["input_ids"], batch["attention_mask"]).log_softmax(-1)
    by_hand = [
        -logits[b, t, label]
        for b, row in enumerate(batch["labels"])
        for t, label in enumerate(row)
        if label != IGNORED
    ]
    torch.testing.assert_close(ours.loss_sum(model, batch) / 8, torch.stack(by_hand).mean())
    said = ours.predictions(model, batch)
    assert said["first"].sum() == 2
    assert len(said["predicted"]) == len(said["wanted"]) == 8


def test_spans_are_whole_and_of_one_type():
    assert spans_of(["O", "B-A", "I-A", "B-A", "I-B", "O", "I-A"]) == [
        (1, 3, "A"),
        (3, 4, "A"),
        (4, 5, "B"),
        (6, 7, "A"),
    ]
    assert spans_of([]) == []
    assert span_f1([["B-A", "I-A", "O"]], [["B-A", "I-A", "O"]]) == 1.0
    assert span_f1([["B-A", "O", "B-B"]], [["B-A", "I-A", "B-B"]]) == 0.5
    assert span_f1([["O"]], [["O"]]) == 0.0


def test_spans_do_not_reach_from_one_example_into_the_next():
    ours = objective()
    said = {
        "wanted": np.array([0, 1, 2, 2]),
        "predicted": np.array([0, 1, 2, 2]),
        "first": np.array([True, False, True, False]),
    }
    assert ours.scores(said, 0.0) == {"accuracy": 1.0, "span_f1": 1.0}
    as_one = {**said, "predicted": np.array([0, 1, 0, 2])}
    # Wanted are B-PER at the end of the first example, and I-PER I-PER as one in the second.
    assert ours.scores(as_one, 0.0)["span_f1"] == 0.5


def test_accuracy_is_scikit_learn_s_and_names_that_are_no_bio_have_no_spans():
    generator = np.random.default_rng(3)
    wanted, predicted = generator.integers(0, 4, (2, 60))
    said = {"wanted": wanted, "predicted": predicted, "first": np.arange(60) % 7 == 0}
    found = objective(("NOUN", "VERB", "ADJ", "X")).scores(said, 0.0)
    assert found == {"accuracy": pytest.approx(accuracy_score(wanted, predicted))}
    # Where every span is one word, F1 of spans is the micro F1 of all names but O.
    named = objective(("O", "B-A", "B-B", "B-C")).scores(said, 0.0)
    micro = f1_score(wanted, predicted, labels=[1, 2, 3], average="micro")
    assert named["span_f1"] == pytest.approx(micro)


def test_a_tokenizer_that_does_not_tell_words_is_refused():
    class Slow:
        is_fast = False

    with pytest.raises(Impossible, match="fast one"):
        objective().tokenise(Slow(), {"tokens": WORDS, "labels": TAGS}, 8)
