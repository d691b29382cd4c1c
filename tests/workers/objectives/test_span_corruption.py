"""Span corruption: what is hidden, what is to be written, and that it is a function of the step."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from transformers import BartConfig, BartForConditionalGeneration, T5Config
from transformers import T5ForConditionalGeneration as T5

from sweeps.errors import UserError
from sweeps.spec import OBJECTIVE_DEFAULTS, BuiltinData, Objective
from workers.models.pretrained import ModelFacts, PretrainedModel
from workers.objectives.registry import build_objective
from workers.objectives.span_corruption import IGNORED, TextToText, _spans

DATA = BuiltinData(builtin="python-docs", digest="0" * 64)
TEXTS = ["the value of the item is returned by the function that was called first " * 3] * 6
FACTS = ModelFacts("", "", "", 4, 32, 0)


class Run:
    seed, batch_size = 3, 4


def objective(**options):
    options = {**OBJECTIVE_DEFAULTS["span_corruption"], **options}
    return build_objective(Objective(kind="span_corruption", data=DATA, **options))


@pytest.fixture
def tokenizer(make_language_model):
    return make_language_model("bert")[1]


@pytest.fixture
def with_sentinels(make_language_model):
    import copy

    made = copy.deepcopy(make_language_model("bert")[1])
    made.add_tokens([f"<extra_id_{k}>" for k in range(8)], special_tokens=True)
    made.add_special_tokens({"eos_token": "</s>"})
    return made


def t5(vocabulary):
    shape = {"d_model": 32, "d_kv": 8, "d_ff": 32, "num_layers": 2, "num_heads": 4}
    config = T5Config(vocab_size=vocabulary, decoder_start_token_id=0, **shape)
    return T5(config).eval()


def test_each_hidden_span_is_a_sentinel_and_the_decoder_writes_what_it_stands_for(with_sentinels):
    wanted = objective()
    arrays = wanted.tokenise(with_sentinels, {"text": TEXTS}, 40)
    batch = wanted.batch(arrays, Run, 1)
    sentinels = with_sentinels.convert_tokens_to_ids([f"<extra_id_{k}>" for k in range(8)])
    originals = {tuple(row) for row in arrays["input_ids"].tolist()}
    for shown, mask, labels in zip(*(batch[n] for n in batch), strict=True):
        shown = shown[mask.bool()].tolist()
        written = labels[labels != IGNORED].tolist()
        assert written[-1] == with_sentinels.eos_token_id
        pieces, current = {}, None
        for token in written[:-1]:
            if token in sentinels:
                current = pieces.setdefault(token, [])
            else:
                current.append(token)
        assert list(pieces) == sentinels[: len(pieces)]
        assert [t for t in shown if t in sentinels] == list(pieces)
        restored = [t for token in shown for t in pieces.get(token, [token])]
        assert tuple(restored) in originals
        hidden = sum(map(len, pieces.values()))
        assert hidden == round(38 * 0.15)  # of 40 tokens two are the frame
        assert len(pieces) == round(hidden / 3)


def test_without_sentinels_a_span_is_one_mask_and_the_whole_text_is_written(tokenizer):
    wanted = objective(mask_probability=0.3)
    arrays = wanted.tokenise(tokenizer, {"text": TEXTS}, 40)
    batch = wanted.batch(arrays, Run, 1)
    assert {tuple(row) for row in batch["labels"].tolist()} <= {
        tuple(row) for row in arrays["input_ids"].tolist()
    }
    masks = (batch["input_ids"] == tokenizer.mask_token_id).sum(dim=1)
    assert masks.tolist() == [round(round(38 * 0.3) / 3)] * 4
    shorter = batch["attention_mask"].sum(dim=1)
    assert shorter.tolist() == [40 - round(38 * 0.3) + int(masks[0])] * 4


def test_it_is_a_function_of_seed_and_step(tokenizer):
    wanted = objective()
    arrays = wanted.tokenise(tokenizer, {"text": TEXTS}, 40)
    once, again, later = (wanted.batch(arrays, Run, step) for step in (1, 1, 2))
    assert all(torch.equal(once[name], again[name]) for name in once)
    assert not torch.equal(once["input_ids"], later["input_ids"])

    class Other(Run):
        seed = 4

    assert not torch.equal(once["input_ids"], wanted.batch(arrays, Other, 1)["input_ids"])


@pytest.mark.parametrize("tokens", [0, 1, 2, 3, 7, 40, 500])
@pytest.mark.parametrize("share", [0.01, 0.15, 0.9])
@pytest.mark.parametrize("mean", [1.0, 3.0, 40.0])
def test_spans_do_not_touch_and_something_is_hidden_and_shown(tokens, share, mean):
    generator = np.random.default_rng(0)
    spans = _spans(tokens, share, mean, 100, generator)
    assert all(start < stop for start, stop in spans)
    assert all(a[1] < b[0] for a, b in pairwise(spans))
    if tokens >= 2:
        hidden = sum(stop - start for start, stop in spans)
        assert hidden == min(max(1, round(tokens * share)), tokens - 1)


def test_the_loss_is_the_model_s_own_with_the_labels_that_it_shifts_itself(with_sentinels):
    model = t5(len(with_sentinels))
    wanted = objective()
    trained = wanted.build_model(PretrainedModel(model, with_sentinels, FACTS))
    batch = wanted.batch(wanted.tokenise(with_sentinels, {"text": TEXTS}, 40), Run, 1)
    ours = wanted.loss_sum(trained, batch) / wanted.targets(batch)
    own = model(**batch).loss
    torch.testing.assert_close(ours, own)


def test_a_decoder_begins_with_its_own_token(tokenizer):
    config = BartConfig(
        vocab_size=len(tokenizer),
        d_model=32,
        encoder_layers=2,
        decoder_layers=2,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=32,
        decoder_ffn_dim=32,
        decoder_start_token_id=2,
    )
    model = BartForConditionalGeneration(config).eval()
    seen = []
    model.register_forward_pre_hook(
        lambda _, __, given: seen.append(given["decoder_input_ids"]), with_kwargs=True
    )
    labels = torch.tensor([[7, 8, IGNORED]])
    TextToText(model)(torch.tensor([[7, 4, 9]]), torch.ones(1, 3, dtype=torch.long), labels)
    assert seen[0].tolist() == [[2, 7, 8]]


def test_a_model_without_a_decoder_and_a_tokenizer_without_marks_are_refused(make_language_model):
    model, tokenizer = make_language_model("gpt2")
    with pytest.raises(UserError, match="GPT2LMHeadModel is no encoder-decoder"):
        objective().build_model(PretrainedModel(model, tokenizer, FACTS))
    with pytest.raises(UserError, match="neither sentinels"):
        objective().tokenise(tokenizer, {"text": TEXTS}, 20)
