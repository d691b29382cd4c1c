"""Contrastive pairs with negatives of their own, and with positives that come more than once."""

import copy

import pytest
import torch
from torch.nn.functional import cross_entropy

from sweeps.spec import BuiltinData, Objective
from workers.models.pretrained import ModelFacts, PretrainedModel
from workers.objectives.contrastive import _embed
from workers.objectives.registry import build_objective

DATA = BuiltinData(builtin="python-docs", digest="0" * 64)
FACTS = ModelFacts("", "", "", 3, 32, 0)
ROLES = ("anchor", "positive", "negative")
ROWS = {
    "anchor": [f"what is item {k % 7}" for k in range(8)],
    "positive": ["the value", "x of y", "the value", "a function", "b", "c", "d", "e"],
    "negative": [f"other {k}" for k in range(6)] + ["the value", "d"],
}


class Run:
    seed, batch_size = 3, 8


def prepared(made, roles=ROLES, **options):
    language_model, tokenizer = made
    data = Objective(
        kind="contrastive", data=DATA, temperature=0.1, pooling="mean", read_roles=roles, **options
    )
    objective = build_objective(data)
    model = objective.build_model(PretrainedModel(language_model, tokenizer, FACTS)).eval()
    arrays = objective.tokenise(tokenizer, {role: ROWS[role] for role in roles}, 16)
    return objective, model, objective.batch(arrays, Run, 1)


def by_hand(model, batch, blocked=None):
    anchors, *candidates = _embed(model, batch)
    similarity = anchors @ torch.cat(candidates).T / 0.1
    if blocked is not None:
        similarity[blocked] = -torch.inf
    return cross_entropy(similarity, torch.arange(8))


def test_negatives_are_candidates_of_every_anchor(make_language_model):
    objective, model, batch = prepared(make_language_model("gpt2"))
    loss = objective.loss_sum(model, batch) / 8
    torch.testing.assert_close(loss, by_hand(model, batch))
    without = objective._info_nce(*_embed(model, batch)[:2]) / 8
    assert loss > without + 0.1


def test_what_is_as_good_as_the_positive_is_no_negative(make_language_model):
    objective, model, batch = prepared(make_language_model("gpt2"), mask_duplicates=True)
    texts = {role: [tuple(row) for row in batch[f"{role}_input_ids"].tolist()] for role in ROLES}
    blocked = torch.zeros(8, 16, dtype=torch.bool)
    for i in range(8):
        for j in range(8):
            same = texts["positive"][i] == texts["positive"][j]
            asked_alike = texts["anchor"][i] == texts["anchor"][j]
            blocked[i, j] = i != j and (same or asked_alike)
            blocked[i, 8 + j] = texts["positive"][i] == texts["negative"][j]
    # The value twice, item 0 twice; "the value" and "d" among the negatives.
    assert blocked.sum() == 2 + 2 + 2 + 1
    loss = objective.loss_sum(model, batch) / 8
    torch.testing.assert_close(loss, by_hand(model, batch, blocked))


@pytest.mark.parametrize("micro", [1, 4])
@pytest.mark.parametrize("options", [{}, {"mask_duplicates": True}], ids=["all", "masked"])
def test_a_micro_batch_sees_all_candidates(micro, options, make_language_model, engine_of):
    objective, model, batch = prepared(make_language_model("bert"), **options)
    losses, grads = [], []
    for size in (8, micro):
        here = copy.deepcopy(model)
        losses.append(objective.accumulate(engine_of(here), batch, size).detach())
        grads.append([p.grad for p in here.parameters() if p.grad is not None])
    torch.testing.assert_close(*losses, rtol=1e-5, atol=1e-6)
    for one, other in zip(*grads, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=4e-5)


def test_pairs_as_they_were_are_as_they_were(make_language_model):
    made = make_language_model("gpt2")
    objective, model, batch = prepared(made, ("anchor", "positive"))
    assert set(batch) == {f"{r}_{n}" for r in ROLES[:2] for n in ("input_ids", "attention_mask")}
    torch.testing.assert_close(objective.loss_sum(model, batch) / 8, by_hand(model, batch))
