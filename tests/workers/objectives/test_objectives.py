"""Each objective against the formula written out, and against itself in other micro-batches."""

import copy

import numpy as np
import pytest
import torch
from kinds_on_ranks import KINDS, built
from torch.nn.functional import cosine_similarity, cross_entropy

from sweeps.spec import OBJECTIVE_DEFAULTS, OBJECTIVES, BuiltinData, Objective
from workers.models.pretrained import ModelFacts, PretrainedModel
from workers.objectives.objective import pool
from workers.objectives.registry import build_objective

DATA = BuiltinData(builtin="python-docs", digest="0" * 64)
TEXTS = [
    f"the value of item {k} is returned by the function {'very ' * (k % 5)}" for k in range(12)
]
ROWS = {
    "text": TEXTS,
    "label": [k % 3 for k in range(12)],
    "anchor": TEXTS,
    "positive": [text.upper() for text in TEXTS],
}


class Run:
    seed, batch_size = 3, 8


class DirectEngine:
    """The engine protocol, with nothing in it."""

    rank, ranks = 0, 1

    def __init__(self, model, bf16=False):
        self.model, self.device, self.bf16 = model, torch.device("cpu"), bf16

    def forward_precision(self, micro_batch=None):
        del micro_batch  # nothing is drawn
        return torch.autocast("cpu", torch.bfloat16, enabled=self.bf16)

    def backward(self, loss):
        loss.backward()

    def share(self, batch):
        return batch

    def gather(self, rows):
        return rows

    def total(self, value):
        return value


@pytest.fixture
def prepared(make_language_model):
    def prepare(kind, family=None):
        family = family or ("bert" if kind == "mlm" else "gpt2")
        language_model, tokenizer = make_language_model(family)
        options = {**OBJECTIVE_DEFAULTS[kind], **({"labels": 3} if kind[:5] == "class" else {})}
        objective = build_objective(Objective(kind=kind, data=DATA, **options))
        facts = ModelFacts(family, "", "", 3, 32, 0)
        model = objective.build_model(PretrainedModel(language_model, tokenizer, facts))
        rows = {role: ROWS[role] for role in objective.roles}
        return objective, model, objective.tokenise(tokenizer, rows, 12), tokenizer

    return prepare


def gradients(objective, model, batch, micro, bf16=False):
    model = copy.deepcopy(model)
    loss = objective.accumulate(DirectEngine(model, bf16), batch, micro)
    grads = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    return loss, grads


@pytest.mark.parametrize("kind", ["clm", "mlm", "classification", "contrastive"])
@pytest.mark.parametrize("micro", [1, 2, 4])
def test_a_micro_batch_changes_nothing_but_rounding(kind, micro, prepared):
    objective, model, arrays, _ = prepared(kind)
    batch = objective.batch(arrays, Run, 1)
    whole_loss, whole = gradients(objective, model, batch, 8)
    loss, grads = gradients(objective, model, batch, micro)
    torch.testing.assert_close(loss, whole_loss, rtol=1e-5, atol=1e-6)
    assert set(grads) == set(whole)
    # Sums of float32 terms in another order; gradients here are of order 1e-3 to 1. InfoNCE divides
    # by a temperature of 0.05, so its terms are 20 times larger before they cancel.
    atol = 4e-5 if kind == "contrastive" else 2e-6
    for name in whole:
        torch.testing.assert_close(grads[name], whole[name], rtol=1e-4, atol=atol)


@pytest.mark.parametrize("name", KINDS)
def test_a_micro_batch_changes_nothing_whatever_the_rows(name):
    objective, arrays, model, *_ = built(name)
    batch = objective.batch(arrays, Run, 1)
    whole_loss, whole = gradients(objective, model, batch, 8)
    for micro in (1, 2):
        loss, grads = gradients(objective, model, batch, micro)
        torch.testing.assert_close(loss, whole_loss, rtol=1e-5, atol=1e-6)
        atol = 4e-5 if name == "negatives" else 2e-6
        for parameter in whole:
            torch.testing.assert_close(grads[parameter], whole[parameter], rtol=1e-4, atol=atol)


def test_every_kind_of_objective_is_tried_in_micro_batches():
    tried = {kind for kind, *_ in KINDS.values()}
    assert set(OBJECTIVES) == {"clm", "mlm", "span_corruption", *tried}


def test_info_nce_is_float32_in_bf16_too_as_it_is_for_micro_batches(prepared):
    objective, *_ = prepared("contrastive")
    anchors, positives = (torch.nn.functional.normalize(torch.randn(2, 8, 32), dim=-1)).unbind()
    alone = objective._info_nce(anchors, positives)
    with torch.autocast("cpu", torch.bfloat16):
        assert objective._info_nce(anchors, positives) == alone


