"""How to write a control: one subclass of ``LayerControl``, which then works in every engine.

``TrustRatio`` is LARS-style scaling (You et al. 2017, arXiv 1708.03888, eq. 6, on AdamW's update):
each layer moves by ``eta`` times its own norm at most. It reads one vector of update norms and one
of weight norms; which parameters a layer has, what a shard is, which rank holds it and when
DeepSpeed calls the optimizer is not its business. To offer it in sweep files it needs an entry in
``sweeps.spec.Control`` and one in ``workers.controls.registry``.
"""

import pytest
import torch

from sweeps.spec import Optimizer
from workers.controls.layer_control import LayerControl, Standard
from workers.controls.layer_groups import find_layer_groups
from workers.engines.plain import PlainEngine

OPTIMIZER = Optimizer(learning_rate=1e-2)


class TrustRatio(LayerControl):
    """U_l ← U_l · min(1, eta · ‖W_l‖ / ‖U_l‖)."""

    scales_updates = True

    def __init__(self, eta: float) -> None:
        self.eta = eta

    def update_scale(self, update_norms, weight_norms):
        ratio = self.eta * weight_norms / update_norms.clamp(min=1e-12)
        return ratio.clamp(max=1.0)


class FreezeBelow(LayerControl):
    """The first ``k`` blocks keep their weights: their updates are scaled by nought."""

    scales_updates = True

    def __init__(self, k: int) -> None:
        self.k = k

    def update_scale(self, update_norms, weight_norms):
        return (torch.arange(len(update_norms)) >= self.k).to(weight_norms)

    def controls(self, kind):
        return kind == "block"


def stepped(make_language_model, control):
    model, _ = make_language_model("opt")
    ids = torch.arange(24).view(2, 12)
    engine = PlainEngine(
        model, find_layer_groups(model, lambda: model(input_ids=ids)), control, OPTIMIZER, "fp32"
    )
    for _ in range(2):
        engine.backward(model(input_ids=ids, labels=ids).loss)
        record = engine.step(1e-2)
    return engine, record


def test_no_layer_moves_further_than_its_trust_ratio(make_language_model):
    _, free = stepped(make_language_model, Standard())
    eta = 1e-3
    _, held = stepped(make_language_model, TrustRatio(eta))
    moved = [u / w for u, w in zip(held.update_norms, held.weight_norms, strict=True)]
    assert max(free.update_norms) > 10 * max(held.update_norms)
    assert moved == pytest.approx([eta] * len(moved), rel=1e-5)


def test_blocks_below_stay_where_they_were_and_others_move(make_language_model):
    fresh, _ = make_language_model("opt")
    engine, record = stepped(make_language_model, FreezeBelow(2))
    moved = dict(zip((g.layer for g in engine.groups), record.update_norms, strict=True))
    assert moved[1] == moved[2] == 0
    assert moved[0] > 0
    assert moved[3] > 0
    before = dict(fresh.named_parameters())
    for group in engine.groups[1:3]:
        for name, parameter in zip(group.names, group.parameters, strict=True):
            torch.testing.assert_close(parameter, before[name], rtol=0, atol=0)