def test_clm_is_the_mean_cross_entropy_of_the_next_token(prepared):
    objective, model, arrays, _ = prepared("clm")
    batch = objective.batch(arrays, Run, 2)
    loss, _ = gradients(objective, model, batch, 8)
    logits = model(batch["input_ids"])
    by_hand = torch.stack(
        [
            -logits[b, t].log_softmax(-1)[batch["input_ids"][b, t + 1]]
            for b in range(8)
            for t in range(logits.shape[1] - 1)
        ]
    ).mean()
    torch.testing.assert_close(loss, by_hand.detach(), rtol=1e-5, atol=1e-6)


def test_mlm_masks_only_ordinary_tokens_and_the_same_ones_for_a_step(prepared):
    objective, _, arrays, tokenizer = prepared("mlm")
    batch, again = objective.batch(arrays, Run, 5), objective.batch(arrays, Run, 5)
    assert (batch["input_ids"] == again["input_ids"]).all()
    masked = batch["labels"] != -100
    special = torch.isin(batch["labels"], torch.tensor(tokenizer.all_special_ids))
    assert not (masked & special).any()
    assert objective.targets(batch) == int(masked.sum()) >= 1
    unmasked_changed = (batch["input_ids"] != objective.batch(arrays, Run, 5)["input_ids"])[~masked]
    assert not unmasked_changed.any()


def test_mlm_masks_as_often_as_it_says(prepared):
    objective, _, arrays, tokenizer = prepared("mlm")
    masked = ordinary = shown = 0
    for step in range(1, 200):
        batch = objective.batch(arrays, Run, step)
        where = batch["labels"] != -100
        masked += int(where.sum())
        ordinary += batch["labels"].numel() - 2 * len(batch["labels"])
        shown += int((batch["input_ids"][where] == tokenizer.mask_token_id).sum())
    # About 16,000 draws of probability 0.15: three standard deviations are 0.008.
    assert masked / ordinary == pytest.approx(0.15, abs=0.01)
    assert shown / masked == pytest.approx(0.8, abs=0.03)


def test_contrastive_is_info_nce_over_the_whole_batch(prepared):
    objective, model, arrays, _ = prepared("contrastive")
    batch = objective.batch(arrays, Run, 1)
    loss, _ = gradients(objective, model, batch, 2)

    def embed(prefix):
        ids, mask = batch[f"{prefix}_input_ids"], batch[f"{prefix}_attention_mask"]
        states = model.backbone(input_ids=ids, attention_mask=mask).last_hidden_state
        return torch.stack([s[: m.sum()].mean(0) for s, m in zip(states, mask, strict=True)])

    anchors, positives = embed("anchor"), embed("positive")
    similarity = cosine_similarity(anchors[:, None], positives[None], dim=-1) / 0.05
    by_hand = cross_entropy(similarity, torch.arange(8))
    torch.testing.assert_close(loss, by_hand.detach(), rtol=1e-4, atol=1e-5)


def test_padding_does_not_reach_the_loss(prepared):
    objective, model, arrays, _ = prepared("classification", "bert")
    batch = objective.batch(arrays, Run, 1)
    loss, _ = gradients(objective, model, batch, 8)
    other = {name: tensor.clone() for name, tensor in batch.items()}
    other["input_ids"][batch["attention_mask"] == 0] = 7
    torch.testing.assert_close(gradients(objective, model, other, 8)[0], loss)


def test_pooling_picks_what_it_says():
    states = torch.arange(24.0).reshape(2, 4, 3)
    mask = torch.tensor([[1, 1, 0, 0], [1, 1, 1, 1]])
    assert pool(states, mask, "first").tolist() == states[:, 0].tolist()
    assert pool(states, mask, "last").tolist() == [states[0, 1].tolist(), states[1, 3].tolist()]
    expected = np.stack([states[0, :2].mean(0), states[1].mean(0)])
    np.testing.assert_allclose(pool(states, mask, "mean"), expected)


@pytest.mark.parametrize("kind", ["classification", "contrastive"])
def test_every_family_can_be_given_labels_or_pairs(kind, family, prepared):
    objective, model, arrays, _ = prepared(kind, family)
    loss, grads = gradients(objective, model, objective.batch(arrays, Run, 1), 4)
    assert torch.isfinite(loss)
    assert any(gradient.abs().max() > 0 for gradient in grads.values())
